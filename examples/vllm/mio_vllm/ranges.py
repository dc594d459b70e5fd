"""Sets of ids as ranges."""

from __future__ import annotations

from collections.abc import Sequence

Ranges = tuple[tuple[int, int], ...]
"""Ids as ranges `(first, behind the last)`, ascending and apart from each other."""


def joined(ranges: Sequence[tuple[int, int]]) -> Ranges:
    """Ranges in order, those that touch as one."""
    made: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if made and start <= made[-1][1]:
            made[-1] = made[-1][0], max(made[-1][1], stop)
        else:
            made.append((start, stop))
    return tuple(made)


def without(ranges: Sequence[tuple[int, int]], ids: Sequence[int]) -> Ranges:
    """Ranges without some ids."""
    made = list(ranges)
    for index in ids:
        made = [
            part
            for start, stop in made
            for part in ([(start, index), (index + 1, stop)] if start <= index < stop else [(start, stop)])
            if part[0] < part[1]
        ]
    return tuple(made)


def contains(ranges: Ranges, token: int) -> bool:
    """Whether an id lies in one of the ranges."""
    return any(start <= token < stop for start, stop in ranges)
