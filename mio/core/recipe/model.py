"""The transformer that a recipe describes."""

from __future__ import annotations

from typing import Any

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError, nearest
from mio.core.recipe.layers import checker
from mio.core.recipe.merging import typed
from mio.core.recipe.schema import Recipe


def transformer_config(recipe: Recipe, manager: PluginManager) -> TransformerConfig:
    """The transformer of a recipe: its preset, if it names one, with the fields that the recipe sets.

    Raises `RecipeError` for an unknown preset, wrong values in it, and sizes that do not fit together.
    """
    own = dict(recipe.model)
    preset = own.pop("preset", "")
    content: Any = {}
    if preset:
        known = manager.backbones()
        if preset not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise RecipeError(
                [f"`model.preset`: no plugin has a preset `{preset}`{nearest(preset, known)} (known: {listed})"]
            )
        literal = checker(literal=True)
        content = literal.check(TransformerConfig, known[preset][1], ("model",))
        if literal.problems:
            raise RecipeError([f"preset `{preset}`: {text}" for _, text in literal.problems])
    config = typed(TransformerConfig, content, own)
    if problems := list(config.problems()):
        raise RecipeError(problems)
    return config
