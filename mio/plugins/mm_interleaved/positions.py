"""Fixed positions: sines and cosines of one and two dimensions, and the places of a map's cells.

H, W: height and width of a map; G side of a square one; D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def sines(width: int, positions: Tensor) -> Tensor:
    """`[P, D]` for positions `[P]`: the sines of all frequencies, then their cosines (arXiv 1706.03762, section 3.5, in
    the order of github.com/facebookresearch/mae, `util/pos_embed.py`)."""
    frequencies = 1.0 / 10_000 ** (torch.arange(width // 2, dtype=torch.float32, device=positions.device) / (width / 2))
    angles = positions.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def grid_sines(width: int, side: int) -> Tensor:
    """`[G * G, D]` of a square map's cells in reading order: half of the width for the row, half for the column."""
    line = sines(width // 2, torch.arange(side))
    return torch.cat([line.repeat_interleave(side, 0), line.repeat(side, 1)], 1)


def resized(grid: Tensor, side: int) -> Tensor:
    """Values `[G * G, D]` of a square map's cells for a map of another side, bicubic."""
    old = round(grid.shape[0] ** 0.5)
    if old == side:
        return grid
    square = grid.view(1, old, old, -1).permute(0, 3, 1, 2)
    new = functional.interpolate(square, size=(side, side), mode="bicubic", align_corners=False)
    return new.flatten(2)[0].T.contiguous()


def centres(sides: tuple[int, ...]) -> Tensor:
    """(x, y) from 0 to 1 of the cells of square maps, one map after the other in reading order: `[cells, 2]`."""
    maps = []
    for side in sides:
        line = (torch.arange(side, dtype=torch.float32) + 0.5) / side
        maps.append(torch.stack([line.repeat(side), line.repeat_interleave(side)], 1))
    return torch.cat(maps)
