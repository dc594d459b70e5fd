"""Files that are whole or not there: atomic writing, JSON that is read with care, locks of folders. Free of torch."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mio.core.errors import DataError, UserError

PARTIAL = ".partial"
"""Ending of a file that is still being written; before it stand the machine and the process that write it."""
_OTHERS = 24 * 3600
"""Seconds after which a partial file of another machine's counts as left behind."""
_LARGEST_JSON = 256 << 20
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all: beside its place, then renamed. An error leaves what was there before."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_text`, for bytes."""
    owner = f"{path.name}.{socket.gethostname()}-{os.getpid()}-"
    try:
        number, name = tempfile.mkstemp(prefix=owner, suffix=PARTIAL, dir=path.parent)
    except OSError as error:
        error.filename = str(path)
        raise
    partial = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_umask())  # mkstemp makes files that nobody else can read
        partial.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the name of the file that is written to errors of the system, which has none for a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill. When the block ends it becomes `path`, which must be missing or empty; an error deletes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp makes folders that nobody else can read
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextlib.contextmanager
def new_folder_once(path: Path) -> Iterator[Path]:
    """As `new_folder`, of content that is the same whoever makes it: another process may have been quicker."""
    try:
        with new_folder(path) as partial:
            yield partial
    except OSError:
        if not path.is_dir() or not any(path.iterdir()):
            raise


def remove_partial(folder: Path) -> None:
    """Removes the partial files of a folder that processes left behind which are no more."""
    for path in folder.glob(f"*{PARTIAL}"):
        host, _, process = path.name.removesuffix(PARTIAL).rpartition("-")[0].rpartition("-")
        with contextlib.suppress(OSError):
            if not host.endswith(f".{socket.gethostname()}") or not process.isdigit():
                left = time.time() - path.stat().st_mtime > _OTHERS
            else:
                left = not _lives(int(process))
            if left:
                path.unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is another user's
    return True


def write_json(path: Path, content: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Writes JSON whole or not at all. Raises `ValueError` for numbers that JSON does not have (NaN, infinities)."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False, default=default) + "\n")


def regular_file(path: Path, where: str = "") -> os.stat_result:
    """The state of a file that is there. Raises `DataError`, which begins with `where` or the path, for anything else:
    a pipe or device might never end."""
    where = where or str(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # no path holds a NUL
        if isinstance(error, OSError) and error.errno not in _GONE:
            raise DataError(f"{where}: cannot be read: {error.strerror}") from None
        raise DataError(f"{where}: no such file") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
        raise DataError(f"{where}: is {kind}, not a file")
    return status


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
        advice: what to do about a damaged file, for the message.

    Raises:
        DataError: the file is not there, cannot be read, is no JSON, holds no object, or a key occurs twice.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file; {advice}")
        if path.stat().st_size > _LARGEST_JSON:
            raise DataError(f"{path}: is damaged (over {_LARGEST_JSON >> 20} MiB); {advice}")
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_keys, parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise DataError(f"{path}: is damaged ({error}); {advice}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: is damaged (not a JSON object); {advice}")
    return content


@contextlib.contextmanager
def waiting(folder: Path, tell: Callable[[], None], name: str = ".lock") -> Iterator[None]:
    """As `locked`, but waits until nobody else holds the lock; `tell` is called once before."""
    with contextlib.ExitStack() as stack:
        waits = False
        while True:
            try:
                stack.enter_context(locked(folder, "busy", name))
                break
            except UserError:
                if not waits:
                    tell()
                    waits = True
                time.sleep(0.2)
        yield


@contextlib.contextmanager
def locked(folder: Path, busy: str, name: str = ".lock") -> Iterator[None]:
    """Holds the lock of a folder, which the system gives back when the process ends, however it ends.

    A file system without locks is not locked.

    Args:
        busy: message of the `UserError` that is raised if another process holds the lock.
    """
    with (folder / name).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(busy) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        _held.add(file.fileno())
        try:
            yield
        finally:
            _held.discard(file.fileno())


_held: set[int] = set()
"""Descriptors of the locks that this process holds."""


def _let_go() -> None:
    """A forked child, as a data worker is, would keep the lock of a parent that was killed."""
    if _held:
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in _held:
            os.dup2(nothing, number)
        os.close(nothing)
        _held.clear()


os.register_at_fork(after_in_child=_let_go)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for `json.loads`. Raises `ValueError` where a key occurs twice."""
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key `{twice}` occurs twice")
    return content


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now
