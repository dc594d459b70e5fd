"""What sources consist of, to the last byte: the files that hold their records, and the media that these name.

A reader of files says which files it reads, what bytes a range of its records is made of, and which media files each
record names. From these come the source's fingerprint, which changes when any content does, the digest of a range of
records, by which a shard is kept or made again, and a list of files by which changes are named. Free of torch.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence, Sized
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from mio.core.contract.values import Record
from mio.core.data.hashing import MISSING, FileHashes
from mio.core.data.readers.cells import files_named

BLOCK = 1 << 15
"""Records whose media are looked up together."""
NAMED = 10_000
"""Entries of a list of files: of more files, each entry stands for several that follow each other."""
_LAYOUT = 1
"""Of what is remembered of a source's media. To be raised when readers find other files."""


class FileSource(ABC):
    """A source whose records lie in files."""

    files: Sequence[Path]
    """The files that hold the records: all that was read to find them."""
    reading: str
    """Says how records are read from the files: with another, they may name other media."""
    notes: Sequence[str] = ()
    """What of the files belongs to no record, for the report."""

    @property
    def fingerprint(self) -> str:
        """Changes when any byte of the files does, or of a media file that a record names."""
        return fingerprint_of(self)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Record:
        """Raises `DataError`, naming the record's place, if nothing can be made of it."""

    @abstractmethod
    def locate(self, index: int) -> str:
        """Names the place of a record for messages."""

    @abstractmethod
    def raw(self, start: int, stop: int) -> Iterator[bytes]:
        """What the records from `start` to `stop` are made of, and where they are, but for the media that they name."""

    def named(self, start: int, stop: int) -> Iterator[list[str]]:
        """The media files that each of the records from `start` to `stop` names."""
        return (files_named(partial(self.__getitem__, index)) for index in range(start, stop))


class SourceContent:
    """The content of one source.

    A source of a plugin's that is no reader of files has the fingerprint that it gives itself, if any.

    Args:
        records: the source.
        hashes: of files.
        fingerprint: where another process has found it already.
    """

    def __init__(self, records: Any, hashes: FileHashes, fingerprint: str | None = None) -> None:
        self.records = records
        self._hashes = hashes
        self._files: FileList | None = None
        self._block: tuple[int, _Counts, list[str]] = (-1, np.empty(0, np.uint32), [])
        if fingerprint is not None:
            self.__dict__["fingerprint"] = fingerprint

    @cached_property
    def fingerprint(self) -> str:
        """Changes when any content does; the empty string where nothing is known of it."""
        streamed = getattr(self.records, "streamed", False) and getattr(self.records, "files", None)
        if not isinstance(self.records, FileSource) and not streamed:
            return str(getattr(self.records, "fingerprint", ""))
        digest, self._files = xxhash.xxh3_128(), FileList()
        for path, content in zip(self.records.files, self._tables, strict=True):
            digest.update(f"{path.name}\0{content}\0".encode(errors="surrogatepass"))
            self._files.add(str(path), content)
        for start in range(0, self._size, BLOCK):
            counts, names = self._named(start)
            if not self.records.files:
                digest.update(self._raw(start, min(start + BLOCK, self._size)))
            hashes = self._hashes.of(names)
            digest.update(counts.tobytes() + "".join(hashes).encode())
            for name, content in dict(zip(names, hashes, strict=True)).items():
                self._files.add(name, content)
        return digest.hexdigest()

    @property
    def files(self) -> FileList:
        """The files, with what they hold."""
        if self._files is None:
            self.__dict__.pop("fingerprint", None)
            _ = self.fingerprint
        return self._files or FileList()

    def digest(self, start: int, stop: int) -> str:
        """Changes when any content of the records from `start` to `stop` does.

        Of a source of a plugin's, when its fingerprint does.
        """
        if not isinstance(self.records, FileSource):
            size = len(self.records) if isinstance(self.records, Sized) else ""
            return _digest(f"{self.fingerprint} {size}")
        digest = xxhash.xxh3_128(self._raw_of(start, stop))
        for first in range(start - start % BLOCK, stop, BLOCK):
            counts, names = self._named(first)
            ends = np.cumsum([0, *counts])
            begin, end = max(0, start - first), min(stop - first, len(counts))
            digest.update(counts[begin:end].tobytes())
            digest.update("".join(self._hashes.of(names[int(ends[begin]) : int(ends[end])])).encode())
        return digest.hexdigest()

    @property
    def _size(self) -> int:
        return len(self.records) if isinstance(self.records, Sized) else 0

    @cached_property
    def _tables(self) -> list[str]:
        """Hashes of the files that hold the records."""
        return self._hashes.of(self.records.files)

    @cached_property
    def _key(self) -> str:
        """Names what the files and the way of reading them say of records, but for their media's content."""
        content = " ".join(self._tables) if self.records.files else self._raw(0, self._size).hex()
        return _digest(f"{_LAYOUT} {self.records.reading} {content}")

    def _keep(self, name: str, value: bytes) -> None:
        """Remembers what was read of the files, unless they were changed meanwhile."""
        if self._hashes.of(self.records.files) == self._tables:
            self._hashes.keep(name, value)

    def _raw_of(self, start: int, stop: int) -> bytes:
        key = f"records {self._key} {start} {stop}"
        noted = self._hashes.noted(key)
        if noted is None:
            noted = self._raw(start, stop)
            self._keep(key, noted)
        return noted

    def _raw(self, start: int, stop: int) -> bytes:
        digest = xxhash.xxh3_128()
        for piece in self.records.raw(start, stop):
            digest.update(piece)
        return digest.digest()

    def _named(self, start: int) -> tuple[_Counts, list[str]]:
        """How many media files each record of the block from `start` names, and all of these, in their order.

        Which files records name is found by reading them, once per content of the table or archive.
        """
        if self._block[0] != start:
            key = f"media {self._key} {start}"
            noted = self._hashes.noted(key)
            named = _unpacked(noted) if noted is not None else None
            if named is None:
                named = _collected(self.records.named(start, min(start + BLOCK, self._size)))
                self._keep(key, _packed(*named))
            self._block = (start, *named)
        return self._block[1:]


