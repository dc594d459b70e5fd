"""Shares out work on whole matrices among the ranks that hold their parts.

Each matrix has an owner. In a round every rank is sent the parts of the matrix that it owns, and sends what it made of
them back to all that hold a part. With n matrices on N ranks a rank thus works on n / N of them, where gathering each
one everywhere would make every rank work on all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Placement, Replicate

from mio.core.transformer.initial import region

_PIECE = 2**27
"""Elements of other ranks' matrices that a rank sends or is sent at once."""

Box = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Place:
    """A matrix, who works on it, and who has which part of it."""

    index: int
    """Its number among the matrices that are shared out."""
    shape: tuple[int, ...]
    owner: int
    parts: Mapping[int, Box]
    """By rank; where there are copies, several ranks have the same part."""
    sources: tuple[int, ...]
    """The ranks whose parts make up the copy that the owner belongs to."""


@dataclass(frozen=True, eq=False)
class _Leg:
    """What this rank sends and is sent at once: parts by the rank at the other end, in ascending order of ranks."""

    outgoing: list[tuple[int, Place, Box]]
    incoming: list[tuple[int, Place, Box]]

    def carry(self, take: Callable[[Place, Box], Tensor], device: torch.device, dtype: torch.dtype) -> Iterator[Tensor]:
        """Sends the part that `take` finds for each outgoing entry; gives those that came in, flat. A collective."""
        sent = [take(place, box).reshape(-1).to(dtype) for _, place, box in self.outgoing]
        buffer = torch.cat(sent) if sent else torch.empty(0, dtype=dtype, device=device)
        sizes = [_elements(box) for _, _, box in self.incoming]
        received = torch.empty(sum(sizes), dtype=dtype, device=device)
        dist.all_to_all_single(received, buffer, self._counts(self.incoming), self._counts(self.outgoing))
        return iter(received.split(sizes))

    def _counts(self, entries: Sequence[tuple[int, Place, Box]]) -> list[int]:
        counts = [0] * dist.get_world_size()
        for rank, _, box in entries:
            counts[rank] += _elements(box)
        return counts


@dataclass(frozen=True, eq=False)
class Round:
    """Matrices that are worked on at the same time, about one on each rank."""

    places: list[Place]
    to_owners: list[_Leg]
    from_owners: list[_Leg]

    def gather(self, parts: Mapping[int, Tensor], device: torch.device, dtype: torch.dtype) -> dict[int, Tensor]:
        """The matrices that this rank owns, whole, by index. A collective call.

        Args:
            parts: this rank's parts of all matrices of the round, by index, on `device`.
            device: where everything is.
            dtype: what they travel in and arrive in.
        """
        mine = [place for place in self.places if place.owner == dist.get_rank()]
        wholes = {place.index: torch.empty(place.shape, dtype=dtype, device=device) for place in mine}
        for leg in self.to_owners:
            flat = leg.carry(lambda place, _: parts[place.index], device, dtype)
            for (_, place, box), values in zip(leg.incoming, flat, strict=True):
                part = wholes[place.index][box]
                part.copy_(values.view(part.shape))
        return wholes

    def hand_back(
        self, wholes: Mapping[int, Tensor], device: torch.device, dtype: torch.dtype
    ) -> Iterator[tuple[int, Tensor]]:
        """Index and this rank's part of each matrix of the round, as they come. A collective call: use it up.

        Args:
            wholes: the matrices that this rank owns, by index, on `device`.
            device: where everything is.
            dtype: what they travel in and arrive in.
        """
        for leg in self.from_owners:
            flat = leg.carry(lambda place, box: wholes[place.index][box], device, dtype)
            for (_, place, box), values in zip(leg.incoming, flat, strict=True):
                yield place.index, values.view([side.stop - side.start for side in box])


