"""Initial weights, the same however the transformer is spread over devices.

Rows are drawn in blocks, each from a generator of its own that is seeded by the run's seed, the parameter's name and
the block's number. A device draws the blocks that its part of a parameter touches, and no others.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Placement, Shard
from torch.distributed.tensor.placement_types import _StridedShard

_ROWS = 64


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


@torch.no_grad()
def initialise(module: nn.Module, layers: int, std: float, seed: int) -> None:
    """Normal of `std`; projections into the residual stream by 1 / sqrt(2 layers) of it (Radford et al. 2019, GPT-2,
    section 2.3); norms 1, biases 0. Parameters on the meta device are left alone."""
    residual = std / math.sqrt(2 * layers)
    for name, parameter in module.named_parameters():
        if parameter.is_meta:
            continue
        if parameter.dim() == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            into_residual = name.endswith(("attention.output.weight", "down.weight"))
            _draw(parameter, name, residual if into_residual else std, seed)


def _draw(parameter: Tensor, name: str, std: float, seed: int) -> None:
    shape, offset = local_region(parameter)
    if not math.prod(shape):
        return
    part = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    start, stop = offset[0], offset[0] + shape[0]
    columns = tuple(slice(at, at + size) for at, size in zip(offset[1:], shape[1:], strict=True))
    for block in range(start // _ROWS, -(-stop // _ROWS)):
        rows = min(_ROWS, parameter.shape[0] - block * _ROWS)
        digest = hashlib.blake2b(f"{seed}/{name}/{block}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        drawn = torch.empty(rows, *parameter.shape[1:]).normal_(0.0, std, generator=generator)
        first, last = max(start, block * _ROWS), min(stop, block * _ROWS + rows)
        chosen = drawn[(slice(first - block * _ROWS, last - block * _ROWS), *columns)]
        part[first - start : last - start] = chosen.to(part)
