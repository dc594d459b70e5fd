"""A run's journal beside its plan: whether it was trained on exactly the rows that its recipe means."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mio.core.contract.plugins import PluginManager
from mio.core.data.journal import Comparison, JournalEntry, compare, read
from mio.core.data.loader import MioDataModule
from mio.core.data.shards.store import TokenStore
from mio.core.errors import DataError, UserError
from mio.core.recipe.places import CHECKPOINTS, JOURNAL, LOCK, RECIPE, SUMMARY, WEIGHTS
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.checkpoints.reading import Checkpoint
from mio.core.runs.lock import check_run
from mio.core.runs.run import Run
from mio.core.stages.provenance import check_sources

_TOLD_AFTER = 10.0
"""Seconds from one word about the progress to the next."""


def verify(folder: Path, manager: PluginManager, say: Callable[[str], Any] = lambda _: None) -> Comparison:
    """Follows the plan of a run as far as its journal goes: to the last step of a finished run, at least to the last
    checkpoint of another one. Reads lengths of documents, no weights.

    Raises:
        UserError: there is no such run folder, it is not what its run wrote, or it has no journal.
        DataError: the run was trained on other rows than planned, the message names the first steps; or its sources
            have changed since, the message names the files.
    """
    if not (folder / RECIPE).is_file():
        raise UserError(f"{folder}: is no run folder ({RECIPE} is missing)")
    last = latest(folder / CHECKPOINTS)
    if last is None and not (folder / LOCK).is_file() and not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder}: training has not begun, there is nothing to compare; `mio fit` goes on with it")
    lock = check_run(folder, weights=False)
    run = Run(folder, manager)
    finished = WEIGHTS in lock.files or (folder / SUMMARY).is_file()
    steps = run.recipe.train.steps if finished else Checkpoint(last).step if last else 0
    journal = read(folder / JOURNAL)
    tokens = TokenStore.of(run.recipe, run.plugins, run.codecs)
    check_sources(run.recipe, run.plugins, tokens, folder, begun=True)
    data = MioDataModule(run.recipe, run.plugins, run.renderer, run.vocabulary.specials.pad, tokens)
    data.preflight()  # as `mio fit` does: it says what is broken
    comparison = compare(journal, _telling(data.journal(), steps, say), steps)
    if not comparison.exact:
        problems = [
            f"{len(steps)} steps {what} ({_first(steps)})"
            for steps, what in (
                (comparison.lost, "are missing"),
                (comparison.repeated, "occur more than once"),
                (comparison.different, "were trained on other rows than planned"),
            )
            if steps
        ]
        raise DataError(f"{folder / JOURNAL}: {'; '.join(problems)}")
    return comparison


def _telling(planned: Iterator[JournalEntry], steps: int, say: Callable[[str], Any]) -> Iterator[JournalEntry]:
    told = time.monotonic()
    for count, entry in enumerate(planned, 1):
        yield entry
        if time.monotonic() - told >= _TOLD_AFTER:
            told = time.monotonic()
            say(f"  {count:,}/{steps:,} steps compared")


def _first(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps[:5])) + (", ..." if len(steps) > 5 else "")
