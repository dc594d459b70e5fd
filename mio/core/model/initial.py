"""Initial weights that do not depend on how the transformer is spread over devices.

Rows are drawn in blocks, each from a generator of its own that is seeded by the run's seed, the parameter's name and
the block's number. A device draws only the blocks that its part of a parameter touches.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from mio.core.distributed.regions import local, local_region

_ROWS = 64


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
    part = local(parameter)
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
