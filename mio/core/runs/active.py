"""A run that this process trains: its folder is locked, watched for being deleted, and sealed at the end. No torch.

Rank 0 alone has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mio.core.checksums import file_sum
from mio.core.errors import UserError
from mio.core.files import PARTIAL, locked, write_json
from mio.core.recipe.places import CHECKPOINTS, LOCK, SUMMARY
from mio.core.recipe.schema import Recipe
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.lock import MEANING, RESULTS, Lock, other_versions, records


def run_folder(recipe: Recipe) -> Path:
    """Where a recipe is trained."""
    return Path(recipe.runtime.runs) / recipe.name


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in a folder, which is made if it is new."""
    busy = f"{folder}: another process trains in it; wait until it has ended, or give this one another `name=`"
    with contextlib.ExitStack() as stack:
        with explaining_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder, busy))
        yield


@contextlib.contextmanager
def explaining_errors(folder: Path) -> Iterator[None]:
    """Turns errors of the system, as of a full disk or a folder that is read-only or gone, into a `UserError`: what
    failed, and what of the run is saved."""
    try:
        yield
    except ConnectionError:  # between ranks
        raise
    except OSError as error:
        if error.errno is None:  # of a data worker: its text is the whole story
            raise
        place = error.filename or folder
        raise UserError(f"{place}: {error.strerror or error}; {what_is_saved(folder)}") from error


def what_is_saved(folder: Path) -> str:
    """What of a run is on disk, and how it goes on."""
    if not folder.is_dir():
        return f"nothing is left of {folder}"
    last = latest(folder / CHECKPOINTS)
    if last is None:
        return "no checkpoint was saved yet. Mend that, and give the same command again"
    return f"{last} is whole. Mend that, and the same command goes on from there"


class ActiveRun:
    """A run that this process trains, in a folder that it has locked.

    Args:
        folder: the run folder.
        lock: as it stands on disk.
        versions: those at hand (see `mio.core.runs.lock.versions`).
        tell: called with a line about what the user should know.
    """

    def __init__(self, folder: Path, lock: Lock, versions: dict[str, Any], tell: Callable[[str], None]) -> None:
        self.folder = folder
        self.lock = lock
        self._versions = versions
        self._tell = tell
        self._identity = self._look()

    def begin(self, step: int) -> None:
        """Notes that the training goes on after `step`: all checks are passed, and files may change from now on."""
        now = self.lock.unsealed().going_on(step, self._versions)
        now = now.sealed(self.folder, MEANING)
        if changed := other_versions(self.lock, self._versions):
            self._tell(
                f"{self.folder} was trained with other versions up to step {step}: {', '.join(changed)}; "
                f"{LOCK} keeps both, and a result may differ in its last digits"
            )
        for left in self.folder.glob(f"*{PARTIAL}"):  # by a process that was ended
            left.unlink(missing_ok=True)
        if now != self.lock:
            self._save(now)

    def check(self) -> None:
        """Raises `UserError` if the folder was deleted, or another one has taken its place."""
        if self._look() != self._identity:
            raise UserError(
                f"{self.folder} was deleted or replaced while it was trained, and what was saved in it is lost; the "
                "same command trains it again"
            )

    def seal(self, names: Iterable[str]) -> None:
        """Writes the checksums of these files into the lock."""
        self.check()
        self._save(self.lock.sealed(self.folder, names))

    def finish(self, summary: dict[str, Any]) -> None:
        """Seals weights and records and writes the summary, which marks the run as finished.

        The lock comes first, with the summary's checksum: a process that ends between the two leaves an unfinished run.
        """
        self.check()
        partial = self.folder / f"{SUMMARY}{PARTIAL}"
        write_json(partial, summary)
        lock = self.lock.sealed(self.folder, [*RESULTS, *records(self.folder)])
        self._save(replace(lock, files={**lock.files, SUMMARY: file_sum(partial)}))
        partial.replace(self.folder / SUMMARY)

    def _save(self, lock: Lock) -> None:
        lock.save(self.folder / LOCK)
        self.lock = lock

    def _look(self) -> tuple[int, int] | None:
        try:
            status = self.folder.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino
