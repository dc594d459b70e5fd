"""Structure inside a span: a finite automaton over a modality's codes, as a plugin declares it. Free of NumPy.

A span of such a modality is a word that the automaton accepts, whose letters are its codes in the order in which they
are written. See `span_check.py` for what is refused, and `mio.core.tokens.automata` for how it is obeyed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

CodeSet = range | tuple[int, ...]


@dataclass(frozen=True)
class Arc:
    """One code that may come next, and the state after it."""

    codes: CodeSet
    """Codes of the arc: a `range`, or a tuple of integers."""
    to: Hashable
    """State behind it."""


class Run(NamedTuple):
    """Consecutive codes of one arc."""

    first: int
    end: int
    """Behind the last one."""
    to: int
    """Number of the state behind it."""


@dataclass(frozen=True, kw_only=True)
class Automaton:
    """A deterministic finite automaton. States are any hashable labels; each code of a span takes one arc.

    Of layouts of several codebooks the place in the span says which codebook a code is of: with Q of them, all words
    that lead to one state have the same length modulo Q.
    """

    start: Hashable
    """State in which a span begins."""
    arcs: Mapping[Hashable, Sequence[Arc]]
    """Arcs that leave each state; no two of one state have a code in common."""
    final: Sequence[Hashable]
    """States in which a span may end."""

    def __hash__(self) -> int:
        return hash((self.start, len(self.arcs)))

    def __getstate__(self) -> dict[str, object]:
        """What is computed stays in its process."""
        return {"start": self.start, "arcs": self.arcs, "final": self.final}

    @cached_property
    def states(self) -> tuple[Hashable, ...]:
        """All states that can be reached, by number: the start, then as arcs in the order of their codes lead there.
        So their numbers follow from the spans that are accepted, and not from labels or the order of a mapping."""
        found = {self.start: 0}
        waiting = [self.start]
        for state in waiting:
            for _, _, to in _runs(self.arcs.get(state, ())):
                if to not in found:
                    found[to] = len(found)
                    waiting.append(to)
        return tuple(waiting)

    @cached_property
    def runs(self) -> tuple[tuple[Run, ...], ...]:
        """Arcs of each of `states`, ascending by code; neighbouring codes with one state behind them are one run."""
        number = {state: index for index, state in enumerate(self.states)}
        return tuple(
            tuple(Run(first, end, number[to]) for first, end, to in _runs(self.arcs.get(state, ())))
            for state in self.states
        )

    @cached_property
    def ends(self) -> tuple[bool, ...]:
        """Whether a span may end in each of `states`."""
        final = set(self.final)
        return tuple(state in final for state in self.states)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of its arcs and final states, whatever the labels are."""
        return hashlib.sha256(json.dumps([self.runs, self.ends]).encode()).hexdigest()


def state_name(state: Hashable) -> str:
    """A state's label, for messages and titles: `pitch`, `bar 3 2` of a tuple."""
    text = " ".join(map(str, state)) if isinstance(state, tuple) else str(state)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


_LONGEST = 60


def runs_of(codes: CodeSet) -> list[tuple[int, int]]:
    """Codes as runs `(first, behind the last)`, ascending. Neighbours are one run."""
    if isinstance(codes, range) and codes.step == 1:
        return [(codes.start, codes.stop)] if len(codes) else []
    runs = []
    for _, group in groupby(enumerate(sorted(codes)), key=lambda pair: pair[1] - pair[0]):
        members = [code for _, code in group]
        runs.append((members[0], members[-1] + 1))
    return runs


def _runs(arcs: Sequence[Arc]) -> list[tuple[int, int, Hashable]]:
    found = sorted(((first, end, arc.to) for arc in arcs for first, end in runs_of(arc.codes)), key=lambda run: run[:2])
    merged: list[tuple[int, int, Hashable]] = []
    for first, end, to in found:
        if merged and merged[-1][1] == first and merged[-1][2] == to:
            merged[-1] = (merged[-1][0], end, to)
        else:
            merged.append((first, end, to))
    return merged
