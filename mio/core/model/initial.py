"""Initial weights that do not depend on how the transformer is spread over devices.

Rows are drawn in blocks, each from a generator of its own that is seeded by the run's seed, the parameter's name and
the block's number. A device draws only the blocks that its part of a parameter touches.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from mio.core.distributed.regions import local, local_region
from mio.core.recipe.model import network_of

_ROWS = 64


@torch.no_grad()
def initialise(module: nn.Module, layers: int, std: float, seed: int) -> None:
    """Normal of `std`; projections into the residual stream by 1 / sqrt(2 layers) of it (Radford et al. 2019, GPT-2,
    section 2.3); norms 1, biases 0. Parameters on the meta device are left alone."""
    residual = std / math.sqrt(2 * layers)
    for name, parameter in module.named_parameters():
        if parameter.is_meta or network_of(name):  # those bring their own
            continue
        if parameter.dim() == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            into_residual = name.endswith(("attention.output.weight", "down.weight"))
            _draw(parameter, name, seed, partial(_normal, residual if into_residual else std))


@torch.no_grad()
def draw_uniform(parameter: Tensor, name: str, bound: float, seed: int) -> None:
    """Uniform from `-bound` to `bound`; of a split parameter, this device's part."""
    _draw(parameter, name, seed, partial(_uniform, bound))


def _normal(std: float, empty: Tensor, generator: torch.Generator) -> Tensor:
    return empty.normal_(0.0, std, generator=generator)


def _uniform(bound: float, empty: Tensor, generator: torch.Generator) -> Tensor:
    return empty.uniform_(-bound, bound, generator=generator)


def _draw(parameter: Tensor, name: str, seed: int, fill: Callable[[Tensor, torch.Generator], Tensor]) -> None:
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
        drawn = fill(torch.empty(rows, *parameter.shape[1:]), generator)
        first, last = max(start, block * _ROWS), min(stop, block * _ROWS + rows)
        chosen = drawn[(slice(first - block * _ROWS, last - block * _ROWS), *columns)]
        part[first - start : last - start] = chosen.to(part)
