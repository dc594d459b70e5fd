"""Media that come as bytes, as files, for plugins that read paths alone.

The files of a process lie in a folder of its own, which it holds locked. A folder that nobody holds is what a process
left behind that was killed; the next one that needs a folder removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from multiprocessing import util
from pathlib import Path
from typing import IO

PREFIX = f"mio-spilled-{os.getuid()}-"
"""Begins the name of a process's folder, inside the system's temporary folder, by user."""
_LOCK = ".lock"


class _TemporaryFile(type(Path())):  # type: ignore[misc]
    """A path whose file goes when nobody holds it any more."""


class _Folder:
    """The folder of one process."""

    def __init__(self) -> None:
        root = Path(tempfile.gettempdir())
        self.process = os.getpid()
        self.numbers = itertools.count()
        with _exclusively(root):  # or another process takes the folder for a leftover before it is locked
            for left in root.glob(f"{PREFIX}*"):
                _remove_leftover(left)
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
            self.lock: IO[str] = (self.path / _LOCK).open("w")
            _try_lock(self.lock)
        # data workers end without the interpreter's own exit handlers
        util.Finalize(None, _remove_folder, args=(self.path, self.process), exitpriority=0)


_folders: dict[int, _Folder] = {}
"""By process: one that was forked finds that of its parent."""
_making = threading.Lock()


def temporary_file(content: bytes, suffix: str) -> Path:
    """A file of `content`, which is removed with the last reference to the path."""
    folder = _own_folder()
    name = folder.path / f"{next(folder.numbers)}{suffix}"
    name.write_bytes(content)
    path: Path = _TemporaryFile(name)
    weakref.finalize(path, _remove, str(name))
    return path


def without_temporary_paths(text: str) -> str:
    """A message in which media that came as bytes are called so: their files' names are others in every process."""
    if PREFIX not in text:
        return text
    root = re.escape(str(Path(tempfile.gettempdir()) / PREFIX))
    return re.sub(rf"{root}\w+/\d+(?:\.\w+)?", "media given as bytes", text)


def _own_folder() -> _Folder:
    process = os.getpid()
    with _making:
        if process not in _folders or not _folders[process].path.is_dir():  # somebody may clean the temporary folder
            _folders[process] = _Folder()
        return _folders[process]


@contextlib.contextmanager
def _exclusively(root: Path) -> Iterator[None]:
    """Only one process looks for leftovers at a time."""
    with (root / f"{PREFIX.rstrip('-')}.lock").open("a") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _try_lock(file: IO[str]) -> bool:
    """Whether nobody else holds the file; holds it from now on."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_leftover(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / _LOCK).open("a") as lock:
        if _try_lock(lock):
            shutil.rmtree(folder, ignore_errors=True)


def _remove_folder(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _remove(name: str) -> None:
    with contextlib.suppress(OSError):
        Path(name).unlink()
