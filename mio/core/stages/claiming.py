"""Taking a run folder to train in it, or finding that it is finished. No torch."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

from mio.core.errors import UserError
from mio.core.files import write_text
from mio.core.recipe.places import CHECKPOINTS, LOCK, RECIPE, SUMMARY, TOKENIZERS, WEIGHTS
from mio.core.recipe.resolved import diff, load_resolved, to_yaml
from mio.core.recipe.schema import Recipe
from mio.core.runs.active import explaining_errors, locked_folder, run_folder
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.lock import check_run

NEW, UNFINISHED, FINISHED = "new", "unfinished", "finished"


def claim_folder(recipe: Recipe, lock: contextlib.ExitStack, tell: Callable[[str], None], whole: bool = True) -> str:
    """Takes the run folder of a recipe for this process, unless it is finished; returns what is there: nothing
    (`NEW`), a run that goes on (`UNFINISHED`) or one that is `FINISHED`.

    A folder in which no step was saved is given to the recipe as it now is, since a first attempt may have ended with a
    mistake in the data. Nothing is written into any other.

    Args:
        lock: keeps the folder locked.
        tell: called with a line about damage that changes no result.
        whole: whether the weights of a finished run are compared with its lock: those of a run that another starts
            from are when it does.

    Raises:
        UserError: another recipe was trained in the folder, another process trains in it, or it is not what its run
            wrote.
    """
    folder = run_folder(recipe)
    if not (folder / SUMMARY).is_file():
        lock.enter_context(locked_folder(folder))
    finished = (folder / SUMMARY).is_file()
    if finished or latest(folder / CHECKPOINTS) is not None or (folder / WEIGHTS).is_file():
        silent = tell if whole else lambda line: None  # noqa: ARG005
        check_run(folder, weights=finished and whole, tell=silent, base=not finished)
        if changes := diff(load_resolved(folder / RECIPE), recipe):
            raise UserError(
                f"{folder} was made by another recipe: {'; '.join(changes[:3])}"
                f"{f' and {len(changes) - 3} more' if len(changes) > 3 else ''}. "
                "Give this one another `name=`, or delete the folder"
            )
        return FINISHED if finished else UNFINISHED
    with explaining_errors(folder):
        (folder / LOCK).unlink(missing_ok=True)
        if not _same_recipe(folder, recipe):
            shutil.rmtree(folder / TOKENIZERS, ignore_errors=True)  # trained on what the other recipe reads
        write_text(folder / RECIPE, to_yaml(recipe))
    return NEW


def _same_recipe(folder: Path, recipe: Recipe) -> bool:
    try:
        return not diff(load_resolved(folder / RECIPE), recipe)
    except UserError:
        return False
