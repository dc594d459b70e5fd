"""Hashes of whole files: computed once per state of a file, remembered in a file of their own. Free of torch.

A file is known by its absolute path, its size, its times of modification and of change, and its inode. What was
computed of it is used again for as long as none of these differs. As git does with its index, a hash is not remembered
where the file changed so shortly before it was read that another change could leave the same times.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import xxhash

T = TypeVar("T")

MISSING, UNREADABLE, NO_FILE = "missing", "unreadable", "no file"
"""In place of the hash of a path that has none."""
HASH = "xxh3"
"""Kind of what is remembered of a file: the XXH3-128 of its content."""

_CHUNK = 1 << 20
_TOGETHER = 64
"""Files that a thread takes at a time."""
_PER_QUERY = 500
"""Files that one query looks up."""
_FINE, _COARSE = 100_000_000, 2_100_000_000
"""Nanoseconds that must lie between a change and the reading of a file, by whether its file system keeps fractions of
a second: kernels move their clock by up to 10 ms, and some file systems keep times to two seconds."""
_PROGRESS_SECONDS = 15.0
"""Between two lines about a hashing that takes long."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB, kind TEXT, size INTEGER, modified INTEGER, changed INTEGER, inode INTEGER, value TEXT, seal INTEGER,
    PRIMARY KEY (path, kind)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value BLOB, seal INTEGER) WITHOUT ROWID;
