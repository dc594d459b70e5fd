"""A whole chain of stages checked, before anything is read or trained. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from mio.core.contract.plugins import EnabledPlugins, PluginManager
from mio.core.errors import PluginError, RecipeError
from mio.core.recipe.adapters import row_problems, trained_parameters
from mio.core.recipe.chain import Link, links
from mio.core.recipe.model import network_names, transformer_config
from mio.core.recipe.rules import asked_blocks, rule_problems
from mio.core.recipe.schema import Recipe
from mio.core.stages.check import check
from mio.core.stages.check_start import Start, check_start, other_options
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.vocabulary import Vocabulary

MOST_NAMES = 200_000
"""Parameters up to which the optimizer's rules are compared with their names; of more, the training does it."""


@dataclass(frozen=True)
class CheckedStage:
    """A stage that can be trained, as far as is known."""

    recipe: Recipe
    notes: tuple[str, ...]
    """What is possible, and may not be meant."""


def check_chain(
    recipes: Sequence[str],
    overrides: Sequence[str],
    manager: PluginManager,
    devices: int | None = None,
    trains: bool = True,
) -> list[CheckedStage]:
    """The stages of a chain, each compared with its plugins and with what it starts from.

    Args:
        devices: those of all nodes, where a launcher decides and not the recipe.
        trains: whether the weights of the run that the chain starts from are needed.

    Raises:
        RecipeError: with everything that is wrong with the first stage that is not in order.
        PluginError: for what a plugin returns.
    """
    stages: list[CheckedStage] = []
    vocabulary: Vocabulary | None = None
    chained = links(recipes, overrides, manager)
    for link in chained:
        problems: list[str] = []
        try:
            plugins = manager.enable(link.recipe.plugins)
            try:
                check(link.recipe, plugins, devices)
            except RecipeError as error:
                problems += error.problems
            start = check_start(link, plugins, vocabulary, trains)
        except PluginError as error:
            raise PluginError(f"{error}{_inherited(link, str(error))}") from error
        vocabulary = start.vocabulary
        found = [*start.problems, *_rules(link, plugins, start)]
        problems += [f"recipe `{link.recipe.name}`: {problem}" for problem in found]
        if problems:
            raise RecipeError([*problems, *_of_every_stage(overrides, problems, chained, link)])
        stages.append(CheckedStage(link.recipe, tuple(start.notes)))
    return stages


def _of_every_stage(
    overrides: Sequence[str], problems: Sequence[str], chained: Sequence[Link], link: Link
) -> list[str]:
    """That an override which problems of an earlier stage may come from was not meant for it."""
    if link is chained[-1]:
        return []
    last, told = chained[-1].recipe.name, " ".join(problems)
    keys = [text.partition("=")[0] for text in overrides]
    return [
        f"an override holds for every stage of the chain; `stages.{last}.{key}=...` is for `{last}` alone"
        for key in keys
        if not key.startswith("stages.") and any(f"`{'.'.join(parts)}" in told for parts in _beginnings(key))
    ]


def _beginnings(key: str) -> list[list[str]]:
    """Parts of a dotted key, and of all that it lies in but the outermost section."""
    parts = key.split(".")
    return [parts[:count] for count in range(2, len(parts) + 1)]


def _inherited(link: Link, error: str) -> str:
    """Which options come from the parent, of the plugin that an error names: they may not go with the recipe's own."""
    own, theirs = link.composed.recipe.plugins, link.parent.plugins if link.parent else {}
    lines = []
    for name in [name for name in own if f"plugin `{name}`" in error]:
        taken = [f"`{key[2]}`" for key in link.taken if key[:2] == ("plugins", name) and len(key) > 2]
        other = [
            f"`{key}` is {here} here, there {there}"
            for key, here, there in other_options(own[name] or {}, theirs.get(name) or {})
        ]
        if taken:
            lines.append(", ".join([f"{' and '.join(taken)} of `plugins.{name}` come from {link.start}", *other]))
    return f" ({'; '.join(lines)}: leave out what is to be as there)" if lines else ""


def _rules(link: Link, plugins: EnabledPlugins, start: Start) -> Iterator[str]:
    """The optimizer's rules, and the rows trained beside adapters, beside the names that they are about."""
    rules = link.recipe.train.optimizer.rules
    if (vocabulary := start.vocabulary) is None:
        return
    try:
        config = transformer_config(link.recipe, plugins.manager)
    except RecipeError:
        return
    lora, blocks = link.recipe.train.lora, [one.name for one in vocabulary.blocks]
    try:
        networks = list(network_names(Codecs(plugins).networks, config.layers))
    except PluginError:  # told by `check`
        return
    if lora.rank:
        yield from row_problems(lora.rows, blocks)
        if not asked_blocks(vocabulary.blocks, lora.rows, start.known):
            lora = replace(lora, rows=[])  # none are added, and none are trained
    try:
        names = list(islice(trained_parameters(config, lora, networks), MOST_NAMES + 1))
    except RecipeError:  # told by `check`
        return
    if len(names) <= MOST_NAMES:
        for own, text in rule_problems(rules, names, blocks, networks):
            place = link.composed.place("train", "optimizer", "rules", own)
            yield f"{f'{place}: ' if place else ''}`train.optimizer.rules.{own}`: {text}"
