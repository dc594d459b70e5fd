"""Statistics of an optimizer step, summed over its forward passes and over all ranks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mio.core.data.batch import Batch
from mio.core.data.journal import digest_halves, joined_halves


class StepTotals(NamedTuple):
    """A step over all ranks."""

    weight: float
    """Sum of the loss weights."""
    loss: float
    """Weighted mean cross-entropy."""
    rows: int
    documents: int
    tokens: int
    """Positions that hold a document."""
    positions: int
    """Positions of the rows, padding included."""
    digest: int
    """64-bit fingerprint of the rows, in any order and from any rank (see `mio.core.data.journal.row_digest`)."""
    stop: bool
    """Whether any rank got a signal to stop."""


class StepStatistics:
    """Collects one step on this rank; `totals` adds up the ranks.

    Everything but the loss is known to the CPU, so nothing here waits for a GPU before the step's end. `counts` says
    whether this rank's rows are counted: of the ranks of one tensor-parallel group, which see the same ones, one is.
    """

    def __init__(self, counts: bool = True) -> None:
        self.counts = counts
        self.stop = False
        """Set when this rank gets a signal to stop; sent along once."""
        self._reset()

    def _reset(self) -> None:
        self._losses: list[Tensor] = []
        self._sums = [0.0] * 7

    def add(self, batch: Batch, loss: Tensor) -> None:
        """Adds a forward pass; `loss` is its weighted sum of cross-entropies, a scalar."""
        self._losses.append(loss.detach())
        lengths = [len(row) for row in batch.lengths]
        values = (
            batch.weight,
            len(lengths),
            sum(lengths),
            sum(sum(row) for row in batch.lengths),
            batch.tokens.numel(),
            *digest_halves(batch.digests),
        )
        self._sums = [total + value for total, value in zip(self._sums, values, strict=True)]

    def totals(self) -> StepTotals:
        """The step over all ranks, then starts anew. A collective call where there are several."""
        loss = float(torch.stack(self._losses).double().sum()) if self._losses else 0.0
        # whole numbers below 2^53 are exact in float64: rows of a step may number two million
        vector = torch.tensor([*self._sums, loss], dtype=torch.float64) * float(self.counts)
        vector = torch.cat([vector, torch.tensor([float(self.stop)], dtype=torch.float64)])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(vector)
        weight, *counts, loss, stop = vector.tolist()
        rows, documents, tokens, positions, low, high = map(int, counts)
        self._reset()
        digest = joined_halves(low, high)
        return StepTotals(weight, loss / max(weight, 1e-8), rows, documents, tokens, positions, digest, stop > 0)
