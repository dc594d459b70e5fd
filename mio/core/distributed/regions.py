"""Which part of a tensor a device holds, of one that is split over a mesh."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor, Placement, Shard
from torch.distributed.tensor.placement_types import _StridedShard


def local_region(tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of this device's part of a tensor, and its place in the whole."""
    if not isinstance(tensor, DTensor):
        return tuple(tensor.shape), (0,) * tensor.dim()
    mesh = tensor.device_mesh
    coordinate = mesh.get_coordinate()
    assert coordinate is not None
    return region(tuple(tensor.shape), tuple(mesh.shape), tuple(coordinate), tuple(tensor.placements))


def region(
    shape: tuple[int, ...], mesh: tuple[int, ...], coordinate: tuple[int, ...], placements: tuple[Placement, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of the part that the device at `coordinate` of a mesh has of a tensor, and its place in the whole.

    A dimension is cut into parts of ceil(size / devices) rows, of which the last ones may be short or empty. Where two
    dimensions of the mesh cut the same one, tensor parallelism cuts first and FSDP2 (`_StridedShard`) cuts its parts.
    """
    sizes, offsets = list(shape), [0] * len(shape)
    cuts = [(dim, cut) for dim, cut in enumerate(placements) if isinstance(cut, Shard | _StridedShard)]
    for dim, placement in sorted(cuts, key=lambda item: isinstance(item[1], _StridedShard)):
        size = sizes[placement.dim]
        step = -(-size // mesh[dim])
        start = min(size, coordinate[dim] * step)
        offsets[placement.dim] += start
        sizes[placement.dim] = min(size, start + step) - start
    return tuple(sizes), tuple(offsets)
