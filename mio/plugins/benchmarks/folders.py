"""Folders of data sets, read with care: what is missing or malformed is one line that says where."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mio import DataError, Media
from mio.plugins.benchmarks.options import LAYOUTS, BenchmarkOptions

T = TypeVar("T")


@dataclass(frozen=True)
class Folder:
    """A data set's folder."""

    option: str
    """That names it; also the data set's name."""
    path: Path

    @classmethod
    def of(cls, options: BenchmarkOptions, data_set: str) -> Folder:
        """Raises `DataError` if there is no such folder."""
        folder = cls(data_set, Path(getattr(options, data_set)).expanduser())
        if not folder.path.is_dir():
            raise folder.problem(f"{folder.path}: no such folder")
        return folder

    def problem(self, what: str) -> DataError:
        return DataError(f"{what}; plugins.benchmarks.{self.option} is a folder with {LAYOUTS[self.option]}")

    def place(self, *names: str) -> Path:
        """The first of some files or folders, relative to this one, that is there. Raises `DataError` if none is."""
        for name in names:
            if (self.path / name).exists():
                return self.path / name
        others = f" (nor {', '.join(names[1:])})" if len(names) > 1 else ""
        raise self.problem(f"{self.path / names[0]}: is missing{others}")

    def json(self, *names: str) -> Entry:
        """The content of the first of some JSON files that is there. Raises `DataError`."""
        path = self.place(*names)
        try:
            return Entry(self, path, json.loads(path.read_bytes()), "")
        except OSError as error:
            raise self.problem(f"{path}: cannot be read: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise self.problem(f"{path}: is not JSON: {error}") from error

    def lines(self, path: Path) -> list[str]:
        """Lines of a text file. Raises `DataError`."""
        try:
            lines = path.read_text(encoding="utf-8").split("\n")  # texts may hold what else ends lines
            return lines if lines[-1] else lines[:-1]
        except OSError as error:
            raise self.problem(f"{path}: cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise self.problem(f"{path}: is not UTF-8: {error}") from error

    def media(self, modality: str, path: Path, where: str) -> Media:
        """A file of the data set, which `where` names. Its key is the same on every machine. Raises `DataError` if the
        file is not there."""
        try:
            size = path.stat().st_size
        except OSError as error:
            raise self.problem(f"{path}: {error.strerror or error}; {where} names it") from error
        return Media(modality, path, key=f"{self.option}/{path.relative_to(self.path).as_posix()}#{size}")


@dataclass(frozen=True)
class Entry:
    """A value of a JSON file that knows where it stands."""

    folder: Folder
    path: Path
    value: Any
    place: str

    def __str__(self) -> str:
        return f"{self.path}, {self.place}" if self.place else str(self.path)

    def __getitem__(self, field: str) -> Entry:
        """A field of an object. Raises `DataError` if it is missing."""
        if not isinstance(self.value, dict):
            raise self._wrong("an object")
        if field not in self.value:
            raise self.folder.problem(f"{self}: the field `{field}` is missing")
        return Entry(self.folder, self.path, self.value[field], f"{self.place}.{field}" if self.place else field)

    def __contains__(self, field: str) -> bool:
        return isinstance(self.value, dict) and field in self.value

    def __iter__(self) -> Iterator[Entry]:
        """Items of a list. Raises `DataError` for anything else."""
        if not isinstance(self.value, list):
            raise self._wrong("a list")
        for number, value in enumerate(self.value):
            yield Entry(self.folder, self.path, value, f"{self.place}[{number}]")

    @property
    def text(self) -> str:
        """Text that is not blank. Raises `DataError` for anything else."""
        if not isinstance(self.value, str) or not self.value.strip():
            raise self._wrong("text")
        return self.value

    @property
    def string(self) -> str:
        """Text, which may be blank. Raises `DataError` for anything else."""
        if not isinstance(self.value, str):
            raise self._wrong("text")
        return self.value

    @property
    def name(self) -> str:
        """A number or text that names something. Raises `DataError` for anything else."""
        if isinstance(self.value, int) and not isinstance(self.value, bool):
            return str(self.value)
        return self.text

    @property
    def file_name(self) -> str:
        """Text that is the name of a file, without a folder. Raises `DataError` for anything else."""
        if self.name in (".", "..") or any(character in self.name for character in "/\\\0"):
            raise self._wrong("the name of a file")
        return self.name

    def _wrong(self, wanted: str) -> DataError:
        shown = " ".join(repr(self.value).split())
        shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
        return self.folder.problem(f"{self}: {shown} is not {wanted}")


_BATCH = 64
"""Media that are in memory at a time, at most, where those of all records are looked at."""


def batches(records: Sequence[T]) -> Iterator[Sequence[T]]:
    """A few records at a time."""
    for start in range(0, len(records), _BATCH):
        yield records[start : start + _BATCH]


def sample(items: Iterable[T], count: int, name: Callable[[T], str]) -> Sequence[T]:
    """Some of the items, the first of an order that looks like chance and hangs on their names alone: a part of a data
    set is a fair sample of it, and more of it begins with the same items."""
    return sorted(items, key=lambda item: hashlib.blake2b(name(item).encode(), digest_size=8).digest())[:count]
