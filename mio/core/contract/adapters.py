"""What a plugin supplies to have layers of the transformer read the maps that an encoder makes of media.

Shapes: B rows, L positions, D width of the transformer, N items, S cells of a map, all of its levels together, C its
channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import nn


@runtime_checkable
class Adapter(Protocol):
    """Networks inside chosen layers, each between the layer's attention and its feed-forward network, that read maps.

    It may also have `weights() -> Mapping[str, Tensor]`: values that parameters and buffers begin with, by
    `LAYER.NAME`, in place of those that the modules draw. Asked once, when a training starts from something that has
    none of these networks.
    """

    fingerprint: str
    """Changes whenever the parameters of `module`, or the layers that have one, could."""
    reads: str
    """Modality whose encoder makes the maps."""

    def layers(self, count: int) -> Sequence[int]:
        """Layers that have such a network, ascending, of a transformer with so many."""

    def module(self, width: int) -> nn.Module:
        """The network of one layer: `forward(hidden [B, L, D], maps [B, N, S, C], visible [B, L, N]) -> [B, L, D]`,
        which is added to `hidden`, and 0 at the beginning.

        `visible`, of truth values, says which of its row's items a position sees: those of its document whose first
        position is not behind it. N is that of the row with the most items, the maps of the others are filled up with
        0 and nobody sees them. So a position's result may depend neither on what it does not see nor on N.
        Made and called as the network of an encoder is (see `Encoder.module`).
        """
