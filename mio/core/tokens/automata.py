"""Spans of a modality that declares an automaton: codes checked by it, and what may come next while one is written.

Q codebooks, F frames.
"""

from __future__ import annotations

import numpy as np

from mio.core.contract.span_table import Following, SpanTable, span_table
from mio.core.contract.values import CodeArray, Modality
from mio.core.errors import DataError
from mio.core.tokens.documents import GENERATE


class AutomatonGrammar:
    """Which codes may come next inside a span (see `SpanGrammar`, whose place it takes)."""

    __slots__ = ("_place", "_table", "emitted")

    def __init__(self, table: SpanTable) -> None:
        self._table = table
        self._place = 0
        self.emitted = 0
        """Codes so far."""

    def allowed(self, budget: int | None = None) -> Following:
        """What may come next. With `budget`, the number of tokens left for the span including its end token, only codes
        after which the span can still be closed in time: as long as `remaining() <= budget`, something may."""
        room = self._table.longest if budget is None else budget - 1
        return self._table.following(self._place, self.emitted, room)

    def advance(self, codebook: int, code: int) -> None:
        """Records that a code was written. Raises ValueError where the automaton does not take it."""
        table = self._table
        try:
            if codebook != table.codebook[self._place]:
                raise KeyError(code)
            self._place = table.steps[self._place][code]
        except KeyError:
            raise ValueError(
                f"code {code} of codebook {codebook} may not follow after {self.emitted} codes of this span, in state "
                f"`{table.name(self._place)}`"
            ) from None
        self.emitted += 1

    def remaining(self) -> int:
        """Fewest further tokens that close the span from here, its end token included."""
        return self._table.least(self._place, max(0, self._table.shortest - self.emitted)) + 1


def check_codes(table: SpanTable, codes: CodeArray) -> None:
    """Raises `DataError`, naming frame, code, state and what was expected, for codes `[Q, F]` that are no span of the
    automaton. Their number of frames is not looked at."""
    steps, place, written = table.steps, 0, 0
    word = (codes.T if len(codes) > 1 else codes).ravel().tolist()
    try:
        for written, code in enumerate(word):  # noqa: B007 - known where it fails
            place = steps[place][code]
    except KeyError:
        frame, codebook = divmod(written, table.codebooks)
        of = f" of codebook {codebook}" if table.codebooks > 1 else ""
        raise DataError(
            f"code {word[written]}{of} at frame {frame}: in state `{table.name(place)}` come {table.expected(place)}"
        ) from None
    if not table.automaton.ends[table.states[place]]:
        raise DataError(
            f"it ends after {codes.shape[1]} frames: in state `{table.name(place)}` come {table.expected(place)}"
        )


def beginning(declared: Modality, codes: CodeArray, frames: int) -> int:
    """Frames of the longest beginning of a span's codes `[Q, F]` that is a span itself and has so many frames at most;
    of the shortest that is one, where none has so few."""
    table, least = span_table(declared), declared.frames.minimum
    if table is None:
        return min(codes.shape[1], max(least, frames - (frames - least) % declared.frames.step))
    place, whole = 0, 0
    for written, code in enumerate(codes.T.ravel().tolist(), 1):
        if whole and written > frames * len(codes):
            break
        place = table.steps[place][code]
        if table.ends[place] and written >= table.shortest:
            whole = written // len(codes)
    return whole


def random_codes(declared: Modality, random: np.random.Generator, most: int) -> CodeArray:
    """Codes int64 `[Q, F]` of a random span as it is written: of `most` frames at most, or of as few as there may be.
    What may come next is equally likely."""
    frames, table = declared.frames, span_table(declared)
    if table is None:
        count = frames.minimum + frames.step * int(
            random.integers((min(frames.longest, max(most, frames.minimum)) - frames.minimum) // frames.step + 1)
        )
        sizes = [declared.codebooks[book] for book in declared.view(GENERATE)]
        return np.stack([random.integers(0, size, count) for size in sizes])
    least = table.least(0, table.shortest)
    room = int(random.integers(least, max(least, min(table.longest, most * table.codebooks)) + 1))
    place, word = 0, list[int]()
    while True:
        following = table.following(place, len(word), room - len(word))
        codes = [code for first, end in table.choices[following.choice] for code in range(first, end)]
        if following.may_end and int(random.integers(len(codes) + 1)) == 0:
            return np.array(word, np.int64).reshape(-1, table.codebooks).T
        word.append(int(random.choice(codes)))
        place = table.steps[place][word[-1]]
