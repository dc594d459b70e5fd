"""Rectified flow (arXiv 2209.03003), as SD3 (arXiv 2403.03206) and BAGEL have it: time 0 is the data, time 1 noise.

N items, P patches of p x p cells with C channels in reading order, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from mio.plugins.flow_head.times import shifted

_PERIOD = 10_000
"""Longest wave of positions and times, in steps of 2 pi."""


def noisy(clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Data `[N, ...]` on the way to noise at `times` `[N]`."""
    times = times.view(-1, *[1] * (clean.dim() - 1))
    return (1 - times) * clean + times * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """The derivative of `noisy` by the time: what is to be predicted."""
    return noise - clean


def patchify(cells: Tensor, patch: int) -> Tensor:
    """`[N, P, p * p * C]` of `[N, C, H, W]`; the numbers of a patch row by row, its channels together."""
    count, channels, height, width = cells.shape
    squares = cells.view(count, channels, height // patch, patch, width // patch, patch)
    return squares.permute(0, 2, 4, 3, 5, 1).reshape(count, -1, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int) -> Tensor:
    """The square picture `[N, C, H, H]` of which `patchify` made `[N, P, p * p * C]`."""
    count, number, _ = patches.shape
    side = math.isqrt(number)
    squares = patches.view(count, side, side, patch, patch, -1)
    return squares.permute(0, 5, 1, 3, 2, 4).reshape(count, -1, side * patch, side * patch)


def waves(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[..., count]` of values `[...]`, of geometric frequencies from 1 down to 1 / 10,000."""
    frequencies = torch.exp(-math.log(_PERIOD) * torch.arange(count, device=values.device) / count)
    angles = values[..., None].float() * frequencies
    return angles.cos(), angles.sin()


def places(side: int, width: int, device: torch.device) -> Tensor:
    """Where in a picture a patch is, float32 `[side * side, width]`: sines and cosines of its column, then those of its
    row (`get_2d_sincos_pos_embed` of BAGEL's `modeling_utils.py`, which is DiT's). `width` is a multiple of 4."""
    cosines, sines = waves(torch.arange(side, device=device), width // 4)
    one = torch.cat([sines, cosines], -1)
    return torch.cat([one.repeat(side, 1), one.repeat_interleave(side, 0)], -1)


Velocity = Callable[[Tensor, float], Tensor]
"""Velocities `[N, P, ...]` of noisy items at a time."""


def euler(x: Tensor, field: Velocity, steps: int, shift: float) -> Tensor:
    """Items `[N, ...]` that the flow makes of noise `x`, by so many steps of Euler's method at shifted times."""
    times = [shifted(1 - step / steps, shift) for step in range(steps + 1)]
    for time, after in pairwise(times):
        x = x - (time - after) * field(x, time)
    return x


def guided(with_it: Tensor, without: Tensor, weight: float, renormalise: str) -> Tensor:
    """Velocities `[N, P, F]` under classifier-free guidance, which makes none longer (BAGEL's `cfg_renorm_type`):
    neither an item's as a whole (`global`) nor a position's (`channel`); `none` lets it.
    """
    found = without + weight * (with_it - without)
    if renormalise == "none":
        return found
    over = (1, 2) if renormalise == "global" else (2,)
    length = torch.linalg.vector_norm(found, dim=over, keepdim=True)
    shrunk: Tensor = found * (torch.linalg.vector_norm(with_it, dim=over, keepdim=True) / (length + 1e-8)).clamp(max=1)
    return shrunk
