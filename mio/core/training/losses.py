"""What a forward pass gives to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor


class PassLosses(NamedTuple):
    """Losses of a batch of B rows of L positions."""

    total: Tensor
    """Scalar: the sum of weight x loss, of tokens and of what heads learn."""
    nll: Tensor
    """float32 `[B, L]`, detached: cross-entropy of each target."""
    heads: Mapping[str, Tensor] = MappingProxyType({})
    """float32 `[N]` by modality, detached: the loss of each item that a head learns to make. Of a modality without
    items in the batch, that of the dummy."""
