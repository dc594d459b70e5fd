"""The journal of a run: one line per step says which rows were trained on, to be compared with the plan. No torch.

A row's fingerprint covers its place in the global sequence and the documents in it. A step's is the sum of its rows',
taken over the batches that the ranks really trained on. The sum does not depend on which rank read which row, so
journals of runs on other numbers of ranks, or that were interrupted, are equal line by line, and equal to the plan's.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from mio.core.errors import DataError

_WORD = 1 << 32


class JournalEntry(NamedTuple):
    """One step."""

    step: int
    """Counted from 1."""
    rows: int
    documents: int
    tokens: int
    digest: int


def row_digest(index: int, row: Sequence[Sequence[int]]) -> int:
    """64-bit fingerprint of the row with this place in the sequence: of (leaf, number, positions, truncated) of each of
    its documents."""
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
    """The journal's file, to which a line is added per step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def add(self, entry: JournalEntry) -> None:
        """Writes a line. Lines of the same step and later ones, which a killed run left behind, are replaced."""
        if self._file is None:
            earlier = [old for old in (read(self.path) if self.path.is_file() else ()) if old.step < entry.step]
            partial = self.path.with_name(f"{self.path.name}.partial")
            with partial.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([JournalEntry._fields, *map(_cells, earlier)])
            partial.replace(self.path)
            self._file = self.path.open("a", newline="", encoding="utf-8")
        csv.writer(self._file).writerow(_cells(entry))
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _cells(entry: JournalEntry) -> list[str]:
    return [*map(str, entry[:4]), f"{entry.digest:016x}"]


def read(path: Path) -> list[JournalEntry]:
    """Lines of a journal. A last line that a killed run left half written is left out.

    Raises:
        DataError: there is no such file, or a line of it is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no journal; `mio fit` writes one while it trains") from error
    entries = []
    for number, line in enumerate(lines[1:], 2):
        if not line.endswith("\n"):
            break
        try:
            step, rows, documents, tokens, digest = line.strip().split(",")
            entries.append(JournalEntry(int(step), int(rows), int(documents), int(tokens), int(digest, 16)))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: is damaged: {line.strip()!r}") from error
    return entries


class Comparison(NamedTuple):
    """A journal beside the plan."""

    steps: int
    """Steps in the journal."""
    lost: list[int]
    """Steps that are missing before its last one."""
    repeated: list[int]
    """Steps that occur more than once."""
    different: list[int]
    """Steps that were trained on other rows than planned."""

    @property
    def exact(self) -> bool:
        return not (self.lost or self.repeated or self.different)


def compare(journal: Sequence[JournalEntry], plan: Iterable[JournalEntry]) -> Comparison:
    """Compares a journal with the plan of its run, step by step, up to the journal's last step."""
    seen: dict[int, JournalEntry] = {}
    repeated = []
    for entry in journal:
        if entry.step in seen:
            repeated.append(entry.step)
        seen[entry.step] = entry
    last = max(seen, default=0)
    lost, different = [], []
    for number, entry in zip_longest(range(1, last + 1), plan):
        if number is None:
            break
        if number not in seen:
            lost.append(number)
        elif entry is None or seen[number] != entry:
            different.append(number)
    return Comparison(len(journal), lost, repeated, different)
