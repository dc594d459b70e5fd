"""Media that heads learn to make, as a batch brings them: what is learnt, what is drawn, and what it is conditioned on.

N items of a modality, S positions of the head's own of all of them, C positions of a context, M items before one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mio.core.contract.encoders import Arrays
from mio.core.contract.heads import HeadItems
from mio.core.data.document_mask import Together
from mio.core.data.items import SeenMaps, joined, prepared
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.item_heads import ItemHead
from mio.core.tokens.rendered import Made, Rendered

_NONE = -1


class Placed(NamedTuple):
    """A document in its place in a batch."""

    row: int
    start: int
    """Its first position in the row."""
    size: int
    """Its positions."""
    document: Rendered


@dataclass(frozen=True)
class MadeItems:
    """The items of one modality that are learnt in one forward pass."""

    input: HeadItems
    places: Tensor
    """int64 `[S]`: row * L + position, of each of the head's own positions in turn."""
    context: Tensor
    """int64 `[N, C]`: row * L + position of what comes before each item, the newest first; -1 where there is no more.
    """
    maps: Mapping[str, Tensor]
    """By modality, int64 `[N, M]`: numbers, in the pass, of the items before each one whose maps are given; -1 for
    none."""
    weights: Tensor
    """float32 `[N]`: what the loss of each item counts; 0 of a dummy."""
    openings: Sequence[int] = ()
    """row * L + position, of the token that opens the span of each item. Plain numbers; none of a dummy."""
    dummy: bool = False
    """Whether no item of the modality is in the pass: the head runs, and its result counts 0 times."""

    @property
    def nbytes(self) -> int:
        """Of the arrays."""
        return sum(array.nbytes for array in self.input.arrays.values())

    def lose(self, first: int, end: int) -> None:
        """Takes the weight of what is between these positions (row * L + position), in place, on the CPU."""
        lost = [number for number, opening in enumerate(self.openings) if first <= opening < end]
        self.weights[lost] = 0

    def change(self, function: Callable[[Tensor], Any]) -> MadeItems:
        """The items with the results of `function` in place of their tensors."""
        arrays = {name: function(array) for name, array in self.input.arrays.items()}
        return replace(
            self,
            input=self.input._replace(arrays=arrays, dropped=function(self.input.dropped)),
            places=function(self.places),
            context=function(self.context),
            maps={name: function(numbers) for name, numbers in self.maps.items()},
            weights=function(self.weights),
        )


class _Item(NamedTuple):
    """An item that is learnt, with all that is known of it before it is packed."""

    opening: int
    arrays: Arrays
    dropped: bool
    own: npt.NDArray[np.int64]
    context: npt.NDArray[np.int64]
    maps: Mapping[str, Sequence[int]]
    weight: float


