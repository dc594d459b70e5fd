"""Documents of a batch that are learnt from what another model says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mio.core.data.document_mask import BLOCK, DocumentMask
from mio.core.tokens.rendered import Rendered


@dataclass(frozen=True)
class Taught:
    """Documents of a batch of B rows of L positions, in one row of N."""

    index: Tensor
    """int64 `[N]`: row * L + position, of each position in turn; -1 is padding."""
    place: Tensor
    """int32 `[B, L]`: where each position of the batch is among the N; -1 of one that is not taught."""
    mask: DocumentMask
    """Of the row of N."""

    def change(self, function: Callable[[Tensor], Any]) -> Taught:
        """The same with the results of `function` in place of the tensors."""
        return Taught(function(self.index), function(self.place), self.mask.change(function))

    def row(self, values: Tensor) -> Tensor:
        """`[1, N]` of `[B, L]`, 0 at padding."""
        chosen = values.flatten()[self.index.clamp(min=0)]
        return torch.where(self.index < 0, 0, chosen)[None]


def can_be_taught(document: Rendered, known: int | None) -> bool:
    """Whether the other model, which knows so many ids (None: all) and has no networks of plugins, can be asked."""
    return not document.items and not document.made and (known is None or int(document.tokens.max()) < known)


def taught_documents(
    chosen: Sequence[Sequence[bool]],
    lengths: Sequence[Sequence[int]],
    context: int,
    windows: Sequence[int] = (),
) -> Taught:
    """The chosen documents of a batch. Of one that has none the shortest is shown to the model, which every rank has to
    run, and is not taught.

    Args:
        chosen: whether each document is taught, row by row.
        lengths: positions of each document.
        context: positions of a row.
        windows: of attention, where it runs on CUDA. N is then a power of two, as kernels are made for a shape.
    """
    every = [
        (whether, row * context + first, length)
        for row, (of_row, sizes) in enumerate(zip(chosen, lengths, strict=True))
        for whether, first, length in zip(of_row, accumulate(sizes, initial=0), sizes, strict=False)
    ]
    taught = [(first, length) for whether, first, length in every if whether]
    seen = taught or [min(((first, length) for _, first, length in every), key=lambda one: one[1])]
    flat = np.concatenate([np.arange(first, first + length) for first, length in seen])
    size = 1 << (max(len(flat), BLOCK) - 1).bit_length() if windows else len(flat)
    index = np.full(size, -1, np.int64)
    index[: len(flat)] = flat
    place = np.full(len(lengths) * context, -1, np.int32)
    if taught:
        place[flat] = np.arange(len(flat), dtype=np.int32)
    mask = DocumentMask.from_lengths([[length for _, length in seen]], size, windows)
    return Taught(torch.from_numpy(index), torch.from_numpy(place.reshape(len(lengths), context)), mask)
