"""Assigns whole matrices to ranks that hold parts of them: each is gathered on one rank and scattered from there.

With n matrices on N ranks a rank thus works on n / N of them, where gathering each one everywhere would make every rank
work on all. In a round each rank is assigned about one matrix. Where there are replicas of the parameters (hybrid
sharding), the matrix is exchanged within the replica of the assigned rank, whose ranks broadcast their parts to the
other replicas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from operator import itemgetter
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Placement, Replicate

from mio.core.distributed.regions import region

Box = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Assignment:
    """A matrix, the rank that works on it, and which rank has which part of it."""

    index: int
    """Its number among the matrices that are assigned."""
    shape: tuple[int, ...]
    rank: int
    """The one that works on it."""
    parts: Mapping[int, Box]
    """By rank, of the replica that the assigned rank belongs to."""
    sources: tuple[int, ...]
    """Ranks of that replica whose parts make up the matrix."""
    part: Box
    """This rank's, of whichever replica."""
    replicas: Any
    """Process group of the ranks that have the same part, one of each replica; None without replicas."""
    root: int
    """The one among them that belongs to the assigned rank's replica."""


_Message = tuple[int, Assignment, Box]
"""The rank at the other end, a matrix, and the part of it that is sent."""


@dataclass(frozen=True, eq=False)
class _Exchange:
    """An all-to-all: what this rank sends and receives, by ascending rank of the other end."""

    outgoing: list[_Message]
    incoming: list[_Message]

    def run(
        self, part: Callable[[Assignment, Box], Tensor], device: torch.device, dtype: torch.dtype
    ) -> dict[tuple[int, int], Tensor]:
        """Sends `part` of each outgoing message; what was received, flat, by (rank, index). A collective call."""
        parts = [part(matrix, box).reshape(-1).to(dtype) for _, matrix, box in self.outgoing]
        buffer = torch.cat(parts) if parts else torch.empty(0, dtype=dtype, device=device)
        sizes = [_elements(box) for _, _, box in self.incoming]
        received = torch.empty(sum(sizes), dtype=dtype, device=device)
        dist.all_to_all_single(received, buffer, _counts(self.incoming), _counts(self.outgoing))
        keys = [(rank, matrix.index) for rank, matrix, _ in self.incoming]
        return dict(zip(keys, received.split(sizes), strict=True))


@dataclass(frozen=True, eq=False)
class Round:
    """Matrices that are worked on at the same time, about one on each rank."""

    matrices: list[Assignment]
    _to_assigned: _Exchange
    _from_assigned: _Exchange

    def gather(self, parts: Mapping[int, Tensor], device: torch.device, dtype: torch.dtype) -> dict[int, Tensor]:
        """The matrices that this rank is assigned, whole, by index. A collective call.

        Args:
            parts: this rank's parts of all matrices of the round, by index, on `device`.
            device: where everything is.
            dtype: what they travel in and arrive in.
        """
        received = self._to_assigned.run(lambda matrix, _: parts[matrix.index], device, dtype)
        wholes: dict[int, Tensor] = {}
        for rank, matrix, box in self._to_assigned.incoming:
            if matrix.index not in wholes:
                wholes[matrix.index] = torch.empty(matrix.shape, dtype=dtype, device=device)
            part = wholes[matrix.index][box]
            part.copy_(received[rank, matrix.index].view(part.shape))
        return wholes

    def scatter(
        self, wholes: Mapping[int, Tensor], device: torch.device, dtype: torch.dtype
    ) -> Iterator[tuple[int, Tensor]]:
        """Index and this rank's part of each matrix of the round, one by one. A collective call: use it up.

        Args:
            wholes: the matrices that this rank is assigned, by index, on `device`.
            device: where everything is.
            dtype: what they travel in and arrive in.
        """
        received = self._from_assigned.run(lambda matrix, box: wholes[matrix.index][box], device, dtype)
        for matrix in self.matrices:
            part = received.get((matrix.rank, matrix.index))
            if part is None:
                part = torch.empty(_elements(matrix.part), dtype=dtype, device=device)
            if matrix.replicas is not None and len(part):
                dist.broadcast(part, matrix.root, group=matrix.replicas)
            yield matrix.index, part.view([side.stop - side.start for side in matrix.part])


