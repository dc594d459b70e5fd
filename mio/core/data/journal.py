"""The journal of a run: one line per step says which rows were trained on, to be compared with the plan. No torch.

A row's fingerprint covers its place in the global sequence and the documents in it. A step's is the sum of its rows',
taken over the batches that the ranks really trained on. The sum does not depend on which rank read which row, so
journals of runs on other numbers of ranks, or that were interrupted, are equal line by line, and equal to the plan's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from mio.core.errors import DataError
from mio.core.files import write_text

_WORD = 1 << 32
_LINE = re.compile(rb"([1-9]\d{0,17}),(\d{1,18}),(\d{1,18}),(\d{1,18}),([0-9a-f]{1,16})\r?")


class JournalEntry(NamedTuple):
    """One step."""

    step: int
    """Counted from 1."""
    rows: int
    documents: int
    tokens: int
    digest: int


def row_digest(index: int, row: Sequence[Sequence[int]]) -> int:
    """64-bit fingerprint of the row with this place in the sequence: of (stream, number, positions, truncated) of each
    of its documents."""
    content = np.array([index, *(value for entry in row for value in entry)], dtype="<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def add_digests(digests: Iterable[int]) -> int:
    """Sum of fingerprints, each half of 32 bits by itself: ranks add the halves up in float64."""
    low = high = 0
    for digest in digests:
        low, high = low + digest % _WORD, high + digest // _WORD
    return high % _WORD * _WORD + low % _WORD


def planned(plan: Any, rows: int, steps: int) -> Iterator[JournalEntry]:
    """The journal that a run has to have, by its `mio.core.data.plan.Plan` alone; `rows` make up a step."""
    for step in range(1, steps + 1):
        first = plan.rows
        made = [plan.next_row() for _ in range(rows)]
        yield JournalEntry(
            step,
            rows,
            sum(len(row) for row in made),
            sum(entry.length for row in made for entry in row),
            add_digests(row_digest(index, row) for index, row in enumerate(made, first)),
        )


class Journal:
    """The journal's file, to which a line is added per step, and the digest of its lines so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None
        self._digest = hashlib.blake2b(digest_size=16)
        self._lines = 0

    def state(self) -> dict[str, Any]:
        """What `check` compares: how many lines there are, and their digest."""
        return {"lines": self._lines, "digest": self._digest.hexdigest()}

    def check(self, state: Mapping[str, Any], step: int) -> None:
        """Raises `DataError` where the lines up to `step` are not those that were written when `state` was taken."""
        self._take(step)
        if self.state() != {"lines": state["lines"], "digest": state["digest"]}:
            raise DataError(f"{self.path}: is not what the run wrote up to step {step}; {_WITHOUT}")

    def _take(self, step: int) -> list[str]:
        """Lines up to a step, which the next ones are added to."""
        found = [_line(old) for old in (read(self.path) if self.path.is_file() else ()) if old.step <= step]
        self._digest, self._lines = hashlib.blake2b("".join(found).encode(), digest_size=16), len(found)
        return found

    def add(self, entry: JournalEntry) -> None:
        """Writes a line. Lines of the same step and later ones, which a killed run left behind, are replaced."""
        if self._file is None:
            write_text(self.path, "".join([_HEADER, *self._take(entry.step - 1)]))
            self._file = self.path.open("a", newline="", encoding="utf-8")
        line = _line(entry)
        self._file.write(line)
        self._file.flush()
        self._digest.update(line.encode())
        self._lines += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


_HEADER = ",".join(JournalEntry._fields) + "\r\n"
_WITHOUT = (
    "restore it from a copy. The rows that were trained on cannot be told without it: move it away, and the run goes "
    "on, but `mio recipe verify` will not approve of it"
)


def _line(entry: JournalEntry) -> str:
    return ",".join([*map(str, entry[:4]), f"{entry.digest:016x}"]) + "\r\n"


def read(path: Path) -> list[JournalEntry]:
    """Lines of a journal. A last line that a killed run left half written is left out.

    Raises:
        DataError: there is no such file, or a line of it is damaged.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no journal; `mio fit` writes one while it trains") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if lines[0].rstrip(b"\r") != _HEADER.rstrip().encode():
        raise DataError(f"{path}, line 1: is damaged: {lines[0][:80]!r} instead of {_HEADER.rstrip()!r}")
    entries = []
    for number, line in enumerate(lines[1:-1], 2):  # what follows the last line's end is empty, or half a line
        found = _LINE.fullmatch(line)
        if found is None:
            raise DataError(f"{path}, line {number}: is damaged: {line[:80]!r}")
        step, rows, documents, tokens, digest = found.groups()
        entries.append(JournalEntry(int(step), int(rows), int(documents), int(tokens), int(digest, 16)))
    return entries


class Comparison(NamedTuple):
    """A journal beside the plan."""

    steps: int
    """Steps in the journal."""
    lost: list[int]
    """Steps that are missing."""
    repeated: list[int]
    """Steps that occur more than once."""
    different: list[int]
    """Steps that were trained on other rows than planned."""

    @property
    def exact(self) -> bool:
        return not (self.lost or self.repeated or self.different)


def compare(journal: Sequence[JournalEntry], plan: Iterable[JournalEntry], steps: int = 0) -> Comparison:
    """Compares a journal with the plan of its run, step by step, up to the journal's last step and at least to `steps`,
    which the run is known to have trained."""
    seen: dict[int, JournalEntry] = {}
    repeated = []
    for entry in journal:
        if entry.step in seen:
            repeated.append(entry.step)
        seen[entry.step] = entry
    last, end = max(seen, default=0), 0
    lost, different = [], []
    for end, entry in enumerate(islice(plan, last), 1):
        if end not in seen:
            lost.append(end)
        elif seen[end] != entry:
            different.append(end)
    different += sorted(step for step in seen if step > end)
    lost += range(last + 1, steps + 1)
    return Comparison(len(journal), lost, repeated, different)
