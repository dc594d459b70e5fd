"""The transformer that a recipe describes."""

from __future__ import annotations

from typing import Any

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError, nearest
from mio.core.recipe.files import Checker
from mio.core.recipe.merging import typed
from mio.core.recipe.schema import Recipe


def transformer_config(recipe: Recipe, manager: PluginManager) -> TransformerConfig:
    """The transformer of a recipe: its preset, if it names one, with the fields that the recipe sets.

    Raises `RecipeError` for an unknown preset or a value of the wrong type, and for sizes that do not fit together.
    """
    given = dict(recipe.model)
    preset = given.pop("preset", "")
    content: Any = {}
    if preset:
        known = manager.backbones()
        if preset not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise RecipeError(
                [f"`model.preset`: no plugin has a preset `{preset}`{nearest(preset, known)} (known: {listed})"]
            )
        content = dict(known[preset][1])
    problems: list[str] = []

    def tell(of_preset: bool) -> Checker:
        whose = f"preset `{preset}`: " if of_preset else ""
        return Checker(lambda _, text: problems.append(f"{whose}{text}"), literal=True)

    contents = [
        checker.of(TransformerConfig, one, ("model",)) for checker, one in ((tell(True), content), (tell(False), given))
    ]
    if problems:
        raise RecipeError(problems)
    config = typed(TransformerConfig, *contents)
    if problems := list(config.problems()):
        raise RecipeError(problems)
    return config
