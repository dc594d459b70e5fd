"""Which codes may come next inside a span whose modality declares an automaton.

States are numbers, a span begins in state 0, and each of its codes takes one arc. Of Q codebooks the codes of a frame
follow each other, so that the number of codes written so far says which codebook is next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

Arcs = tuple[tuple[int, int, int], ...]
"""Arcs of a state: first code, the one behind the last, and the state they lead to; ascending."""


class Automaton:
    """Spans of one modality.

    Args:
        content: as `grammar.json` has it.
        lengths: of its spans, in codes.
    """

    def __init__(self, content: Mapping[str, Any], lengths: range) -> None:
        self._arcs: list[Arcs] = [tuple((first, end, to) for first, end, to in arcs) for arcs in content["arcs"]]
        self._ends = frozenset(content["ends"])
        self._lengths = lengths
        self._ways = self._found_ways()
        self.needed = lru_cache(maxsize=1 << 16)(self._needed)
        """Fewest codes that complete a span from a state, behind so many codes; None if there are none."""
        self.following = lru_cache(maxsize=1 << 16)(self._following)
        """Codes that may come in a state behind so many codes, as ranges, so that the span takes `room` further ones at
        most, and whether it may end."""

    def _found_ways(self) -> list[frozenset[int]]:
        """The states from which an end is so many codes away, for each number of them until the sets recur."""
        before: list[set[int]] = [set() for _ in self._arcs]
        for state, arcs in enumerate(self._arcs):
            for _, _, to in arcs:
                before[to].add(state)
        ways, known = [self._ends], {self._ends: 0}
        self._again, self._period = 0, 0
        while len(ways) <= self._lengths[-1]:
            more = frozenset(state for to in ways[-1] for state in before[to])
            if more in known:
                self._again, self._period = known[more], len(ways) - known[more]
                break
            known[more] = len(ways)
            ways.append(more)
        return ways

    def _has_way(self, state: int, codes: int) -> bool:
        if codes >= len(self._ways):
            codes = self._again + (codes - self._again) % self._period
        return state in self._ways[codes]

    def _needed(self, state: int, written: int) -> int | None:
        left = (length - written for length in self._lengths if length >= written)
        return next((codes for codes in left if self._has_way(state, codes)), None)

    def _following(self, state: int, written: int, room: int) -> tuple[tuple[tuple[int, int], ...], bool]:
        fitting = [
            (first, end)
            for first, end, to in self._arcs[state]
            if (left := self.needed(to, written + 1)) is not None and left < room
        ]
        return tuple(fitting), state in self._ends and written in self._lengths

    def after(self, state: int, code: int) -> int:
        """The state behind a code that may come."""
        return next(to for first, end, to in self._arcs[state] if first <= code < end)

    @staticmethod
    def of(content: Mapping[str, Any] | None, lengths: Sequence[int]) -> Automaton | None:
        """Of a modality that declares one, or none."""
        return None if content is None else Automaton(content, range(lengths[0], lengths[1] + 1, lengths[2]))
