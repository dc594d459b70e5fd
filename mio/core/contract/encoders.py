"""What a plugin supplies to have media read by a network inside the model, in place of codes.

Shapes: N items, S positions of all of them together, D width of the transformer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

    Arrays = Mapping[str, npt.NDArray[np.generic]]
else:
    Arrays = Any  # encoders are declared without loading NumPy


@dataclass(frozen=True)
class EncoderInput:
    """The items of one modality in one forward pass, packed: what `prepare` made of each, one after the other."""

    arrays: Mapping[str, Tensor]
    """`[sum of lengths, ...]` by the names that `prepare` gave: each item's array joined along the first axis."""
    lengths: Mapping[str, Sequence[int]]
    """Length of each item's array along that axis, `[N]` by name. Plain numbers: reading them waits for no device."""
    positions: Sequence[int]
    """Positions of each item, `[N]`, as `positions` said."""

    def change(self, function: Callable[[Tensor], Any]) -> EncoderInput:
        """The input with the results of `function` in place of its tensors."""
        return replace(self, arrays={name: function(array) for name, array in self.arrays.items()})


@runtime_checkable
class Encoder(Protocol):
    """How items of one modality become embeddings of positions. Called once per process; what it makes must not depend
    on other items.

    It may also have

    - `weights() -> Mapping[str, Tensor]`: values that parameters and buffers of `module` begin with, by name, in place
      of those that the module draws: a pretrained checkpoint. Asked once, when a training starts from something that
      has no weights of this encoder.
    - `maps`, a pair (cells, channels), where its network gives maps of the items beside their embeddings, which
      adapters and heads may read.
    - `together`, true where the positions of an item see each other, and not only those before them.
    """

    fingerprint: str
    """Changes whenever `positions`, `prepare`, or the parameters of `module` could."""

    def positions(self, media: Any) -> int:
        """Positions that an item takes, at least 1, without running a network and without torch. `media` is what the
        data module's `read` gives of a file, or its `probe`."""

    def prepare(self, media: Any) -> Arrays:
        """Arrays by name that the network is given of one item, in the data workers and without torch. `media` is what
        `read` gives. Types are kept: bytes stay bytes until they are on their device."""

    def dummy(self) -> Arrays:
        """What `prepare` gives of the smallest item. Where a forward pass holds no item of the modality the network
        runs on it, and the result counts 0 times: devices that share the network's parameters have to run it equally
        often."""

    def module(self, width: int) -> nn.Module:
        """The network: `forward(items: EncoderInput) -> Tensor [S, width]`, the embeddings of all items in order; of an
        encoder that has `maps`, `(embeddings, maps [N, cells, channels])`.

        Made under `torch.device("meta")` for its parameters alone, and on the CPU, with torch's random numbers seeded,
        for the values that parameters and buffers begin with. An item's embeddings are the same whatever other items
        are there: no statistics of the batch, and what is padded is masked. Children of its `nn.ModuleList`s are the
        units of sharding, activation checkpointing and compilation.
        """
