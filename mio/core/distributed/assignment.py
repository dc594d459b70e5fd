"""Shares out work on whole matrices among the ranks that hold their parts.

Each matrix has an owner. In a round every rank is sent the parts of the matrix that it owns, and sends back what it
made of them. With n matrices on N ranks a rank thus works on n / N of them, where gathering each one everywhere would
make every rank work on all. Where there are copies of the parameters (hybrid sharding), an owner deals with the ranks
of its own copy, and these pass their parts on to the other copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Placement, Replicate

from mio.core.distributed.regions import region

Box = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Place:
    """A matrix, who works on it, and who has which part of it."""

    index: int
    """Its number among the matrices that are shared out."""
    shape: tuple[int, ...]
    owner: int
    parts: Mapping[int, Box]
    """By rank, of the copy that the owner belongs to."""
    sources: tuple[int, ...]
    """Ranks of that copy whose parts make up the matrix."""
    part: Box
    """This rank's, of whichever copy."""
    copies: Any
    """Process group of the ranks that have the same part, one of each copy; None without copies."""
    root: int
    """The one among them that belongs to the owner's copy."""


_Entry = tuple[int, Place, Box]
"""The rank at the other end, a matrix, and the part of it that is sent."""


@dataclass(frozen=True, eq=False)
class _Leg:
    """What this rank sends and is sent at once, by ascending rank of the other end."""

    outgoing: list[_Entry]
    incoming: list[_Entry]

    def carry(
        self, take: Callable[[Place, Box], Tensor], device: torch.device, dtype: torch.dtype
    ) -> dict[Any, Tensor]:
        """Sends what `take` finds for each outgoing entry; what came in, flat, by (rank, index). A collective call."""
        sent = [take(place, box).reshape(-1).to(dtype) for _, place, box in self.outgoing]
        buffer = torch.cat(sent) if sent else torch.empty(0, dtype=dtype, device=device)
        sizes = [_elements(box) for _, _, box in self.incoming]
        received = torch.empty(sum(sizes), dtype=dtype, device=device)
        dist.all_to_all_single(received, buffer, _counts(self.incoming), _counts(self.outgoing))
        keys = [(rank, place.index) for rank, place, _ in self.incoming]
        return dict(zip(keys, received.split(sizes), strict=True))


@dataclass(frozen=True, eq=False)
class Round:
    """Matrices that are worked on at the same time, about one on each rank."""

    places: list[Place]
    to_owners: _Leg
    from_owners: _Leg

    def gather(self, parts: Mapping[int, Tensor], device: torch.device, dtype: torch.dtype) -> dict[int, Tensor]:
        """The matrices that this rank owns, whole, by index. A collective call.

        Args:
            parts: this rank's parts of all matrices of the round, by index, on `device`.
            device: where everything is.
            dtype: what they travel in and arrive in.
        """
        arrived = self.to_owners.carry(lambda place, _: parts[place.index], device, dtype)
        wholes: dict[int, Tensor] = {}
        for rank, place, box in self.to_owners.incoming:
            if place.index not in wholes:
                wholes[place.index] = torch.empty(place.shape, dtype=dtype, device=device)
            part = wholes[place.index][box]
            part.copy_(arrived[rank, place.index].view(part.shape))
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
        arrived = self.from_owners.carry(lambda place, box: wholes[place.index][box], device, dtype)
        for place in self.places:
            part = arrived.get((place.owner, place.index))
            if part is None:
                part = torch.empty(_elements(place.part), dtype=dtype, device=device)
            if place.copies is not None and len(part):
                dist.broadcast(part, place.root, group=place.copies)
            yield place.index, part.view([side.stop - side.start for side in place.part])


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
        size = matrix.device_mesh.size()
        # Tensor parallelism splits some matrices over all ranks and others over those of one of several submeshes,
        # which see no more than their own: loads are kept for each size of mesh, by place in it.
        load = loads.setdefault(size, [(0.0, 0)] * size)
        chosen = min(range(size), key=load.__getitem__)
        work, turn = load[chosen]
        load[chosen] = work + _work(matrix), turn + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(_place(index, matrix, chosen, rank))
    return [Round(places, _to_owners(places, rank), _from_owners(places, rank)) for places in turns]


def _place(index: int, matrix: DTensor, owner: int, rank: int) -> Place:
    """`owner` is a place in the matrix's mesh, counted row by row."""
    mesh, shape, placements = matrix.device_mesh, tuple(matrix.shape), tuple(matrix.placements)
    ranks = mesh.mesh.flatten().tolist()
    coordinates, boxes = _layout(shape, tuple(mesh.shape), placements)
    at, mine = coordinates[owner], coordinates[ranks.index(rank)]
    copied = [dim for dim, placement in enumerate(placements) if isinstance(placement, Replicate)]
    copy = next((dim for dim in copied if mesh.shape[dim] > 1), None)
    members = [place for place, coordinate in enumerate(coordinates) if copy is None or coordinate[copy] == at[copy]]
    root = mine if copy is None else (*mine[:copy], at[copy], *mine[copy + 1 :])
    return Place(
        index,
        shape,
        ranks[owner],
        {ranks[place]: boxes[place] for place in members},
        tuple(ranks[place] for place in members if all(coordinates[place][dim] == at[dim] for dim in copied)),
        boxes[ranks.index(rank)],
        None if copy is None else mesh.get_group(copy),
        ranks[coordinates.index(root)],
    )


@lru_cache(maxsize=256)
def _layout(
    shape: tuple[int, ...], mesh: tuple[int, ...], placements: tuple[Placement, ...]
) -> tuple[list[tuple[int, ...]], list[Box]]:
    """The coordinates of a mesh, row by row, and the part of a tensor that each of them has."""
    coordinates = list(product(*map(range, mesh)))
    parts = [region(shape, mesh, coordinate, placements) for coordinate in coordinates]
    return coordinates, [
        tuple(slice(start, start + size) for start, size in zip(offset, part, strict=True)) for part, offset in parts
    ]


def _to_owners(places: Iterable[Place], rank: int) -> _Leg:
    outgoing = [(place.owner, place, place.part) for place in places if rank in place.sources]
    incoming = [(source, place, place.parts[source]) for place in _owned(places, rank) for source in place.sources]
    return _Leg(sorted(outgoing, key=_rank), sorted(incoming, key=_rank))


def _from_owners(places: Iterable[Place], rank: int) -> _Leg:
    outgoing = [(member, place, box) for place in _owned(places, rank) for member, box in place.parts.items()]
    incoming = [(place.owner, place, place.part) for place in places if rank in place.parts]
    return _Leg(sorted(outgoing, key=_rank), sorted(incoming, key=_rank))


def _owned(places: Iterable[Place], rank: int) -> list[Place]:
    return [place for place in places if place.owner == rank]


def _rank(entry: _Entry) -> int:
    return entry[0]


def _counts(entries: Sequence[_Entry]) -> list[int]:
    counts = [0] * dist.get_world_size()
    for rank, _, box in entries:
        counts[rank] += _elements(box)
    return counts


def _elements(box: Box) -> int:
    return math.prod(side.stop - side.start for side in box)


def _work(matrix: Tensor) -> float:
    return float(matrix.shape[0] * matrix.shape[1] * min(matrix.shape))
