"""Which part of a tensor a device holds, of one that is split over a mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor, Placement


def is_split(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether a tensor is a `DTensor`, without importing their module: that takes half a second of one CPU core, and
    nothing is one before it is imported."""
    return hasattr(tensor, "placements")


def local(tensor: Tensor) -> Tensor:
    """This device's part of a tensor."""
    return tensor.to_local() if is_split(tensor) else tensor


def local_region(tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of this device's part of a tensor, and its place in the whole."""
    if not is_split(tensor):
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
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor.placement_types import _StridedShard

    sizes, offsets = list(shape), [0] * len(shape)
    cuts = [(dim, cut) for dim, cut in enumerate(placements) if isinstance(cut, Shard | _StridedShard)]
    for dim, placement in sorted(cuts, key=lambda item: isinstance(item[1], _StridedShard)):
        size = sizes[placement.dim]
        step = -(-size // mesh[dim])
        start = min(size, coordinate[dim] * step)
        offsets[placement.dim] += start
        sizes[placement.dim] = min(size, start + step) - start
    return tuple(sizes), tuple(offsets)
