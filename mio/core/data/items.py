"""Media that encoders read, as a batch brings them: prepared in the data workers, packed by modality.

S positions of all items of a modality together.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mio.core.contract.encoders import Arrays, EncoderInput
from mio.core.contract.values import Media
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendered import Item


@dataclass(frozen=True)
class SeenMaps:
    """Which items' maps the positions of each row see. M is the number of items of the row that has most, or 1."""

    items: Tensor
    """int64 `[B, M]`: number of the item in the pass; -1 where a row has no more."""
    first: Tensor
    """int64 `[B, M]`: the position of the row from which on the item is seen."""
    end: Tensor
    """int64 `[B, M]`: behind the last position that sees it, its document's."""

    def visible(self, length: int) -> Tensor:
        """bool `[B, length, M]`: whether a position sees an item."""
        position = torch.arange(length, device=self.first.device)[:, None]
        return (self.first[:, None] <= position) & (position < self.end[:, None])

    def change(self, function: Callable[[Tensor], Any]) -> SeenMaps:
        """The same with the results of `function` in place of the tensors."""
        return SeenMaps(function(self.items), function(self.first), function(self.end))


@dataclass(frozen=True)
class EncoderItems:
    """The items of one modality in one forward pass, and where their embeddings go."""

    input: EncoderInput
    places: Tensor
    """int64 `[S]`: row * L + position, of each position in turn. Empty where the input is a dummy."""
    dummy: bool = False
    """Whether no item of the modality is in the pass: the encoder runs, and its result counts 0 times."""
    seen: SeenMaps | None = None
    """Of packed documents, who sees the items' maps, where there are maps."""

    @property
    def nbytes(self) -> int:
        """Of the arrays."""
        return sum(array.nbytes for array in self.input.arrays.values())

    def change(self, function: Callable[[Tensor], Any]) -> EncoderItems:
        """The items with the results of `function` in place of their tensors."""
        seen = self.seen.change(function) if self.seen is not None else None
        return replace(self, places=function(self.places), input=self.input.change(function), seen=seen)


def prepared(items: Sequence[Item], codecs: Codecs) -> tuple[Item, ...]:
    """Items with their arrays. Raises as `Codecs.prepare`."""
    return tuple(
        item if item.arrays is not None else item._replace(arrays=codecs.prepare(item.media)) for item in items
    )


def pack_items(placed: Iterable[tuple[int, Item]], codecs: Codecs, dummies: bool = False) -> dict[str, EncoderItems]:
    """Items by modality, of documents that begin at these flat positions (row * L + position).

    `dummies`: with what encoders run on where there is no item of theirs, in training.
    """
    by_modality: dict[str, list[tuple[int, Item]]] = {name: [] for name in codecs.readers}
    for start, item in placed:
        by_modality[item.modality].append((start + item.first, item))
    packed = {}
    for name, items in by_modality.items():
        if items:
            arrays = [item.arrays if item.arrays is not None else codecs.prepare(item.media) for _, item in items]
            positions = [item.positions for _, item in items]
            places = np.concatenate([np.arange(start, start + item.positions) for start, item in items])
            packed[name] = EncoderItems(joined(arrays, positions), torch.from_numpy(places))
        elif dummies:
            empty = torch.zeros(0, dtype=torch.int64)
            packed[name] = EncoderItems(joined([codecs.dummy(name)], [0]), empty, dummy=True)
    return packed


def joined(items: Sequence[Arrays], positions: Sequence[int]) -> EncoderInput:
    """Items one after the other, each array by name, with the positions of each."""
    arrays: dict[str, Tensor] = {}
    lengths: dict[str, Sequence[int]] = {}
    for name in items[0]:
        lengths[name] = [len(item[name]) for item in items]
        arrays[name] = torch.from_numpy(np.concatenate([np.asarray(item[name]) for item in items]))
    return EncoderInput(arrays, lengths, list(positions))


def change_items(items: Mapping[str, EncoderItems], function: Callable[[Tensor], Any]) -> dict[str, EncoderItems]:
    """The items of all modalities with the results of `function` in place of their tensors."""
    return {name: one.change(function) for name, one in items.items()}


def items_to_json(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Prepared items of a document as values that JSON can hold, for ranks that decode together. Of the media there is
    the name alone."""
    return [
        {
            "modality": item.modality,
            "first": item.first,
            "positions": item.positions,
            "key": item.media.key,
            "arrays": {name: _bytes(np.asarray(array)) for name, array in (item.arrays or {}).items()},
        }
        for item in items
    ]


def items_from_json(content: Sequence[Mapping[str, Any]]) -> tuple[Item, ...]:
    """What `items_to_json` was given."""
    items = []
    for one in content:
        arrays = {name: _array(array) for name, array in one["arrays"].items()}
        media = Media(one["modality"], None, one["key"])
        items.append(Item(one["modality"], one["first"], one["positions"], media, arrays))
    return tuple(items)


def _bytes(array: np.ndarray) -> list[Any]:
    array = np.ascontiguousarray(array)
    return [array.dtype.str, list(array.shape), base64.b64encode(array.data).decode()]


def _array(content: Sequence[Any]) -> np.ndarray:
    kind, shape, encoded = content
    return np.frombuffer(bytearray(base64.b64decode(encoded)), np.dtype(kind)).reshape(shape)