_Counts = npt.NDArray[np.uint32]


def fingerprint_of(records: Any) -> str:
    """Fingerprint of a reader's content, nothing remembered."""
    return SourceContent(records, FileHashes(None)).fingerprint


def _collected(named: Iterable[list[str]]) -> tuple[_Counts, list[str]]:
    lists = list(named)
    return np.array(list(map(len, lists)), np.uint32), list(chain.from_iterable(lists))


def _packed(counts: _Counts, names: list[str]) -> bytes:
    text = "\0".join(names).encode(errors="surrogatepass")
    return zlib.compress(len(counts).to_bytes(4, "little") + counts.astype("<u4").tobytes() + text, 1)


def _unpacked(content: bytes) -> tuple[_Counts, list[str]] | None:
    try:
        plain = zlib.decompress(content)
    except zlib.error:
        return None
    end = 4 + 4 * int.from_bytes(plain[:4], "little")
    counts = np.frombuffer(plain[4:end], "<u4").astype(np.uint32)
    text = plain[end:].decode(errors="surrogatepass")
    names = text.split("\0") if text else []
    return (counts, names) if len(names) == counts.sum() else None


class FileList:
    """Files in their order with a digest of each, or of several that follow each other where there are many."""

    def __init__(self, entries: Iterable[tuple[str, str, int, str]] = (), together: int = 1) -> None:
        """Entries are (first file, last file, number of files, digest); all but the last stand for `together` files."""
        self.entries = [(str(first), str(last), int(count), str(digest)) for first, last, count, digest in entries]
        self.together = together

    def add(self, name: str, content: str) -> None:
        """Adds a file with its hash."""
        if self.entries and self.entries[-1][2] < self.together:
            self.entries[-1] = _joined(self.entries[-1], (name, name, 1, content))
            return
        if len(self.entries) == NAMED:
            self.entries = [_joined(*self.entries[at : at + 2]) for at in range(0, NAMED, 2)]
            self.together *= 2
        self.entries.append((name, name, 1, content))

    def to_json(self) -> dict[str, Any]:
        """As values of JSON."""
        return {"together": self.together, "entries": [[first, *rest] for first, *rest in self.entries]}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> FileList:
        """Raises `KeyError`, `TypeError` or `ValueError` if it is not what `to_json` gave."""
        return cls(content["entries"], int(content["together"]))

    def changes(self, now: FileList) -> list[str]:
        """Names of files that differ between this and `now`, with a word on what became of them where it is known."""
        before, after = ({entry[0]: entry for entry in entries} for entries in (self.entries, now.entries))
        if len(self.entries) == len(now.entries) and self.together == now.together and not before.keys() & after.keys():
            # by place, so that a folder that was moved as a whole still tells which of its files changed
            return [_entry_name(new) for old, new in zip(self.entries, now.entries, strict=True) if old[3] != new[3]]
        changed = [_entry_name(after[name]) for name in before if name in after and before[name][3] != after[name][3]]
        changed += [f"{name} (new)" for name in after if name not in before]
        return changed + [f"{name} (no longer read)" for name in before if name not in after]


def _joined(first: tuple[str, str, int, str], second: tuple[str, str, int, str]) -> tuple[str, str, int, str]:
    return first[0], second[1], first[2] + second[2], _digest(first[3] + second[3])


def _entry_name(entry: tuple[str, str, int, str]) -> str:
    first, last, count, digest = entry
    if count > 1:
        return f"one of the {count} files from {first} to {last}"
    return f"{first} (missing)" if digest == MISSING else first


def told_changes(changes: Sequence[str], most: int = 5) -> str:
    """Changed files in a few words."""
    more = f" and {len(changes) - most:,} more" if len(changes) > most else ""
    return ", ".join(changes[:most]) + more


def _digest(text: str) -> str:
    return xxhash.xxh3_128(text.encode(errors="surrogatepass")).hexdigest()
