"""What a stage takes from the run or stage that it starts from, where its own recipe says nothing. No torch.

Filled in are values of the resolved recipe, so that it stands for itself: filled in again, from the same parent, it is
the same recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

from mio.core.contract.checker import Key
from mio.core.recipe.requirements import added_up
from mio.core.recipe.schema import Recipe


def inherit(recipe: Recipe, parent: Recipe) -> tuple[Recipe, list[Key]]:
    """The recipe with what it leaves open taken from its parent's, and the keys that were taken.

    Taken are the keys of `model`, unless it names a preset, which describes a model by itself; the options of each
    plugin that both have; and the plugins of a recipe that lists none. What a recipe says keeps its order and comes
    first. What both require adds up, as the parent is opened with its own plugins.
    """
    taken: list[Key] = []
    model = recipe.model
    if not model.get("preset"):
        own = {key: value for key, value in model.items() if key != "preset"}
        model = _filled(own, parent.model, ("model",), taken)
    if recipe.plugins:
        plugins = {
            name: _filled(options or {}, parent.plugins.get(name) or {}, ("plugins", name), taken)
            for name, options in recipe.plugins.items()
        }
    else:
        plugins = deepcopy(parent.plugins)
        taken += [("plugins",)] if plugins else []
    requires = added_up([parent.requires, recipe.requires])
    return replace(recipe, model=model, plugins=plugins, requires=requires), taken


def _filled(own: Mapping[str, Any], theirs: Mapping[str, Any], key: Key, taken: list[Key]) -> dict[str, Any]:
    """Mappings key by key; all else is the recipe's own where it has it."""
    if not own:
        taken += [key] if theirs else []
        return deepcopy(dict(theirs))
    filled = dict(own)
    for name, value in theirs.items():
        if name not in own:
            filled[name] = deepcopy(value)
            taken.append((*key, name))
        elif isinstance(own[name], Mapping) and isinstance(value, Mapping):
            filled[name] = _filled(own[name], value, (*key, name), taken)
    return filled
