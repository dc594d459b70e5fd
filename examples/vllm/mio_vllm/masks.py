"""The tokens that rows of logits may have, kept as rows of one table on the device of the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mio_vllm.ranges import Ranges

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 256
"""Masks in the table, but for larger batches: answers pass through few states, again and again."""


class Masks:
    """Masks by what they allow, made when they are first needed.

    Args:
        size: ids.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._places: dict[Ranges, int] = {}
        self._table: Tensor | None = None

    def forbidden(self, allowed: Sequence[Ranges], logits: Tensor) -> Tensor:
        """Bool `[len(allowed), V]`, true for tokens that must not come, on the device of the logits `[..., V]`."""
        import torch

        if self._table is None or len(self._table) < len(allowed):
            rows = max(KEPT, 2 * len(allowed))
            self._table = torch.ones(rows, logits.shape[-1], dtype=torch.bool, device=logits.device)
            self._places.clear()
        missing = {ranges for ranges in allowed if ranges not in self._places}
        if len(self._places) + len(missing) > len(self._table):
            self._places.clear()
            missing = set(allowed)
        for ranges in missing:
            self._places[ranges] = place = len(self._places)
            mask = np.ones(logits.shape[-1], dtype=bool)
            for start, stop in ranges:
                mask[start:stop] = False
            self._table[place] = torch.from_numpy(mask).to(logits.device)
        places = torch.tensor([self._places[ranges] for ranges in allowed], device=logits.device)
        return self._table[places]
