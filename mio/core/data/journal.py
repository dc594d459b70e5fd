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
from typing import Any, NamedTuple

import numpy as np

from mio.core.data.step_table import StepTable
from mio.core.errors import DataError

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
    """64-bit fingerprint of the row with this index in the sequence: of (stream, number, positions, truncated) of each
    of its documents."""
    content = np.array([index, *(value for entry in row for value in entry)], dtype="<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def add_digests(digests: Iterable[int]) -> int:
    """Sum of fingerprints, each half of 32 bits by itself."""
    return joined_halves(*digest_halves(digests))


def digest_halves(digests: Iterable[int]) -> tuple[int, int]:
    """Sums of the low and the high halves, which ranks add up in float64."""
    low = high = 0
    for digest in digests:
        low, high = low + digest % _WORD, high + digest // _WORD
    return low, high


def joined_halves(low: int, high: int) -> int:
    """The fingerprint that such sums make."""
    return high % _WORD * _WORD + low % _WORD


def planned(plan: Any, rows: int, steps: int) -> Iterator[JournalEntry]:
    """The journal that a run has to have, by its `mio.core.data.plan.Plan` alone; `rows` make up a step."""
    for step in range(1, steps + 1):
        first = plan.rows
        of_step = [plan.next_row() for _ in range(rows)]
        yield JournalEntry(
            step,
            rows,
            sum(len(row) for row in of_step),
            sum(entry.length for row in of_step for entry in row),
            add_digests(row_digest(index, row) for index, row in enumerate(of_step, first)),
        )


class Journal(StepTable):
    """The journal's file, to which a line is added per step."""

    counted = "lines"

    def check(self, state: Mapping[str, Any], step: int) -> None:
        """Raises `DataError` where the lines up to `step` are not those that were written when `state` was taken."""
        if not self.matches(state, step):
            raise DataError(
                f"{self.path}: is not what the run wrote up to step {step}; restore it from a copy. The rows that were "
                "trained on cannot be told without it: move it away, and the run goes on, but `mio recipe verify` will "
                "not approve of it"
            )

    def add(self, entry: JournalEntry) -> None:
        """Writes a line."""
        self.add_line(_line(entry))

    def _signed(self, line: Mapping[str, str]) -> str:
        return ",".join(line.values()) + "\r\n"

    def _read(self) -> list[dict[str, str]]:
        return [_line(entry) for entry in read(self.path)] if self.path.is_file() else []


_HEADER = ",".join(JournalEntry._fields)


def _line(entry: JournalEntry) -> dict[str, str]:
    return {name: f"{value:016x}" if name == "digest" else str(value) for name, value in entry._asdict().items()}


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
    if lines[0].rstrip(b"\r") != _HEADER.encode():
        raise DataError(f"{path}, line 1: is damaged: {lines[0][:80]!r} instead of {_HEADER!r}")
    entries = []
    for number, line in enumerate(lines[1:-1], 2):  # what follows the last line's end is empty, or half a line
        match = _LINE.fullmatch(line)
        if match is None:
            raise DataError(f"{path}, line {number}: is damaged: {line[:80]!r}")
        step, rows, documents, tokens, digest = match.groups()
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