def assign(matrices: Sequence[Tensor]) -> list[Round]:
    """Which rank works on which of these split matrices, `DTensor`s; the same on every rank.

    The largest come first, each to the rank with the least to do (Graham 1969, "Bounds on multiprocessing timing
    anomalies"); work is that of a product with the matrix's own transpose.
    """
    rank = dist.get_rank()
    loads: dict[tuple[int, ...], list[tuple[float, int]]] = {}
    rounds: list[list[Assignment]] = []
    for index in sorted(range(len(matrices)), key=lambda i: -_work(matrices[i])):
        matrix = cast("DTensor", matrices[index])
        ranks = tuple(matrix.device_mesh.mesh.flatten().tolist())
        # Tensor parallelism splits some matrices over all ranks and others over those of one of several submeshes,
        # which see no more than their own: loads are kept for each mesh, by position in it. Where experts are split,
        # all ranks see the matrices of all of them, so that they have the same number of rounds.
        load = loads.setdefault(ranks, [(0.0, 0)] * len(ranks))
        position = min(range(len(ranks)), key=load.__getitem__)
        work, number = load[position]
        load[position] = work + _work(matrix), number + 1
        if number == len(rounds):
            rounds.append([])
        if rank in ranks:
            rounds[number].append(_assignment(index, matrix, position, rank))
    return [Round(members, _to_assigned(members, rank), _from_assigned(members, rank)) for members in rounds]


def _assignment(index: int, matrix: DTensor, position: int, rank: int) -> Assignment:
    """`position` is that of the assigned rank in the matrix's mesh, counted row by row."""
    mesh, shape, placements = matrix.device_mesh, tuple(matrix.shape), tuple(matrix.placements)
    ranks = mesh.mesh.flatten().tolist()
    coordinates, boxes = _coordinates_and_boxes(shape, tuple(mesh.shape), placements)
    assigned, own = coordinates[position], coordinates[ranks.index(rank)]
    replicated = [dim for dim, placement in enumerate(placements) if isinstance(placement, Replicate)]
    copy = next((dim for dim in replicated if mesh.shape[dim] > 1), None)
    members = [at for at, coordinate in enumerate(coordinates) if copy is None or coordinate[copy] == assigned[copy]]
    root = own if copy is None else (*own[:copy], assigned[copy], *own[copy + 1 :])
    return Assignment(
        index,
        shape,
        ranks[position],
        {ranks[at]: boxes[at] for at in members},
        tuple(ranks[at] for at in members if all(coordinates[at][dim] == assigned[dim] for dim in replicated)),
        boxes[ranks.index(rank)],
        None if copy is None else mesh.get_group(copy),
        ranks[coordinates.index(root)],
    )


@lru_cache(maxsize=256)
def _coordinates_and_boxes(
    shape: tuple[int, ...], mesh: tuple[int, ...], placements: tuple[Placement, ...]
) -> tuple[list[tuple[int, ...]], list[Box]]:
    """The coordinates of a mesh, row by row, and the part of a tensor that each of them has."""
    coordinates = list(product(*map(range, mesh)))
    parts = [region(shape, mesh, coordinate, placements) for coordinate in coordinates]
    return coordinates, [
        tuple(slice(start, start + size) for start, size in zip(offset, part, strict=True)) for part, offset in parts
    ]


def _to_assigned(matrices: Sequence[Assignment], rank: int) -> _Exchange:
    outgoing = [(matrix.rank, matrix, matrix.part) for matrix in matrices if rank in matrix.sources]
    incoming = [(source, own, own.parts[source]) for own in _of_rank(matrices, rank) for source in own.sources]
    return _Exchange(sorted(outgoing, key=itemgetter(0)), sorted(incoming, key=itemgetter(0)))


def _from_assigned(matrices: Sequence[Assignment], rank: int) -> _Exchange:
    outgoing = [(member, own, box) for own in _of_rank(matrices, rank) for member, box in own.parts.items()]
    incoming = [(matrix.rank, matrix, matrix.part) for matrix in matrices if rank in matrix.parts]
    return _Exchange(sorted(outgoing, key=itemgetter(0)), sorted(incoming, key=itemgetter(0)))


def _of_rank(matrices: Iterable[Assignment], rank: int) -> list[Assignment]:
    return [matrix for matrix in matrices if matrix.rank == rank]


def _counts(messages: Sequence[_Message]) -> list[int]:
    counts = [0] * dist.get_world_size()
    for rank, _, box in messages:
        counts[rank] += _elements(box)
    return counts


def _elements(box: Box) -> int:
    return math.prod(side.stop - side.start for side in box)


def _work(matrix: Tensor) -> float:
    return float(matrix.shape[0] * matrix.shape[1] * min(matrix.shape))
