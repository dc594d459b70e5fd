"""The batch that a training step sees, and its assembly from rendered documents.

Shapes: B rows, L positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mio.core.contract.values import Media
from mio.core.data.document_mask import DocumentMask, Together
from mio.core.data.items import EncoderItems, change_items, pack_items
from mio.core.data.made import MadeItems, Placed, change_made, pack_made, read_together, seen_maps, shifted
from mio.core.data.plan import Changes
from mio.core.data.taught import Taught
from mio.core.data.unreadable import Lost
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendered import Item, Rendered

_ALIGNMENT = 8
"""Bytes of the largest element of a tensor."""


@dataclass(frozen=True)
class Slot:
    """A span whose codes are still to be written into a batch."""

    document: tuple[int, int]
    """(stream index, number in the stream)."""
    row: int
    first: int
    """Position in the row of its document's first token."""
    length: int
    """Positions of the document."""
    start: int
    """Place of the span's first token in the document."""
    media: Media
    """The item, read."""
    view: str

    def write(self, batch: Batch, span: npt.NDArray[np.int32]) -> None:
        """Puts the span's tokens `[n]` into a batch on the CPU. A document of L positions has L + 1 tokens: all but the
        last are inputs, all but the first are targets."""
        tokens, start, end = torch.from_numpy(span), self.start, self.start + len(span)
        inputs, before = min(end, self.length), max(start, 1)
        batch.tokens[self.row, self.first + start : self.first + inputs] = tokens[: inputs - start]
        batch.targets[self.row, self.first + before - 1 : self.first + end - 1] = tokens[before - start :]

    def blank(self, batch: Batch, pad: int) -> None:
        """Makes padding of weight 0 of the whole document."""
        place = slice(self.first, self.first + self.length)
        batch.tokens[self.row, place] = batch.targets[self.row, place] = pad
        batch.weights[self.row, place] = 0
        first = self.row * batch.tokens.shape[1] + self.first
        for made in batch.made.values():
            made.lose(first, first + self.length)


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
    stream: Tensor
    """Index of the stream that the position is from, int64 `[B, L]`; -1 for padding."""
    mask: DocumentMask
    """Which positions may see each other."""
    lengths: list[list[int]]
    """Positions of each document, row by row."""
    weight: float
    """Sum of the weights, those of what heads learn among them, float64, known without waiting for a device."""
    documents: list[list[tuple[int, int]]] = field(default_factory=list)
    """(stream index, number in the stream) of each document, row by row."""
    digests: list[int] = field(default_factory=list)
    """Fingerprint of each row (see `mio.core.data.journal.row_digest`)."""
    step: int = 0
    """Index of the optimizer step that the batch belongs to."""
    changes: Changes | None = None
    """On the last batch of a step, what the step changed about the plan of the run. The same on every rank."""

    controls: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int16))
    """Of targets that belong to a control token its number among the vocabulary's, from 1 on, 0 elsewhere: int16
    `[B, L]`, or `[0]` where there are none."""
    items: dict[str, EncoderItems] = field(default_factory=dict)
    """Media that encoders read, by modality."""
    made: dict[str, MadeItems] = field(default_factory=dict)
    """Media that heads learn to make, by modality."""
    taught: Taught | None = None
    """Documents that are learnt from another model's probabilities, where there is one."""
    waiting: list[Slot] = field(default_factory=list)
    """Spans that are encoded in the training process (see `mio.core.data.drafts`)."""
    lost: list[Lost] = field(default_factory=list)
    """Documents whose media are damaged, padding in their rows."""

    def summed_weight(self) -> float:
        """The sum of the weights, of a batch on the CPU."""
        of_heads = (one.weights for one in self.made.values())
        return sum(float(weights.double().sum()) for weights in (self.weights, *of_heads))

    @property
    def ends_step(self) -> bool:
        """Whether the optimizer steps after this batch."""
        return self.changes is not None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch with its tensors on `device`."""
        return self._change(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch with its tensors in page-locked memory."""
        return self._change(Tensor.pin_memory)

    def _change(self, function: Callable[[Tensor], Any]) -> Batch:
        """The batch with the results of `function` in place of its tensors."""
        names = ("tokens", "targets", "positions", "stream", "weights", "controls")
        changed = {name: function(getattr(self, name)) for name in names}
        items, made = change_items(self.items, function), change_made(self.made, function)
        taught = self.taught and self.taught.change(function)
        return replace(self, **changed, mask=self.mask.change(function), items=items, made=made, taught=taught)

    def __reduce__(self) -> tuple[Any, ...]:
        """As one tensor: each that a worker process hands over costs as much as several hundred thousand bytes."""
        tensors: list[Tensor] = []
        rest = self._change(tensors.append)
        flat = torch.cat([_aligned(_bytes(tensor)) for tensor in tensors])
        return _from_one_tensor, (vars(rest), flat, [(tensor.dtype, tensor.shape) for tensor in tensors])


