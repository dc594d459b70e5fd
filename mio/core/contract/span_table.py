"""An automaton made ready for the spans of a modality: which code may come next so that the span can still end in time.

The places of the table are the automaton's states together with the length so far modulo the step of lengths, as far as
they can be reached. What may come at a place also depends on the lengths in which a span can be completed from it:
those are found for all places at once, length by length, until they recur. So nothing here walks over arcs at every
step: what may come is kept by place, and only near the ends of lengths and budgets is it found anew.

Q codebooks; lengths count codes, of which a frame has Q.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from mio.core.contract.automata import Automaton, Run, state_name
from mio.core.contract.values import Frames, Modality
from mio.core.errors import PluginError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NEVER = 1 << 60
"""In place of a length: no span can be completed."""
_LARGEST = 1 << 28
"""Bytes of what is known of lengths, at most."""
_MOST_PLACES = 1 << 21
_KEPT = 1 << 16
"""Places near an end of lengths or budgets of which is kept what may come."""

Codes = tuple[tuple[int, int], ...]
"""Codes as runs `(first, behind the last)`, ascending and apart from each other."""


class Following(NamedTuple):
    """What may come next inside a span."""

    codebooks: tuple[int, ...]
    may_end: bool
    choice: int
    """Number of the codes that may come, in `SpanTable.choices`."""


class SpanTable:
    """Places of the spans of one modality; place 0 is where they begin.

    Raises `PluginError` where there are too many of them, or too many lengths, to be kept.
    """

    def __init__(self, automaton: Automaton, codebooks: int, frames: Frames) -> None:
        self.automaton = automaton
        self.codebooks = codebooks
        self.shortest, self.longest = codebooks * frames.minimum, codebooks * frames.longest
        """Lengths of spans by `frames` alone."""
        self.states: list[int] = []
        """Number of the automaton's state, by place."""
        self.runs: list[tuple[Run, ...]] = []
        """Arcs that leave each place, by code; `to` is a place."""
        self.ends: list[bool] = []
        """Whether a span of a possible length may end at a place."""
        self.codebook: list[int] = []
        """Codebook of the codes that leave a place."""
        self._find_places(codebooks * frames.step)
        self._lengths = _Lengths(self.runs, self.ends, self.longest)
        self.steps = _Steps(self.runs)
        """The place behind each place and code: `steps[place][code]`. `KeyError` where no arc has the code."""
        self.choices: list[Codes] = []
        """Codes that may come somewhere, all of one codebook."""
        self._choice_of: dict[Codes, int] = {}
        self._free: dict[int, tuple[Following, int]] = {}
        self._tight: dict[tuple[int, int, int], Following] = {}

    def _find_places(self, modulus: int) -> None:
        """A span may end where its length is `shortest` modulo the step of lengths."""
        runs, ends = self.automaton.runs, self.automaton.ends
        if modulus == 1:
            self.states, self.runs, self.ends = list(range(len(runs))), list(runs), list(ends)
            self.codebook = [0] * len(runs)
            return
        begin = (0, -self.shortest % modulus)
        numbers, found = {begin: 0}, [begin]
        for state, phase in found:
            after, own = (phase + 1) % modulus, []
            for first, end, to in runs[state]:
                number = numbers.setdefault((to, after), len(found))
                if number == len(found):
                    found.append((to, after))
                own.append(Run(first, end, number))
            self.states.append(state)
            self.runs.append(tuple(own))
            self.ends.append(ends[state] and not phase)
            self.codebook.append(phase % self.codebooks)
            if len(found) > _MOST_PLACES:
                raise PluginError(
                    f"`automaton`: its {len(runs):,} states and lengths in steps of {modulus} codes are more than "
                    f"{_MOST_PLACES:,} places of a span; take fewer states, or another `frames.step`"
                )

    @property
    def possible(self) -> bool:
        """Whether there is any span."""
        return self.least(0, self.shortest) <= self.longest

    def least(self, place: int, length: int) -> int:
        """Fewest codes, `length` or more, that complete a span from a place; `NEVER` if there are none."""
        return self._lengths.least(place, length)

    def following(self, place: int, written: int, room: int) -> Following:
        """What may come at a place behind so many codes, so that the span takes `room` further codes at most.

        As long as `least(place, max(0, shortest - written)) <= room` something may come, or the span may end.
        """
        room = min(room, self.longest - written)
        free = self._free.get(place)
        if free is None:
            free = self._free[place] = self._without_ends(place)
        if room >= free[1] and written >= self.shortest:
            return free[0]
        key = place, max(0, self.shortest - written), room
        found = self._tight.get(key)
        if found is None:
            if len(self._tight) >= _KEPT:
                self._tight.clear()
            found = self._tight[key] = self._near_an_end(*key)
        return found

    def _without_ends(self, place: int) -> tuple[Following, int]:
        """What may come where the span is long enough, and how much room makes all of it possible."""
        first = self._lengths.first
        own = [run for run in self.runs[place] if first[run.to] < NEVER]
        return self._told(place, own, self.ends[place]), max((1 + first[run.to] for run in own), default=0)

    def _near_an_end(self, place: int, missing: int, room: int) -> Following:
        more = max(0, missing - 1)
        own = [run for run in self.runs[place] if 1 + self.least(run.to, more) <= room]
        return self._told(place, own, self.ends[place] and not missing)

    def _told(self, place: int, runs: Sequence[Run], may_end: bool) -> Following:
        codes = _merged(runs)
        choice = self._choice_of.setdefault(codes, len(self.choices))
        if choice == len(self.choices):
            self.choices.append(codes)
        return Following((self.codebook[place],) if codes else (), may_end, choice)

    def name(self, place: int) -> str:
        """Label of the automaton's state at a place."""
        return state_name(self.automaton.states[self.states[place]])

    def expected(self, place: int) -> str:
        """What a place takes, in words: `codes 0 to 127, 140`, `the end`."""
        runs = _merged(self.runs[place])
        words = [str(first) if end == first + 1 else f"{first} to {end - 1}" for first, end in runs]
        if len(words) > _TOLD:
            words = [*words[:_TOLD], f"{len(words) - _TOLD} more runs"]
        codes = [f"codes {', '.join(words)}"] if words else []
        return " or ".join([*codes, *(["the end"] if self.automaton.ends[self.states[place]] else [])])


