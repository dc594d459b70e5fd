"""What a plugin supplies to have media made by a network on top of the model, which has a loss of its own.

A span that is written then is `<begin>`, positions of the head's own if it has any, the positions of the modality's
encoder if there is one, by which what follows reads the item, and `<end>` if it is declared. The head's own positions
see everything before them and each other; nothing else sees them, and they take no place: what follows is at the
positions that it would have without them.

Shapes: N items, S positions of the heads' own, of all items together, C positions of a context, M items whose maps are
given, D width of the transformer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from mio.core.contract.encoders import Arrays
else:
    Arrays = Tensor = Any  # heads are declared without loading NumPy and torch


class HeadItems(NamedTuple):
    """Items that are learnt in one forward pass, packed: what `target` and `noise` gave, one item after the other."""

    arrays: Mapping[str, Tensor]
    """`[sum of lengths, ...]` by name: each item's array joined along the first axis."""
    lengths: Mapping[str, Sequence[int]]
    """Length of each item's array along that axis, `[N]` by name. Plain numbers: reading them waits for no device."""
    positions: Sequence[int]
    """The head's own positions of each item, `[N]`."""
    dropped: Tensor
    """bool `[N]`: items that are learnt without what they are conditioned on."""


class Condition(NamedTuple):
    """What items are conditioned on."""

    context: Tensor
    """`[N, C, D]`: hidden states of the positions before each item in its document, the newest first, which is the
    token that opens its span. At most as many as `Head.context`."""
    context_mask: Tensor
    """bool `[N, C]`: false where a document has no more positions."""
    own: Tensor
    """`[S, D]`: hidden states of the head's own positions."""
    maps: Mapping[str, tuple[Tensor, Tensor]]
    """By modality of `Head.maps`: maps `[N, M, cells, channels]` of the items before each one in its document, the
    newest first, and bool `[N, M]`, false where there are no more."""


class Sampling(NamedTuple):
    """How items are made."""

    seeds: Sequence[int]
    """`[N]`: everything random about an item follows from its own."""
    steps: int = 0
    """Of the sampler; 0: as many as the head takes by itself."""
    guidance: float = 0.0
    """Weight of classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598); 1: none, 0: the head's own."""


Run = Callable[[Tensor, bool], Tensor]
"""`run(embeddings [N, S / N, D], dropped)`: hidden states of the heads' own positions behind their contexts, or, if
`dropped`, without them."""


@runtime_checkable
class Head(Protocol):
    """How items of one modality are learnt and made. Called once per process.

    It may also have `weights()`, as an encoder may.
    """

    fingerprint: str
    """Changes whenever `positions`, `target`, `noise`, or the parameters of `module` could."""
    context: int
    """Positions before an item whose hidden states the network is given, at most; 0: none."""
    maps: Mapping[str, int]
    """Modalities whose encoder's maps the network is given, each with the number of items."""
    drop: float
    """Share of items that are learnt without their condition, for classifier-free guidance. Own positions of such an
    item see each other alone; what else it is conditioned on, the network replaces (`HeadItems.dropped`)."""
    writes: int
    """Own positions of an item that is made."""

    def positions(self, media: Any) -> int:
        """Own positions of an item, 0 or more, without running a network and without torch. `media` is what the data
        module's `read` gives of a file, or its `probe`."""

    def target(self, media: Any) -> Arrays:
        """Arrays by name of what is learnt of an item, in the data workers and without torch."""

    def noise(self, target: Arrays, random: np.random.Generator) -> Arrays:
        """Arrays by further names of all that is random about learning an item: noise, and how much of it there is.
        Drawn where a batch is assembled, from the fingerprint of its row: a resumed run draws the same."""

    def example(self) -> Any:
        """Media as `read` gives them, as large as any that is made: what the encoder's `positions` says of it is the
        room that an item has to have in an answer. Where a forward pass holds no item of the modality the network runs
        on its target, and the result counts 0 times. Without running a network and without torch."""

    def module(self, width: int) -> nn.Module:
        """The network: `forward(condition: Condition, items: HeadItems, kept) -> float32 [N]`, the loss of each item, a
        mean over its elements; and `sample(condition, sampling: Sampling, run: Run) -> list`, media as `read` gives
        them. `run` is None for a head without own positions.

        One with own positions has `inputs(items: HeadItems) -> (embeddings [S, D], kept)` too, the embeddings that its
        positions begin with, and anything that `forward` needs again (None, or tuples, lists and mappings of tensors).

        Made and called as the network of an encoder is (see `Encoder.module`); an item's loss and media do not depend
        on other items.
        """

    def save(self, media: Any, stem: Path) -> Path:
        """Writes media to `stem` plus the format's suffix; returns the path written."""
