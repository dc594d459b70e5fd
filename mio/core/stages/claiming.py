"""Taking a run folder to train in it, or finding that it is finished. No torch."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

from mio.core.errors import UserError
from mio.core.files import write_text
from mio.core.recipe.places import CHECKPOINTS, LOCK, RECIPE, SAMPLES, SUMMARY, TOKENIZERS, WEIGHTS
from mio.core.recipe.resolved import diff, load_resolved, to_yaml
from mio.core.recipe.schema import Recipe
from mio.core.runs.active import explaining_errors, locked_folder, run_folder
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.lock import check_run

NEW, UNFINISHED, FINISHED = "new", "unfinished", "finished"


def claim_folder(recipe: Recipe, lock: contextlib.ExitStack, tell: Callable[[str], None], last: bool = True) -> str:
    """Takes the run folder of a recipe for this process, unless it is finished; returns what is there: nothing
    (`NEW`), a run that goes on (`UNFINISHED`) or one that is `FINISHED`.

    A folder in which no step was saved is given to the recipe as it now is, since a first attempt may have ended with a
    mistake in the data. Nothing is written into any other.

    Args:
        lock: keeps the folder locked.
        tell: called with a line about damage that changes no result.
        last: whether no other stage starts from it. The weights of a finished run that one starts from are compared
            with its lock when it does.

    Raises:
        UserError: another recipe was trained in the folder, another process trains in it, or it is not what its run
            wrote.
    """
    folder = run_folder(recipe)
    if not (folder / SUMMARY).is_file():
        lock.enter_context(locked_folder(folder))
    finished = (folder / SUMMARY).is_file()
    if finished or latest(folder / CHECKPOINTS) is not None or (folder / WEIGHTS).is_file():
        silent = tell if last else lambda line: None  # noqa: ARG005
        check_run(folder, weights=finished and last, tell=silent, base=not finished)
        if changes := diff(load_resolved(folder / RECIPE), recipe):
            advice = "Give this one another `name=`, or delete the folder"
            if not last:
                advice = (
                    "An override holds for every stage of a chain, `stages.NAME.KEY=VALUE` for one alone; to train all "
                    "of them anew, give another `runtime.runs=`"
                )
            raise UserError(
                f"{folder} was made by another recipe: {'; '.join(changes[:3])}"
                f"{f' and {len(changes) - 3} more' if len(changes) > 3 else ''}. {advice}"
            )
        return FINISHED if finished else UNFINISHED
    with explaining_errors(folder):
        (folder / LOCK).unlink(missing_ok=True)
        if not _same_recipe(folder, recipe):
            shutil.rmtree(folder / TOKENIZERS, ignore_errors=True)  # trained on what the other recipe reads
        shutil.rmtree(folder / SAMPLES, ignore_errors=True)  # of an attempt of which no step was kept
        write_text(folder / RECIPE, to_yaml(recipe))
    return NEW


def _same_recipe(folder: Path, recipe: Recipe) -> bool:
    try:
        return not diff(load_resolved(folder / RECIPE), recipe)
    except UserError:
        return False