"""


class State(NamedTuple):
    """What tells that a file is as it was."""

    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> State:
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)

    def settled(self, now: int) -> bool:
        """Whether whatever changes the file from `now` on, in nanoseconds, leaves it other times."""
        return now - self.changed > (_FINE if self.changed % 1_000_000_000 else _COARSE)


class FileHashes:
    """Hashes of files, remembered in an SQLite file that several processes may use.

    Where it cannot be written, nothing is remembered; where it is damaged, it is made again. Every entry carries a
    checksum of its own, so that a damaged one counts as none.

    Args:
        path: of the SQLite file; None remembers nothing. Its folder is made when there is something to remember.
        tell: called with a line of progress from time to time while files are hashed.
    """

    def __init__(self, path: Path | None, tell: Callable[[str], None] = lambda _: None) -> None:
        self._path = path
        self._tell = tell
        self._connection: sqlite3.Connection | None = None
        self._owner = 0
        self._left: list[Any] = []  # connections of the process that this one was forked from: not to be closed here
        self.hashed = 0
        """Bytes that had to be read."""

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_tell": print, "_connection": None, "_owner": 0, "_left": [], "hashed": 0}

    def of(self, paths: Iterable[str | Path]) -> list[str]:
        """XXH3-128 of each file in hexadecimal, all of its bytes; what stands in its place where there is no file.

        A folder has the hash of its files' paths and hashes.
        """
        names = [os.path.abspath(path) for path in paths]  # noqa: PTH100
        hashes: dict[str, str] = {}
        states: dict[str, State] = {}
        for name in dict.fromkeys(names):
            try:
                at = os.stat(name)  # noqa: PTH116
            except (OSError, ValueError):
                hashes[name] = MISSING
                continue
            if stat.S_ISREG(at.st_mode):
                states[name] = State.of(at)
            else:
                hashes[name] = self._folder(name) if stat.S_ISDIR(at.st_mode) else NO_FILE
        hashes |= self.recall(HASH, states)
        if missing := [name for name in states if name not in hashes]:
            hashes |= self._hash(missing, states)
        return [hashes[name] for name in names]

    def recall(self, kind: str, states: dict[str, State]) -> dict[str, str]:
        """What was noted of files, by absolute path, that have not changed since."""
        values: dict[str, str] = {}
        names_left = iter(states)
        while self._path is not None and (names := list(islice(names_left, _PER_QUERY))):
            marks = ",".join("?" * len(names))
            keys = {os.fsencode(name): name for name in names}
            query = f"SELECT * FROM files WHERE kind = ? AND path IN ({marks})"
            for path, _, *state, value, seal in self._ask(query, (kind, *keys)):
                name = keys.get(path, "")
                if tuple(state) == states.get(name) and seal == _seal(path, kind, *state, value):
                    values[name] = value
        return values

    def note(self, kind: str, values: Iterable[tuple[str, State, str]]) -> None:
        """Remembers (absolute path, state, value) of files."""
        rows = []
        for name, state, value in values:
            path = os.fsencode(name)
            rows.append((path, kind, *state, value, _seal(path, kind, *state, value)))
        self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def noted(self, name: str) -> bytes | None:
        """What was kept under a name that says all that it depends on; None if there is nothing."""
        for value, seal in self._ask("SELECT value, seal FROM notes WHERE name = ?", (name,)):
            if isinstance(value, bytes) and seal == _seal(name, value):
                return value
        return None

    def keep(self, name: str, value: bytes) -> None:
        """Remembers `value` under `name`."""
        self._write("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", [(name, value, _seal(name, value))])

    def _folder(self, name: str) -> str:
        inside = sorted(str(Path(at, one)) for at, _, files in os.walk(name) for one in files)
        digest = xxhash.xxh3_128()
        for path, content in zip(inside, self.of(inside), strict=True):
            digest.update(os.fsencode(os.path.relpath(path, name)) + b"\0" + content.encode())
        return f"folder {digest.hexdigest()}"

    def _hash(self, names: Sequence[str], states: Mapping[str, State]) -> dict[str, str]:
        size, done, start, last = sum(states[name].size for name in names), 0, time.monotonic(), time.monotonic()
        hashes: dict[str, str] = {}
        groups = [names[at : at + _TOGETHER] for at in range(0, len(names), _TOGETHER)]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1, len(groups))) as pool:
            # noted as hashes come, so that a hashing that is interrupted goes on where it was
            for group in pool.map(_hash_all, groups):
                self.note(HASH, ((name, state, value) for name, state, value in group if state is not None))
                hashes |= {name: value for name, _, value in group}
                done += sum(states[name].size for name, _, _ in group)
                if time.monotonic() - last > _PROGRESS_SECONDS:
                    last = time.monotonic()
                    self._tell(
                        f"hashing files: {len(hashes):,}/{len(names):,}, {done / 1e9:.1f} of {size / 1e9:.1f} GB, "
                        f"{done / 1e6 / (last - start):,.0f} MB/s"
                    )
        self.hashed += size
        return hashes

    def _ask(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return self._do(lambda connection: connection.execute(query, values).fetchall()) or []

    def _write(self, query: str, rows: list[tuple[Any, ...]]) -> None:
        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany(query, rows)

        if rows:
            self._do(write)

    def _do(self, action: Callable[[sqlite3.Connection], T]) -> T | None:
        """The result of `action` with a connection of this process; None if there cannot be one."""
        for _ in range(2):
            if self._path is None:
                return None
            try:
                return action(self._connect(self._path))
            except OSError:
                self._path = None
            except sqlite3.Error as error:
                self._connection = None
                if _says_nothing_of_the_content(error):
                    self._path = None  # other processes can go on with it, or nobody can write here
                else:
                    for ending in ("", "-journal"):
                        with contextlib.suppress(OSError):
                            self._path.with_name(self._path.name + ending).unlink()
        self._path = None
        return None

    def _connect(self, path: Path) -> sqlite3.Connection:
        if self._connection is not None and self._owner != os.getpid():
            self._left.append(self._connection)
            self._connection = None
        if self._connection is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=30, check_same_thread=False)
            self._owner = os.getpid()
            # what a loss of power damages is found out and hashed again: waiting for the disk would cost more
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.executescript(_SCHEMA)
        return self._connection


def _says_nothing_of_the_content(error: sqlite3.Error) -> bool:
    """Whether the file is locked, read-only or on a full disk, as opposed to damaged."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOLFS,
    )


def _seal(*values: Any) -> int:
    digest = xxhash.xxh3_64()
    for value in values:
        digest.update((value if isinstance(value, bytes) else str(value).encode()) + b"\0")
    return digest.intdigest() - (1 << 63)  # SQLite's integers have a sign


def _hash_all(names: Sequence[str]) -> list[tuple[str, State | None, str]]:
    """(name, its state if the hash may be remembered, hash) of each file."""
    buffer = memoryview(bytearray(_CHUNK))
    return [(name, *_hash_one(name, buffer)) for name in names]


def _hash_one(name: str, buffer: memoryview) -> tuple[State | None, str]:
    digest = xxhash.xxh3_128()
    now = time.time_ns()
    try:
        with open(name, "rb", buffering=0) as file:  # noqa: PTH123
            before = State.of(os.fstat(file.fileno()))
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
            after = State.of(os.fstat(file.fileno()))
    except OSError:
        return None, UNREADABLE
    return before if before == after and before.settled(now) else None, digest.hexdigest()
