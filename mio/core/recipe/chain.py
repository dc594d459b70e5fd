"""The chain of stages that a recipe's `start_from` leads through. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError, nearest
from mio.core.recipe.compose import Composed, compose_file
from mio.core.recipe.places import RECIPE, is_file, locate, recipes_in, run_of_checkpoint
from mio.core.recipe.schema import Recipe

LONGEST_CHAIN = 100
"""Stages of a chain."""


def chain(recipes: Sequence[str], overrides: Sequence[str], manager: PluginManager) -> list[Recipe]:
    """The stages of a recipe's chain, from the first to the one that `recipes` describe.

    The first of `recipes` is the stage's own; the others and the overrides apply to every stage but for `name` and
    `start_from`. In the result, `start_from` is empty, the path of a run folder, or `../NAME` of the stage before: run
    folders lie side by side. Raises `UserError`, and `RecipeError` for a chain that returns to itself.
    """
    path: Path | None = locate(recipes[0], manager)
    stages: list[Recipe] = []
    seen: list[Path] = []
    while path is not None:
        if path.resolve() in seen:
            way = " -> ".join(stage.name for stage in [*seen, path])
            raise RecipeError([f"{path}: `start_from` leads back to a recipe of the same chain: {way}"])
        seen.append(path.resolve())
        if len(seen) > LONGEST_CHAIN:
            raise RecipeError([f"{path}: the chain of `start_from` is longer than {LONGEST_CHAIN} stages"])
        composed = compose_file(path, recipes[1:], overrides, manager, last=not stages)
        recipe = composed.recipe
        path, folder = _resolve_start(composed, manager)
        if stages:
            stages[0].start_from = f"../{recipe.name}"
        if folder is not None:
            recipe.start_from = _run_reference(folder, recipe)
        stages.insert(0, recipe)
    names = [recipe.name for recipe in stages]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError([f"two stages of the chain are called `{name}`; give each its own `name`"])
    return stages


def starting_folder(recipe: Recipe) -> Path | None:
    """The folder of the run or checkpoint that a recipe of `chain` starts from, or None."""
    if not recipe.start_from:
        return None
    return Path(os.path.normpath(Path(recipe.runtime.runs) / recipe.name / recipe.start_from))


def _resolve_start(composed: Composed, manager: PluginManager) -> tuple[Path | None, Path | None]:
    """(recipe, folder of a run or of a checkpoint) that the stage starts from; at least one of them is None."""
    start = composed.recipe.start_from
    if not start:
        return None, None
    for path in (composed.start_folder / start, Path(start)):
        if is_file(path):
            return path, None
        if is_file(path / RECIPE) or run_of_checkpoint(path) is not None:
            return None, path
    shipped = manager.recipes()
    if start in shipped:
        return shipped[start][1], None
    beside = recipes_in(composed.start_folder)
    raise RecipeError(
        [
            f"{composed.path}: `start_from: {start}` is no recipe beside {composed.start_folder}, no run folder with a "
            f"{RECIPE}, no checkpoint in one, and no recipe that a plugin ships"
            f"{nearest(start, [*beside, *shipped])}"
        ]
    )


def _run_reference(folder: Path, recipe: Recipe) -> str:
    """How a resolved recipe names what it starts from: relative to its own folder where the runs lie side by side."""
    folder = folder.resolve()
    of_run = run_of_checkpoint(folder) or folder
    if of_run.parent == Path(recipe.runtime.runs).resolve():
        return f"../{folder.relative_to(of_run.parent)}"
    return str(folder)
