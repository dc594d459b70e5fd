"""Where the next token of an answer lies, and the part of the vocabulary that may come there. No torch.

What may come next is nearly always a block of the vocabulary, of text or of one codebook, and a few ids beside it: no
mask of the whole vocabulary is made, and what cannot come is not even scored.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

_GAP = 64
"""Ids between two runs that are scored in vain, rather than by two matrix products."""


class Between(NamedTuple):
    """The next token lies between spans."""

    openable: tuple[str, ...]
    """Modalities of which a span may be opened; `text` stands for a token of text."""
    may_stop: bool
    controls: tuple[str, ...] = ()
    """Control tokens with an id of their own that may come."""
    barred: tuple[int, ...] = ()
    """Tokens of text that would complete a control token that may not come."""


class Inserted(NamedTuple):
    """The next token is given: a control token has inserted it, or it closes a span that a head has made."""

    token: int


class Inside(NamedTuple):
    """The next token lies inside a span."""

    modality: str
    codebooks: tuple[int, ...]
    """Codebooks of which a code may come, by their place in the view that is written."""
    may_end: bool
    choice: int = -1
    """Which of their codes, by `SpanTable.choices` of the modality; -1: all."""


State = Between | Inserted | Inside


class Window:
    """Ids that may come in one kind of place, as runs in ascending order. A *column* is an id's place among them.

    Args:
        blocks: whole blocks of the vocabulary: text, or codebooks.
        beside: single ids.
        never: ids of the blocks that never come.
    """

    def __init__(self, blocks: Sequence[range], beside: Iterable[int] = (), never: Iterable[int] = ()) -> None:
        merged: list[tuple[int, int]] = []
        gaps: list[int] = []
        self.blocks = tuple(blocks)
        singles = (range(one, one + 1) for one in beside)
        for run in sorted((*blocks, *singles), key=lambda one: one.start):
            first, last = run.start, run.stop
            if merged and first - merged[-1][1] <= _GAP:
                gaps += range(merged[-1][1], first)
                merged[-1] = (merged[-1][0], last)
            else:
                merged.append((first, last))
        self.runs = tuple(merged)
        """First id of each run, and the id behind its last."""
        self._starts = [first for first, _ in merged]
        self._columns = [0, *accumulate(last - first for first, last in merged)]
        self.width = self._columns.pop()
        """Columns of all runs together."""
        self.closed = tuple(sorted(map(self.column, {*gaps, *never})))
        """Columns of ids that never come."""

    def column(self, token: int) -> int:
        """Column of an id of the window."""
        run = bisect_right(self._starts, token) - 1
        return self._columns[run] + token - self._starts[run]

    def token(self, column: int) -> int:
        """Id of a column."""
        if len(self._starts) == 1:
            return self._starts[0] + column
        run = bisect_right(self._columns, column) - 1
        return self._starts[run] + column - self._columns[run]


class Place:
    """What may come next: a window, of which some columns are closed.

    Args:
        closed: ids of the window that may not come, beside those that never do.
    """

    def __init__(self, window: Window, closed: Iterable[int] = ()) -> None:
        self.window = window
        self.closed = tuple(sorted({*window.closed, *map(window.column, closed)}))
        """Columns that may not come."""
        self.kept: dict[Any, Any] = {}
        """What those who compute with it have made of `closed`, by device."""
        alone = self.window.width - len(self.closed) == 1
        self.only = self.ids()[0] if alone else -1
        """The id that comes, where no other may; -1 where there is a choice."""

    def ids(self) -> list[int]:
        """Ids that may come, ascending."""
        found = [token for first, last in self.window.runs for token in range(first, last)]
        for column in reversed(self.closed):
            del found[column]
        return found
