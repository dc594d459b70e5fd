"""The chain of stages that a recipe's `start_from` leads through. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mio.core.contract.checker import Key
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError, nearest
from mio.core.recipe.compose import Composed, compose_file
from mio.core.recipe.inheritance import inherit
from mio.core.recipe.lock_file import LockFile, is_lock, locked_recipes
from mio.core.recipe.origins import inside, root_of
from mio.core.recipe.places import RECIPE, is_file, locate, recipes_in, run_of_checkpoint
from mio.core.recipe.resolved import load_resolved
from mio.core.recipe.schema import Recipe
from mio.core.terminal import printable

LONGEST_CHAIN = 100
"""Stages of a chain."""


@dataclass(frozen=True)
class Link:
    """A stage of a chain, with what it starts from."""

    recipe: Recipe
    """As it is trained: what it takes from its parent is filled in."""
    composed: Composed
    parent: Recipe | None
    """Resolved recipe of the run or stage that it starts from."""
    folder: Path | None
    """Of the run or checkpoint that it starts from; None if that is a stage of the chain, or nothing."""
    taken: tuple[Key, ...] = ()
    """Keys that come from the parent: sections, or single keys of them."""

    @property
    def start(self) -> str:
        """What it starts from, for messages."""
        if self.folder is not None:
            return str(self.folder)
        return f"stage `{self.parent.name}`" if self.parent is not None else "nothing"


def chain(recipes: Sequence[str], overrides: Sequence[str], manager: PluginManager) -> list[Recipe]:
    """The recipes of `links`."""
    return [link.recipe for link in links(recipes, overrides, manager)]


def links(recipes: Sequence[str], overrides: Sequence[str], manager: PluginManager) -> list[Link]:
    """The stages of a recipe's chain, from the first to the one that `recipes` describe.

    The first of `recipes` is the stage's own; the others and the overrides apply to every stage but for `name` and
    `start_from`. In the result, `start_from` is empty, the path of a run folder, or `../NAME` of the stage before: run
    folders lie side by side. What a stage leaves open it has from the one before (see `inherit`). Raises `UserError`,
    and `RecipeError` for a chain that returns to itself.
    """
    if is_lock(recipes[0]):
        return _of_lock(recipes, overrides, manager)
    if locks := [name for name in recipes[1:] if is_lock(name)]:
        raise RecipeError([f"{locks[0]}: a lock stands alone, and is laid over no other recipe"])
    path: Path | None = locate(recipes[0], manager)
    stages: list[Composed] = []
    seen: list[Path] = []
    first: Path | None = None
    while path is not None:
        if path.resolve() in seen:
            way = " -> ".join(stage.name for stage in [*seen, path])
            raise RecipeError([f"{path}: `start_from` leads back to a recipe of the same chain: {way}"])
        seen.append(path.resolve())
        if len(seen) > LONGEST_CHAIN:
            raise RecipeError([f"{path}: the chain of `start_from` is longer than {LONGEST_CHAIN} stages"])
        composed = compose_file(path, recipes[1:], overrides, manager, last=not stages)
        path, folder = _resolve_start(composed, manager)
        if stages:
            stages[0].recipe.start_from = f"../{composed.recipe.name}"
        if folder is not None:
            first = folder
            composed.recipe.start_from = _run_reference(folder, composed.recipe)
        stages.insert(0, composed)
    names = [stage.recipe.name for stage in stages]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError([f"two stages of the chain are called `{name}`; give each its own `name`"])
    return _linked(stages, first, manager)


def _of_lock(recipes: Sequence[str], overrides: Sequence[str], manager: PluginManager) -> list[Link]:
    """Stages as they were resolved: nothing is filled in."""
    path = locate(recipes[0], manager)
    if len(recipes) > 1:
        raise RecipeError([f"{path}: a lock stands alone; leave out {', '.join(recipes[1:])}"])
    made: list[Link] = []
    for recipe in locked_recipes(LockFile.read(path, manager), path, overrides):
        folder = None
        if not made and (folder := starting_folder(recipe)) is not None:
            if not is_file(folder / RECIPE) and run_of_checkpoint(folder) is None:
                raise RecipeError(
                    [f"{path}: {folder}, which it starts from, is no run; put it there, or give `start_from=FOLDER`"]
                )
            recipe.start_from = _run_reference(folder, recipe)
            parent: Recipe | None = load_resolved((run_of_checkpoint(folder) or folder) / RECIPE, manager)
        else:
            parent = made[-1].recipe if made else None
        made.append(Link(recipe, Composed(recipe, path, path.parent), parent, folder))
    return made


def _linked(stages: Sequence[Composed], first: Path | None, manager: PluginManager) -> list[Link]:
    """Each stage with what it takes from the one before; `first` is the folder that the first one starts from."""
    parent = load_resolved((run_of_checkpoint(first) or first) / RECIPE, manager) if first is not None else None
    made: list[Link] = []
    for composed in stages:
        recipe, taken = inherit(composed.recipe, parent) if parent is not None else (composed.recipe, [])
        made.append(Link(recipe, composed, parent, first, tuple(taken)))
        parent, first = recipe, None
    return made


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
    shown = printable(start)[:200]
    candidates = [composed.start_folder / start, Path(start)]
    if (root := root_of(composed.start_folder)) is not None:
        candidates = candidates[:1] if inside(root, composed.start_folder, start) else []
    for path in candidates:
        if is_file(path):
            return path, None
        if is_file(path / RECIPE) or run_of_checkpoint(path) is not None:
            return None, path
    shipped = manager.recipes()
    if start in shipped:
        return shipped[start][1], None
    if root is not None:
        raise RecipeError(
            [
                f"{composed.path}: `start_from: {shown}` is no recipe or run in what was fetched, and no "
                "recipe that a plugin ships; `start_from=RUN` gives a run of yours"
            ]
        )
    beside = [*recipes_in(composed.start_folder), *_runs(composed)]
    raise RecipeError(
        [
            f"{composed.path}: `start_from: {shown}` is no recipe beside {composed.start_folder}, no run folder with a "
            f"{RECIPE}, no checkpoint in one, and no recipe that a plugin ships"
            f"{nearest(start, [*beside, *shipped])}"
        ]
    )


def _runs(composed: Composed) -> list[str]:
    """Run folders where the recipe puts its own."""
    try:
        return sorted(str(file.parent) for file in Path(composed.recipe.runtime.runs).glob(f"*/{RECIPE}"))
    except (OSError, ValueError):
        return []


def _run_reference(folder: Path, recipe: Recipe) -> str:
    """How a resolved recipe names what it starts from: relative to its own folder where the runs lie side by side."""
    folder = folder.resolve()
    of_run = run_of_checkpoint(folder) or folder
    if of_run.parent == Path(recipe.runtime.runs).resolve():
        return f"../{folder.relative_to(of_run.parent)}"
    return str(folder)
