"""The batch that a training step sees, and its assembly from rendered documents.

Shapes: B rows, L positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mio.core.data.plan import Changes


class RenderedDocument(Protocol):
    """A document as numbers."""

    @property
    def tokens(self) -> npt.NDArray[np.int32]:
        """Token ids, `[n]`."""

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """Loss weight of each token as a target, `[n]`."""


@dataclass
class Batch:
    """Rows of packed documents; what a row has left is padding of weight 0."""

    tokens: Tensor
    """Inputs, int64 `[B, L]`."""
    targets: Tensor
    """The token after each input in the same document, int64 `[B, L]`."""
    weights: Tensor
    """Loss weight of each target, float32 `[B, L]`."""
    positions: Tensor
    """Position inside the document, int64 `[B, L]`."""
    leaf: Tensor
    """Index of the stream that the position is from, int64 `[B, L]`; -1 for padding."""
    lengths: list[list[int]]
    """Positions of each document, row by row."""
    weight: float
    """Sum of the weights, float64, known without waiting for a device."""
    documents: list[list[tuple[int, int]]] = field(default_factory=list)
    """(stream index, number in the stream) of each document, row by row."""
    digests: list[int] = field(default_factory=list)
    """Fingerprint of each row (see `mio.core.data.journal.row_digest`)."""
    step: int = 0
    """Index of the optimizer step that the batch belongs to."""
    changes: Changes | None = None
    """On the last batch of a step, what the step changed about the plan of the run. The same on every rank."""

    @property
    def ends_step(self) -> bool:
        """Whether the optimizer steps after this batch."""
        return self.changes is not None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch with its tensors on `device`."""
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=non_blocking) for name in _TENSORS})

    def pin_memory(self) -> Batch:
        """The batch with its tensors in page-locked memory."""
        return replace(self, **{name: getattr(self, name).pin_memory() for name in _TENSORS})


_TENSORS = ("tokens", "targets", "weights", "positions", "leaf")


def assemble(rows: Sequence[Sequence[tuple[int, RenderedDocument]]], context: int, pad: int) -> Batch:
    """Packs rows of (stream index, document) into a batch of `context` positions; `pad` fills what is left."""
    lengths = [[len(document.tokens) - 1 for _, document in row] for row in rows]
    flat = list(chain.from_iterable(rows))
    sizes = np.fromiter(chain.from_iterable(lengths), dtype=np.int64, count=len(flat))
    starts = np.cumsum(sizes) - sizes
    columns = {
        "tokens": (pad, np.int64, np.concatenate([document.tokens[:-1] for _, document in flat])),
        "targets": (pad, np.int64, np.concatenate([document.tokens[1:] for _, document in flat])),
        "weights": (0, np.float32, np.concatenate([document.weights[1:] for _, document in flat])),
        "positions": (0, np.int64, np.arange(sizes.sum()) - np.repeat(starts, sizes)),
        "leaf": (-1, np.int64, np.repeat([leaf for leaf, _ in flat], sizes)),
    }
    borders = np.cumsum([0, *(sum(row) for row in lengths)]).tolist()
    tensors: dict[str, Any] = {}
    for name, (filler, dtype, values) in columns.items():
        grid: npt.NDArray[Any] = np.full((len(rows), context), filler, dtype=dtype)
        for index, (start, stop) in enumerate(pairwise(borders)):
            grid[index, : stop - start] = values[start:stop]
        tensors[name] = torch.from_numpy(grid)
    return Batch(lengths=lengths, weight=float(tensors["weights"].double().sum()), **tensors)
