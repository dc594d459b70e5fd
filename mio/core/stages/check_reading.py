"""What is wrong with how a recipe reads media: nothing reads a modality, or what is only read is to be written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from string import Formatter

from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import OPTIONAL
from mio.core.errors import PluginError
from mio.core.recipe.schema import Recipe
from mio.core.tokens.item_encoders import only_read, without_encoder


def encoded_modalities(plugins: EnabledPlugins) -> list[str]:
    """Modalities that an encoder reads, whatever is wrong with others."""
    names = []
    for _, declared in plugins.modalities():
        with contextlib.suppress(PluginError):
            if not (declared.text or declared.parts) and plugins.encoder(declared.name) is not None:
                names.append(declared.name)
    return names


def made_modalities(plugins: EnabledPlugins) -> set[str]:
    """Modalities that a head makes, whatever is wrong with others."""
    names = set()
    for _, declared in plugins.modalities():
        with contextlib.suppress(PluginError):
            if not (declared.text or declared.parts) and plugins.head(declared.name) is not None:
                names.add(declared.name)
    return names


def reading_problems(recipe: Recipe, plugins: EnabledPlugins) -> Iterator[str]:
    """One sentence each."""
    declared = {modality.name: modality for _, modality in plugins.modalities()}
    for owner, modality in plugins.modalities():
        if modality.text or modality.parts:
            continue
        try:
            if plugins.encoder(modality.name) is None and not modality.codebooks:
                yield without_encoder(modality.name, owner)
        except PluginError as error:
            yield str(error)
    made = made_modalities(plugins)
    unwritable = {name for name in declared if only_read(declared, name, made)}
    yield from _templates(recipe, plugins, unwritable)
    tasks = plugins.tasks()
    for where, names in (("evaluate", recipe.evaluate.tasks), ("validate", recipe.validate.tasks)):
        for name in names:
            if name in tasks and (output := tasks[name][1].output) in unwritable:
                yield (
                    f"`{where}.tasks` names `{name}`, whose answers are of `{output}`, which is only read, by an "
                    "encoder: leave the task out"
                )


def _templates(recipe: Recipe, plugins: EnabledPlugins, unwritable: set[str]) -> Iterator[str]:
    """Responses with a field that is called like such a modality."""
    sets = {name: templates for name, (_, templates) in plugins.templates().items()} | recipe.data.templates
    for group, config in recipe.data.groups.items():
        for name, source in config.sources.items():
            told = set()
            for template in sets.get(source.templates, ()):
                if source.directions and not source.directions.get(template.direction, 0) > 0:
                    continue
                for field in _fields(template.response):
                    if field in unwritable and (template.direction, field) not in told:
                        told.add((template.direction, field))
                        yield (
                            f"`data.groups.{group}.sources.{name}`: the direction `{template.direction}` of the "
                            f"templates `{source.templates}` answers with `{{{field}}}`, which is only read, by an "
                            "encoder; leave it out (`directions`), or give other templates"
                        )


def _fields(text: str) -> Iterator[str]:
    try:
        yield from (field.removesuffix(OPTIONAL) for _, field, _, _ in Formatter().parse(text) if field)
    except ValueError:
        return  # of which the checks of templates tell
