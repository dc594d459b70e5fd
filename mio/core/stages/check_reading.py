"""What is wrong with how a recipe reads and writes media: nothing does it with a modality, or what is only read is to
be written, or the other way round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

from mio.core.contract.networks import Networks
from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.validation import template_pieces
from mio.core.contract.values import Modality
from mio.core.errors import PluginError
from mio.core.recipe.schema import Recipe
from mio.core.tokens.documents import GENERATE
from mio.core.tokens.item_encoders import only_read, without_network

Answer = TypeVar("Answer")


def networks_at_hand(plugins: EnabledPlugins) -> tuple[Networks, list[str]]:
    """The networks that plugins supply, without those that break the contract; and what is wrong with these."""
    problems: list[str] = []

    def answered(call: Callable[[], Answer | None]) -> Answer | None:
        try:
            return call()
        except PluginError as error:
            problems.append(str(error))
            return None

    names = [declared.name for _, declared in plugins.modalities() if not (declared.text or declared.parts)]
    encoders = {name: answered(partial(plugins.encoder, name)) for name in names}
    heads = {name: answered(partial(plugins.head, name)) for name in names}
    networks = Networks(
        {name: found[1] for name, found in encoders.items() if found is not None},
        answered(plugins.adapters) or {},
        {name: found[1] for name, found in heads.items() if found is not None},
    )
    return networks, problems


def reading_problems(recipe: Recipe, plugins: EnabledPlugins) -> Iterator[str]:
    """One sentence each. What is wrong with the networks themselves is told elsewhere."""
    declared = {modality.name: modality for _, modality in plugins.modalities()}
    networks, problems = networks_at_hand(plugins)
    made = networks.heads
    for owner, modality in plugins.modalities():
        name = modality.name
        if modality.text or modality.parts or modality.codebooks or name in networks.encoders or name in made:
            continue
        if not any(f"of `{name}`" in problem for problem in problems):
            yield without_network(name, owner)
    unwritable = {name for name in declared if only_read(declared, name, made)}
    unreadable = {name for name in declared if _only_written(declared, name, networks)}
    yield from _templates(recipe, plugins, unwritable, unreadable)
    tasks = plugins.tasks()
    for where, names in (("evaluate", recipe.evaluate.tasks), ("validate", recipe.validate.tasks)):
        for name in names:
            if name in tasks and (output := tasks[name][1].output) in unwritable:
                yield (
                    f"`{where}.tasks` names `{name}`, whose answers are of `{output}`, which is only read, by an "
                    "encoder: leave the task out"
                )


def _only_written(modalities: Mapping[str, Modality], name: str, networks: Networks) -> bool:
    """Whether a modality has neither codes nor an encoder, but a head, or parts of which that is so."""
    own = [modalities[part] for part in modalities[name].part_names or (name,)]
    return any(one.name in networks.heads and not (one.codebooks or one.name in networks.encoders) for one in own)


def _templates(recipe: Recipe, plugins: EnabledPlugins, unwritable: set[str], unreadable: set[str]) -> Iterator[str]:
    """Responses with a field that is called like what is only read, prompts with one of what is only written."""
    sets = {name: templates for name, (_, templates) in plugins.templates().items()} | recipe.data.templates
    for group, config in recipe.data.groups.items():
        for name, source in config.sources.items():
            told = set()
            for template in sets.get(source.templates, ()):
                if source.directions and not source.directions.get(template.direction, 0) > 0:
                    continue
                wrong = [(field, "answers with", "read, by an encoder") for field in _fields(template.response)
                         if field in unwritable]  # fmt: skip
                wrong += [(field, "asks about", "written, by a head") for field in _fields(template.prompt)
                          if field in unreadable]  # fmt: skip
                wrong += [(field, f"asks, as `{{{field}:{GENERATE}}}`, for the codes of", "read, by an encoder")
                          for field in _fields(template.prompt, GENERATE) if field in unwritable]  # fmt: skip
                for field, does, only in wrong:
                    if (template.direction, field) not in told:
                        told.add((template.direction, field))
                        yield (
                            f"`data.groups.{group}.sources.{name}`: the direction `{template.direction}` of the "
                            f"templates `{source.templates}` {does} `{{{field}}}`, which is only {only}; leave it out "
                            "(`directions`), or give other templates"
                        )


def _fields(text: str, view: str = "") -> list[str]:
    """Names of the fields of one side of a template; of those alone that ask for a view, where it is given."""
    try:
        return [one.name for one in template_pieces(text) if not one.control and view in ("", one.view)]
    except ValueError:
        return []  # of which the checks of templates tell
