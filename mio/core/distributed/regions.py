"""Which part of a tensor a device holds, of one that is split over a mesh.

A mesh need not have all devices: where experts are split over devices, an expert's parameters lie on a mesh of those
that have the expert. On the others such a tensor has its name, shape and dtype, and an empty part.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor, Placement

EXPERT_SHARD = "expert_shard"
"""Dimension of a mesh over whose devices an expert's parameters are split; devices beside it have other experts."""


def is_split(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether a tensor is a `DTensor`, without importing their module: that takes half a second of one CPU core, and
    nothing is one before it is imported."""
    return hasattr(tensor, "placements")


def local(tensor: Tensor) -> Tensor:
    """This device's part of a tensor."""
    return tensor.to_local() if is_split(tensor) else tensor


def is_elsewhere(tensor: Tensor) -> bool:
    """Whether other devices have a tensor, and this one no part of it."""
    return is_split(tensor) and tensor.device_mesh.get_coordinate() is None


def empty_part(
    mesh: DeviceMesh, placements: tuple[Placement, ...], shape: torch.Size, dtype: torch.dtype, device: torch.device
) -> DTensor:
    """A tensor that lies on other devices, those of `mesh`."""
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta

    stride = torch.empty(shape, device="meta").stride()
    spec = DTensorSpec(mesh, placements, tensor_meta=TensorMeta(shape, stride, dtype))
    return DTensor(torch.empty(0, *shape[1:], dtype=dtype, device=device), spec, requires_grad=False)


def zeros_like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Zeros of a tensor's shape, split like it."""
    if is_elsewhere(tensor):  # of an operation on it, torch makes no tensor of the right shape and device
        assert is_split(tensor)
        return empty_part(tensor.device_mesh, tensor.placements, tensor.shape, dtype or tensor.dtype, tensor.device)
    return torch.zeros_like(tensor, dtype=dtype, requires_grad=False)


def gathered(tensor: Tensor, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
    """A whole tensor on every device, in the dtype and on the device that it is wanted in; one that is split is
    gathered in that dtype. A collective call then of all devices, also of those that have no part of it."""
    if not is_split(tensor):
        return tensor.to(device=device, dtype=dtype)
    from torch.distributed.tensor import DTensor

    mesh, part = tensor.device_mesh, tensor.to_local().to(device, dtype)
    if is_elsewhere(tensor):
        whole = torch.empty(tensor.shape, dtype=part.dtype, device=part.device)
    else:
        shape, stride = tensor.shape, tensor.stride()
        cast = DTensor.from_local(part, mesh, tensor.placements, run_check=False, shape=shape, stride=stride)
        with _quiet():
            whole = cast.full_tensor().contiguous()
    if EXPERT_SHARD in (mesh.mesh_dim_names or ()):
        torch.distributed.broadcast(whole, int(mesh.mesh.flatten()[0]))
    return whole


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warning that parts which two dimensions of a mesh have cut are gathered in two steps, and that
    sums could depend on their order: nothing is summed."""
    log = logging.getLogger("torch.distributed.tensor._redistribute")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def local_region(tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of this device's part of a tensor, and its place in the whole."""
    if not is_split(tensor):
        return tuple(tensor.shape), (0,) * tensor.dim()
    mesh = tensor.device_mesh
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        return (0, *tensor.shape[1:]), (0,) * tensor.dim()
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