def share_out(matrices: Sequence[Tensor]) -> list[Round]:
    """Who works on which of these split matrices, `DTensor`s; the same on every rank.

    The largest come first, each to the rank with the least to do (Graham 1969, "Bounds on multiprocessing timing
    anomalies"); work is that of a product with the matrix's own transpose.
    """
    rank = dist.get_rank()
    loads: dict[int, list[tuple[float, int]]] = {}
    turns: list[list[Place]] = []
    for index in sorted(range(len(matrices)), key=lambda i: -_work(matrices[i])):
        matrix = cast("DTensor", matrices[index])
        mesh = matrix.device_mesh
        # Tensor parallelism splits some matrices over all ranks and others over those of one of several submeshes,
        # which see no more than their own: loads are kept for each size of mesh, by place in it.
        load = loads.setdefault(mesh.size(), [(0.0, 0)] * mesh.size())
        chosen = min(range(len(load)), key=load.__getitem__)
        work, turn = load[chosen]
        load[chosen] = work + _work(matrix), turn + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(_place(index, matrix, chosen))
    return [
        Round(
            places,
            [_to_owners(piece, rank) for piece in _pieces(places)],
            [_from_owners(piece, rank) for piece in _pieces(places)],
        )
        for places in turns
    ]


def _place(index: int, matrix: DTensor, owner: int) -> Place:
    """`owner` is a place in the matrix's mesh, counted row by row."""
    mesh = matrix.device_mesh
    ranks, placements = mesh.mesh.flatten().tolist(), tuple(matrix.placements)
    coordinates, boxes = _layout(tuple(matrix.shape), tuple(mesh.shape), placements)
    copied = [dim for dim, placement in enumerate(placements) if isinstance(placement, Replicate)]
    sources = tuple(
        rank
        for rank, coordinate in zip(ranks, coordinates, strict=True)
        if all(coordinate[dim] == coordinates[owner][dim] for dim in copied)
    )
    return Place(index, tuple(matrix.shape), ranks[owner], dict(zip(ranks, boxes, strict=True)), sources)


@lru_cache(maxsize=256)
def _layout(
    shape: tuple[int, ...], mesh: tuple[int, ...], placements: tuple[Placement, ...]
) -> tuple[list[tuple[int, ...]], list[Box]]:
    """The coordinates of a mesh, row by row, and the part of a tensor that each of them has."""
    coordinates = list(product(*map(range, mesh)))
    parts = [region(shape, mesh, coordinate, placements) for coordinate in coordinates]
    return coordinates, [
        tuple(slice(at, at + size) for at, size in zip(offset, part, strict=True)) for part, offset in parts
    ]


def _pieces(places: Sequence[Place]) -> Iterator[list[Place]]:
    """The matrices of a round, a few at a time where much of each goes to every rank. The same on every rank."""
    piece: list[Place] = []
    held = 0
    for place in places:
        largest = max(map(_elements, place.parts.values()))
        if piece and held + largest > _PIECE:
            yield piece
            piece, held = [], 0
        piece.append(place)
        held += largest
    yield piece


def _to_owners(places: Sequence[Place], rank: int) -> _Leg:
    outgoing = [(place.owner, place, place.parts[rank]) for place in places if rank in place.sources]
    incoming = [(r, place, place.parts[r]) for place in places if place.owner == rank for r in place.sources]
    return _Leg(sorted(outgoing, key=_peer), sorted(incoming, key=_peer))


def _from_owners(places: Sequence[Place], rank: int) -> _Leg:
    outgoing = [(r, place, box) for place in places if place.owner == rank for r, box in place.parts.items()]
    incoming = [(place.owner, place, place.parts[rank]) for place in places]
    return _Leg(sorted(outgoing, key=_peer), sorted(incoming, key=_peer))


def _peer(entry: tuple[int, Place, Box]) -> int:
    return entry[0]


def _elements(box: Box) -> int:
    return math.prod(side.stop - side.start for side in box)


def _work(matrix: Tensor) -> float:
    return float(matrix.shape[0] * matrix.shape[1] * min(matrix.shape))
