"""Maps of the items that sequences have read, kept while they are decoded.

B sequences, L positions, N items of the sequence with the most, S cells of a map, C its channels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_NEVER = 2**62
"""First position of an item that is not there."""


@dataclass
class _Items:
    """Of one modality."""

    maps: Tensor
    """[B, N, S, C], 0 where a sequence has no more items."""
    first: Tensor
    """int64 [B, N]: position in its sequence from which on an item is seen."""
    starts: list[list[int]]
    """The same numbers of each sequence's items: reading them waits for no device."""


class MapCache:
    """What layers with adapters read in decoding, beside the `KVCache` of the same sequences.

    Maps are copied when an item comes, and read without a copy. For inference: no gradient flows through them.

    Args:
        shapes: cells and channels (S, C) of each modality's maps.
        batch: number of sequences.
        dtype: of the maps.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        batch: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._items = {
            name: _Items(
                torch.zeros(batch, 1, *shape, device=device, dtype=dtype),
                torch.full((batch, 1), _NEVER, device=device),
                [[] for _ in range(batch)],
            )
            for name, shape in shapes.items()
        }
        self._only: tuple[int, ...] | None = None
        """The sequences that this cache shows of a larger one."""

    @property
    def modalities(self) -> Collection[str]:
        """Whose maps it keeps."""
        return self._items.keys()

    def append(self, modality: str, sequence: int, maps: Tensor, first: list[int]) -> None:
        """Has a sequence see further items, behind those that it has.

        Args:
            maps: [n, S, C].
            first: n positions in the sequence, ascending; an item is seen from there on.
        """
        items = self._items[modality]
        index = sequence if self._only is None else self._only[sequence]
        held, count = len(items.starts[index]), len(items.starts[index]) + len(first)
        if (more := count - items.maps.shape[1]) > 0:
            B, _, S, C = items.maps.shape
            items.maps = torch.cat([items.maps, items.maps.new_zeros(B, more, S, C)], 1)
            items.first = torch.cat([items.first, items.first.new_full((B, more), _NEVER)], 1)
        items.maps[index, held:count] = maps.detach().to(items.maps.dtype)
        items.first[index, held:count] = torch.tensor(first, device=items.first.device)
        items.starts[index] += first

    def read(self, modality: str, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [B, N, S, C] and who sees them, bool [B, L, N], of tokens at `positions` int64 [B, L]. N is at least 1:
        where there is no item, one of 0 that nobody sees."""
        items = self._items[modality]
        maps, first = items.maps, items.first
        if self._only is not None:
            count = max(1, *(len(items.starts[index]) for index in self._only))
            start, rows = self._only[0], len(self._only)
            neighbours = self._only == tuple(range(start, start + rows))
            shown = slice(start, start + rows) if neighbours else list(self._only)
            maps, first = maps[shown, :count], first[shown, :count]
        return maps, positions[..., None] >= first[:, None]

    def newest(self, modality: str, most: int) -> tuple[Tensor, Tensor]:
        """Maps [B, M, S, C] of each sequence's newest items, the newest first, `most` at most, and bool [B, M], false
        where a sequence has no more; M is what the sequence with the most has of them."""
        items = self._items[modality]
        rows = range(len(items.starts)) if self._only is None else self._only
        counts = [len(items.starts[row]) for row in rows]
        device = items.maps.device
        place = torch.arange(min(most, max(counts)), device=device)
        number = torch.tensor(counts, device=device)[:, None] - 1 - place
        there = number >= 0
        maps = items.maps[torch.tensor(rows, device=device)[:, None], number.clamp(min=0)]
        return maps * there[..., None, None], there

    def keep(self, sequences: Tensor) -> None:
        """Keeps the sequences of these indices (int64 [n]), in this order; an index may repeat."""
        for items in self._items.values():
            items.starts = [list(items.starts[index]) for index in sequences.tolist()]
            count = max(1, *map(len, items.starts))
            items.maps, items.first = items.maps[sequences, :count], items.first[sequences, :count]

    def sequence(self, index: int) -> MapCache:
        """The cache of one sequence, in the memory of this one: what is appended there is appended here."""
        return self.sequences([index])

    def sequences(self, indices: Sequence[int]) -> MapCache:
        """The same of several sequences; `read` copies the maps of such that are no neighbours."""
        some = MapCache({}, 1)
        some._items = self._items
        some._only = tuple(indices if self._only is None else (self._only[index] for index in indices))
        return some

    def swap(self, first: int, second: int) -> None:
        """Has two sequences change places."""
        both, turned = [first, second], [second, first]
        for items in self._items.values():
            items.maps[both], items.first[both] = items.maps[turned], items.first[turned]
            items.starts[first], items.starts[second] = items.starts[second], items.starts[first]

    def begin_with(self, index: int, source: int, count: int) -> None:
        """Has a sequence see those items of another, or of its own, that lie in its first `count` tokens."""
        for items in self._items.values():
            kept = [first for first in items.starts[source] if first < count]
            items.starts[index], number = kept, len(kept)
            if number > 0 and source != index:
                items.maps[index, :number] = items.maps[source, :number]
                items.first[index, :number] = items.first[source, :number]
            items.maps[index, number:] = 0
            items.first[index, number:] = _NEVER
