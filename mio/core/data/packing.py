"""Windowed best-fit packing of documents into rows."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

_SERIAL_BITS = 48
_LAST_SERIAL = (1 << _SERIAL_BITS) - 1


class Entry(NamedTuple):
    """A document's place in the plan."""

    leaf: int
    """Index of its stream."""
    n: int
    """Its number in the stream."""
    length: int
    """Positions that it takes."""
    truncated: bool
    """Whether it is longer than the context and loses its end."""


class Pool:
    """Documents that wait for a row, in order of age and, for the best fit, in order of length.

    Removing the largest document that fits takes a binary search, of equally long ones the oldest; so does removing the
    oldest document of a leaf. Nothing here is random: the rows are a function of the documents added.
    """

    def __init__(self, leaves: int) -> None:
        self.waiting = [0] * leaves
        """Documents of each leaf in the pool."""
        self._ages: list[OrderedDict[int, Entry]] = [OrderedDict() for _ in range(leaves)]
        self._entries: dict[int, Entry] = {}
        self._keys: list[int] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Entry]:
        """Entries, oldest first."""
        return iter(self._entries.values())

    def add(self, entry: Entry) -> None:
        """Takes a document in as the youngest."""
        serial = self._serial
        self._serial += 1
        self._entries[serial] = self._ages[entry.leaf][serial] = entry
        self.waiting[entry.leaf] += 1
        insort(self._keys, _key(entry.length, serial))

    def peek(self, leaf: int) -> Entry:
        """The oldest document of a leaf, which stays."""
        return next(iter(self._ages[leaf].values()))

    def oldest(self, leaf: int) -> Entry:
        """Removes and returns the oldest document of a leaf."""
        serial, entry = next(iter(self._ages[leaf].items()))
        return self._remove(serial, bisect_left(self._keys, _key(entry.length, serial)))

    def largest(self, space: int) -> Entry | None:
        """Removes and returns the longest document of at most `space` positions; None if there is none."""
        place = bisect_right(self._keys, _key(space, 0))
        if place == 0:
            return None
        return self._remove(_LAST_SERIAL - (self._keys[place - 1] & _LAST_SERIAL), place - 1)

    def _remove(self, serial: int, place: int) -> Entry:
        del self._keys[place]
        entry = self._entries.pop(serial)
        del self._ages[entry.leaf][serial]
        self.waiting[entry.leaf] -= 1
        return entry


def _key(length: int, serial: int) -> int:
    """Sorts by length, then the younger first, so that the last one that fits is the oldest of the longest."""
    return length << _SERIAL_BITS | (_LAST_SERIAL - serial)