_TOLD = 6


def _merged(runs: Sequence[Run]) -> Codes:
    """Codes of arcs, wherever these lead."""
    merged: list[tuple[int, int]] = []
    for first, end, _ in runs:
        if merged and merged[-1][1] == first:
            merged[-1] = merged[-1][0], end
        else:
            merged.append((first, end))
    return tuple(merged)


class _Steps(dict[int, "_Row"]):
    """Rows of places, made when they are asked for."""

    def __init__(self, runs: list[tuple[Run, ...]]) -> None:
        self._runs = runs

    def __missing__(self, place: int) -> _Row:
        row = self[place] = _Row(self._runs[place])
        return row


class _Row(dict[int, int]):
    """Places by code, found when they are asked for."""

    def __init__(self, runs: tuple[Run, ...]) -> None:
        self._runs = runs
        self._firsts = [run.first for run in runs]

    def __missing__(self, code: int) -> int:
        at = bisect_right(self._firsts, code) - 1
        if at < 0 or code >= self._runs[at].end:
            raise KeyError(code)
        self[code] = self._runs[at].to
        return self._runs[at].to


class _Lengths:
    """The lengths of all ways from each place to where a span may end.

    The set of places with a way of n codes follows from the one for n - 1, so that sets recur with a period once two of
    them are equal. Lengths are kept up to the second period.
    """

    def __init__(self, runs: list[tuple[Run, ...]], ends: list[bool], longest: int) -> None:
        import numpy as np

        targets: list[int] = []
        starts: list[int] = []
        for own in runs:
            starts.append(len(targets))
            targets += dict.fromkeys(run.to for run in own)
            targets.append(len(runs))  # which has no way: no place is without a target
        to, at = np.array(targets), np.array(starts)
        now = np.array([*ends, False])
        first = np.where(now, 0, NEVER)
        rows = [np.packbits(now)]
        known = {rows[0].tobytes(): 0}
        self._period = 0
        for length in range(1, longest + 1):
            now = np.append(np.logical_or.reduceat(now[to], at), False)
            packed = np.packbits(now)
            before = known.setdefault(packed.tobytes(), length)
            if before != length:
                self._period = length - before
                rows += rows[before:]
                break
            first[now & (first == NEVER)] = length
            rows.append(packed)
            if len(rows) * len(packed) > _LARGEST:
                raise PluginError(
                    f"`automaton`: its {len(runs):,} states reach an end in too many lengths to be kept; take fewer "
                    "states, or a smaller `frames.maximum`"
                )
        self._rows: npt.NDArray[np.uint8] = np.stack(rows)
        self._bits: dict[int, int] = {}
        self.first: list[int] = first[:-1].tolist()
        """The shortest way from each place; `NEVER` where there is none."""

    def least(self, place: int, length: int) -> int:
        """The shortest way of `length` codes or more; `NEVER` if there is none."""
        if length <= self.first[place]:
            return self.first[place]
        bits = self._bits.get(place)
        if bits is None:
            bits = self._bits[place] = self._of(place)
        skipped = 0
        if self._period:
            again = len(self._rows) - self._period
            skipped = max(0, -(-(length - again) // self._period)) * self._period
        left = bits >> (length - skipped)
        if not left:
            return NEVER
        return length + (left & -left).bit_length() - 1

    def _of(self, place: int) -> int:
        """Bit n says whether there is a way of n codes."""
        import numpy as np

        column = self._rows[:, place >> 3] >> (7 - (place & 7)) & 1
        return int.from_bytes(np.packbits(column, bitorder="little").tobytes(), "little")


def span_table(declared: Modality) -> SpanTable | None:
    """Table of a modality's spans; None where it declares no automaton. Raises as `SpanTable` does."""
    if declared.automaton is None:
        return None
    return _table(declared.automaton, len(declared.codebooks), declared.frames)


@lru_cache(maxsize=16)
def _table(automaton: Automaton, codebooks: int, frames: Frames) -> Any:
    return SpanTable(automaton, codebooks, frames)
