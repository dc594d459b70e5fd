"""Packing of documents into rows: a pool of waiting documents, and the exact best way to fill what a row has left."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator
from typing import NamedTuple


class Entry(NamedTuple):
    """A document's place in the plan."""

    stream: int
    """Index of its stream."""
    n: int
    """Its number in the stream."""
    length: int
    """Positions that it takes."""
    truncated: bool
    """Whether it is longer than the context and loses its end."""


class Pool:
    """Documents that wait for a row, in order of age. The rows are a function of the documents added."""

    def __init__(self, streams: int) -> None:
        self.waiting = [0] * streams
        """Documents of each stream in the pool."""
        self._entries: OrderedDict[tuple[int, int], Entry] = OrderedDict()
        self._by_stream: list[OrderedDict[int, Entry]] = [OrderedDict() for _ in range(streams)]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Entries, oldest first."""
        return iter(self._entries.values())

    def add(self, entry: Entry) -> None:
        """Takes a document in as the youngest."""
        self._entries[entry.stream, entry.n] = self._by_stream[entry.stream][entry.n] = entry
        self.waiting[entry.stream] += 1

    def oldest(self, stream: int) -> Entry:
        """The oldest document of a stream. It stays."""
        return next(iter(self._by_stream[stream].values()))

    def next_length(self, stream: int) -> int:
        """Positions of the oldest document of a stream."""
        return self.oldest(stream).length

    def best_fit(self, space: int, without: Collection[int] = ()) -> list[Entry]:
        """Documents that fill `space` positions as far as any in the pool can, but for those of the streams `without`.
        They stay.

        Subset sum by dynamic programming (Bellman, "Dynamic Programming", 1957): bit s of `sums` says whether some of
        the documents looked at so far add up to s. Documents are looked at from the oldest on and only until they fill
        the space exactly, and a younger one is taken only if the older ones need it: nothing waits for long.
        """
        sums, mask, goal = 1, (1 << space + 1) - 1, 1 << space
        steps: list[tuple[Entry, int]] = []
        for entry in self._entries.values():
            if entry.length <= space and entry.stream not in without:
                more = (sums | sums << entry.length) & mask
                if more != sums:
                    steps.append((entry, sums))
                    sums = more
                    if sums & goal:
                        break
        reached = sums.bit_length() - 1
        chosen = []
        for entry, before in reversed(steps):
            if not before >> reached & 1:
                reached -= entry.length
                chosen.append(entry)
        return chosen[::-1]

    def remove(self, stream: int, n: int) -> Entry:
        """Removes and returns a document."""
        del self._by_stream[stream][n]
        self.waiting[stream] -= 1
        return self._entries.pop((stream, n))