def _bytes(tensor: Tensor) -> Tensor:
    """Its content. The stride of a tensor of one element may be anything, and `view` wants 1."""
    return tensor.contiguous().as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def _aligned(content: Tensor) -> Tensor:
    """Bytes, filled up so that a tensor of any type may follow."""
    return torch.nn.functional.pad(content, (0, -len(content) % _ALIGNMENT)) if len(content) % _ALIGNMENT else content


def _from_one_tensor(rest: dict[str, Any], flat: Tensor, kinds: list[tuple[torch.dtype, torch.Size]]) -> Batch:
    sizes = [dtype.itemsize * math.prod(shape) for dtype, shape in kinds]
    pieces = flat.split([size + -size % _ALIGNMENT for size in sizes])
    tensors = (
        piece[:size].view(dtype).view(shape) for piece, size, (dtype, shape) in zip(pieces, sizes, kinds, strict=True)
    )
    return Batch(**rest)._change(lambda _: next(tensors))


def assemble(
    rows: Sequence[Sequence[tuple[int, Rendered]]],
    context: int,
    pad: int,
    windows: Sequence[int] = (),
    codecs: Codecs | None = None,
    digests: Sequence[int] = (),
) -> Batch:
    """Packs rows of (stream index, document) into a batch of `context` positions; `pad` fills what is left.

    Args:
        windows: of attention, where it runs on CUDA.
        codecs: have the encoders and heads, where there are any.
        digests: fingerprints of the rows, of which what heads draw follows.
    """
    lengths = [[len(document.tokens) - 1 for _, document in row] for row in rows]
    flat = list(chain.from_iterable(rows))
    sizes = np.fromiter(chain.from_iterable(lengths), dtype=np.int64, count=len(flat))
    columns = {
        "tokens": (pad, np.int64, np.concatenate([document.tokens[:-1] for _, document in flat])),
        "targets": (pad, np.int64, np.concatenate([document.tokens[1:] for _, document in flat])),
        "weights": (0, np.float32, np.concatenate([document.weights[1:] for _, document in flat])),
        "positions": (0, np.int64, _positions(flat, sizes)),
        "stream": (-1, np.int64, np.repeat([stream for stream, _ in flat], sizes)),
    }
    if any(document.controls for _, document in flat):
        columns["controls"] = (0, np.int16, np.concatenate([one.control_numbers()[1:] for _, one in flat]))
    borders = np.cumsum([0, *(sum(row) for row in lengths)]).tolist()
    tensors: dict[str, Any] = {}
    for name, (filler, dtype, values) in columns.items():
        grid: npt.NDArray[Any] = np.full((len(rows), context), filler, dtype=dtype)
        for index, (start, stop) in enumerate(pairwise(borders)):
            grid[index, : stop - start] = values[start:stop]
        tensors[name] = torch.from_numpy(grid)
    items: dict[str, EncoderItems] = {}
    made: dict[str, MadeItems] = {}
    together: list[Together] = []
    if codecs is not None and codecs.kept:
        placed = list(_placed(rows, lengths))
        items = pack_items(_items(placed, context), codecs, dummies=True)
        items |= {name: replace(items[name], seen=seen_maps(placed, name, len(rows))) for name in _mapped(codecs)}
        made, together = pack_made(placed, context, codecs, digests or [0] * len(rows))
        together += read_together(placed, codecs)
    mask = DocumentMask.from_lengths(lengths, context, windows, together)
    batch = Batch(mask=mask, lengths=lengths, weight=0.0, items=items, made=made, **tensors)
    batch.weight = batch.summed_weight()
    return batch


def _positions(flat: Sequence[tuple[int, Rendered]], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions inside of documents, those of all one after the other."""
    if any(document.made for _, document in flat):
        return np.concatenate([shifted(document, size) for (_, document), size in zip(flat, sizes, strict=True)])
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _placed(rows: Sequence[Sequence[tuple[int, Rendered]]], lengths: Sequence[Sequence[int]]) -> Iterator[Placed]:
    for number, (row, sizes) in enumerate(zip(rows, lengths, strict=True)):
        start = 0
        for (_, document), size in zip(row, sizes, strict=True):
            yield Placed(number, start, size, document)
            start += size


def _items(placed: Sequence[Placed], context: int) -> Iterator[tuple[int, Item]]:
    """Items of all documents, each with the flat position at which its document begins."""
    for row, start, size, document in placed:
        yield from ((row * context + start, item) for item in document.items if item.end <= size)


def _mapped(codecs: Codecs) -> list[str]:
    """Modalities whose encoder makes maps."""
    return [name for name, reader in codecs.readers.items() if reader.maps is not None]