def drawing(digest: int, number: int) -> np.random.Generator:
    """What is random about learning an item: of the fingerprint of its row and of its number in the row."""
    key = hashlib.blake2b(f"{digest}/{number}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key, "<u8")))


def pack_made(
    placed: Sequence[Placed], context: int, codecs: Codecs, digests: Sequence[int]
) -> tuple[dict[str, MadeItems], list[Together]]:
    """Items by modality, of documents in rows of `context` positions with these fingerprints, with a dummy where there
    is none; and the heads' own positions, as attention treats them."""
    items: dict[str, list[_Item]] = {name: [] for name in codecs.makers}
    together: list[Together] = []
    numbers: dict[str, int] = {}
    """Items of each modality that encoders read, so far."""
    counts = [0] * len(digests)
    for row, start, size, document in placed:
        seen = _numbered(document, size, numbers)
        common = _common(document, size)
        for made in document.made:
            if made.end > size:
                continue  # the last position of a document is no input
            maker = codecs.makers[made.modality]
            random = drawing(digests[row], counts[row])
            counts[row] += 1
            dropped = bool(random.random() < maker.head.drop)
            target = made.arrays if made.arrays is not None else codecs.target(made.media)
            first = row * context + start
            before = common[common <= made.opening][::-1][: maker.head.context]
            own = np.arange(made.opening + 1, made.end)
            items[made.modality].append(
                _Item(
                    first + made.opening, maker.drawn(target, random), dropped, first + own, first + before,
                    _before(seen, made, maker), made.weight,
                )
            )  # fmt: skip
            if len(own):
                together.append(Together(row, start + int(own[0]), start + made.end, private=True, dropped=dropped))
    return {name: _packed(codecs.makers[name], of) for name, of in items.items()}, together


def _numbered(document: Rendered, size: int, numbers: dict[str, int]) -> list[tuple[str, int, int]]:
    """(modality, first position, number in the pass) of what encoders read of a document; counts it in `numbers`."""
    seen = []
    for item in document.items:
        if item.end <= size:
            seen.append((item.modality, item.first, numbers.get(item.modality, 0)))
            numbers[item.modality] = numbers.get(item.modality, 0) + 1
    return seen


def _common(document: Rendered, size: int) -> npt.NDArray[np.int64]:
    """Positions of a document that are no head's own."""
    shown = np.ones(size, bool)
    for made in document.made:
        shown[made.opening + 1 : made.end] = False
    return np.flatnonzero(shown)


def _before(seen: Sequence[tuple[str, int, int]], made: Made, maker: ItemHead) -> dict[str, Sequence[int]]:
    """Numbers of the items whose maps an item is conditioned on, the newest first."""
    return {
        name: [number for modality, first, number in reversed(seen) if modality == name and first < made.opening][:most]
        for name, most in maker.head.maps.items()
    }


def _packed(maker: ItemHead, items: Sequence[_Item]) -> MadeItems:
    if not items:
        # of the first position of all: what is computed of it counts for nothing, and is no mean of nothing
        own_places, context = (np.zeros(size, np.int64) for size in (maker.head.writes, min(1, maker.head.context)))
        dummy = _Item(0, maker.dummy_drawn, False, own_places, context, dict.fromkeys(maker.head.maps, ()), 0.0)
        return replace(_joined(maker, [dummy]), openings=(), dummy=True)
    return _joined(maker, items)


def _joined(maker: ItemHead, items: Sequence[_Item]) -> MadeItems:
    own = [len(item.own) for item in items]
    input = joined([item.arrays for item in items], own)
    return MadeItems(
        HeadItems(dict(input.arrays), dict(input.lengths), own, torch.tensor([item.dropped for item in items])),
        torch.from_numpy(np.concatenate([item.own for item in items])),
        _filled([item.context for item in items]),
        {name: _filled([item.maps[name] for item in items]) for name in maker.head.maps},
        torch.tensor([item.weight for item in items], dtype=torch.float32),
        [item.opening for item in items],
    )


def _filled(lists: Sequence[Sequence[int] | npt.NDArray[np.int64]]) -> Tensor:
    """int64 `[N, most]`: lists of unequal length, filled up with -1."""
    grid = np.full((len(lists), max(map(len, lists))), _NONE, np.int64)
    for row, values in zip(grid, lists, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(grid)


def change_made(made: Mapping[str, MadeItems], function: Callable[[Tensor], Any]) -> dict[str, MadeItems]:
    """The items of all modalities with the results of `function` in place of their tensors."""
    return {name: one.change(function) for name, one in made.items()}


def shifted(document: Rendered, size: int) -> npt.NDArray[np.int64]:
    """The positions of a document, `[size]`: a head's own take no place, so that what follows has the positions that
    it would have without them."""
    positions = np.arange(size)
    for made in document.made:
        positions[made.end :] -= made.positions
    return positions


def prepared_document(document: Rendered, codecs: Codecs) -> Rendered:
    """A document with the arrays of its items: of what encoders read, and of what heads learn. A file of which both
    need something is read once. Raises as `Codecs.prepare` and `Codecs.target`."""
    read = {id(item.media) for item in document.items}
    opened = {id(one.media): codecs.opened(one.media) for one in document.made if id(one.media) in read}
    made = tuple(one._replace(arrays=codecs.target(opened.get(id(one.media), one.media))) for one in document.made)
    items = (item._replace(media=opened.get(id(item.media), item.media)) for item in document.items)
    return replace(document, items=prepared(tuple(items), codecs), made=made)


def read_together(placed: Sequence[Placed], codecs: Codecs) -> Iterator[Together]:
    """Positions of items that encoders read and that see each other."""
    for row, start, size, document in placed:
        for item in document.items:
            if item.end <= size and codecs.readers[item.modality].together:
                yield Together(row, start + item.first, start + item.end)


def seen_maps(placed: Sequence[Placed], modality: str, rows: int) -> SeenMaps:
    """Who sees the maps of a modality's items: the positions of their documents from their own first one on."""
    of_rows: list[list[tuple[int, int, int]]] = [[] for _ in range(rows)]
    number = 0
    for row, start, size, document in placed:
        for item in document.items:
            if item.modality == modality and item.end <= size:
                of_rows[row].append((number, start + item.first, start + size))
                number += 1
    most = max(1, *map(len, of_rows))
    grid = np.zeros((3, rows, most), np.int64)
    grid[0] = _NONE
    for row, seen in enumerate(of_rows):
        for place, values in enumerate(seen):
            grid[:, row, place] = values
    return SeenMaps(*map(torch.from_numpy, grid))
