"""The resolved recipe of whatever has one: a recipe file, a run folder, a lock file, a bundle's folder. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mio.core.contract.plugins import PluginManager
from mio.core.recipe.chain import links
from mio.core.recipe.lock_file import LockedStage, LockFile, is_lock, locked_recipes
from mio.core.recipe.places import RECIPE, is_file, locate
from mio.core.recipe.resolved import load_resolved
from mio.core.recipe.schema import Recipe


def described(name: str, overrides: Sequence[str], manager: PluginManager) -> Recipe:
    """The resolved recipe, with overrides; of a lock file that of its last stage. What it starts from need not be there
    where it was resolved before.

    Raises `UserError` as `links`, `load_resolved` and `LockFile.read`.
    """
    if is_file(Path(name) / RECIPE):
        path = Path(name) / RECIPE
        stage = LockedStage(recipe=asdict(load_resolved(path, manager)))
        return locked_recipes(LockFile(stages=[stage]), path, overrides)[-1]
    if is_lock(name):
        path = locate(name, manager)
        return locked_recipes(LockFile.read(path, manager), path, overrides)[-1]
    return links([name], overrides, manager)[-1].recipe
