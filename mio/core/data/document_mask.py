"""Which positions of a batch may see each other, in the forms that attention reads: a function of the documents'
lengths alone, made in the data workers.

B rows, L positions of a row, D documents, S slots, Q blocks of queries, K blocks of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mio.core.errors import DataError

BLOCK = 128
"""FlexAttention's block of positions."""
_BUCKET_STEP = 16


@dataclass(eq=False)
class DocumentMask:
    """The packed documents of a batch. On CPUs attention gathers them into buckets of nearly equal length; each has
    slots for the positions of its bucket's longest. On CUDA it skips blocks of positions that share no document."""

    ids: Tensor
    """int32 [B, L]: number of the document within the batch, -1 at padding."""
    starts: Tensor
    """int32 [3, D]: first position of each document in the flattened batch, its first slot, and its number of slots."""
    slots: Tensor
    """int32 [S]: the position in the flattened batch that each slot takes, -1 for none."""
    buckets: list[tuple[int, int]]
    """(documents, slots of each) of each bucket, in the order of the slots."""
    blocks: dict[int, tuple[Tensor, Tensor]]
    """By window of attention: see `visible_blocks`."""
    _derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_lengths(cls, rows: Sequence[Sequence[int]], context: int, windows: Sequence[int] = ()) -> DocumentMask:
        """The mask of rows of documents of these lengths; the rest of a row up to `context` is padding.

        Args:
            windows: of the layers, where attention runs on CUDA; 0 is a layer without one.

        Raises:
            DataError: a length is below 1, a row is longer than `context`, or there is no document at all.
        """
        lengths = np.fromiter(chain.from_iterable(rows), np.int64)
        if not len(lengths):
            raise DataError("a batch needs at least one document")
        used = [sum(row) for row in rows]
        for index, row in enumerate(rows):
            if used[index] > context or min(row, default=1) < 1:
                raise DataError(f"row {index}: documents of lengths {list(row)} do not fit a context of {context}")
        number = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        ids = np.full((len(rows), context), -1, np.int32)
        ids[np.arange(context) < np.array(used)[:, None]] = number
        before = np.cumsum(lengths) - lengths
        free = np.cumsum([0, *(context - length for length in used[:-1])])  # padding before each row
        starts = before + np.repeat(free, [len(row) for row in rows])
        # Coarser with length: at most an eighth is padding beyond the first step, and there are few buckets.
        bits = np.frexp(lengths - 1)[1].astype(np.int64)
        step = np.maximum(_BUCKET_STEP, 1 << np.maximum(bits - 3, 0))
        widths = -(-lengths // step) * step
        order = np.argsort(widths, kind="stable")
        first = np.empty_like(widths)
        first[order] = np.cumsum(widths[order]) - widths[order]
        token = np.arange(len(number))
        slots = np.full(widths.sum(), -1, np.int32)
        slots[token + (first - before)[number]] = token + (starts - before)[number]
        width, count = np.unique(widths, return_counts=True)
        return cls(
            torch.from_numpy(ids),
            torch.from_numpy(np.stack((starts, first, widths)).astype(np.int32)),
            torch.from_numpy(slots),
            list(zip(count.tolist(), width.tolist(), strict=True)),
            {window: visible_blocks(torch.from_numpy(ids), window) for window in windows},
        )

    def change(self, function: Callable[[Tensor], Tensor]) -> DocumentMask:
        """The mask with the results of `function` in place of its tensors."""
        return DocumentMask(
            function(self.ids),
            function(self.starts),
            function(self.slots),
            self.buckets,
            {window: (function(counts), function(indices)) for window, (counts, indices) in self.blocks.items()},
        )

    @property
    def valid(self) -> Tensor:
        """bool [B, L]: False at padding."""
        return self.derive("valid", lambda: self.ids >= 0)

    def derive(self, key: Any, build: Callable[[], Any]) -> Any:
        """A value computed from the mask once and shared by all layers."""
        if key not in self._derived:
            self._derived[key] = build()
        return self._derived[key]


def visible_blocks(ids: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """int32 [4, B, 1, Q] and [4, B, 1, Q, K]: FlexAttention's numbers of blocks and their indices, those that count
    first, of the keys that a block of queries sees in part, those that it sees in full, the queries that see a block of
    keys in part, and those that see it in full.

    Documents lie in order, so the first and last positions of two blocks say whether any pair of theirs may see each
    other, and whether every pair does. Nothing of the size of L x L exists, as in torch's `create_block_mask`.
    """
    B, L = ids.shape
    blocks = -(-L // BLOCK)
    by_block = F.pad(ids, (0, blocks * BLOCK - L), value=-1).view(B, blocks, BLOCK)
    first, last, end = by_block[..., 0], by_block.amax(-1), by_block[..., -1]  # `end` is -1 if any is padding
    query = torch.arange(blocks, device=ids.device)[:, None]
    key = query.T
    some = (key <= query) & (last[:, None, :] >= first[:, :, None]) & (first[:, :, None] >= 0)
    full = (key < query) & (first[:, None, :] == end[:, :, None]) & (end[:, :, None] >= 0)
    if window:
        some &= (query - key - 1) * BLOCK + 1 < window  # the nearest pair
        full &= (query - key + 1) * BLOCK - 1 < window  # the farthest
    full &= some
    part = some & ~full
    chosen = torch.stack((part, full, part.mT, full.mT))[:, :, None].to(torch.int32)
    return chosen.sum(-1, dtype=torch.int32), chosen.argsort(dim=-1, descending=True, stable=True).to(torch.int32)
