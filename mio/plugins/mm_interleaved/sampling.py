"""Weighted sums of bilinear samples of maps: what deformable attention is made of. Plain torch."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional


@cache
def starts(sides: tuple[int, ...]) -> tuple[int, ...]:
    """First cell of each of several square maps that lie one after the other, and behind them their number of cells."""
    ends = [0]
    for side in sides:
        ends.append(ends[-1] + side * side)
    return tuple(ends)


def geometry(sides: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Side of each of several square maps that lie one after the other, and its first cell: int32 `[L, 1]`."""
    sizes = torch.tensor([sides, starts(sides)[:-1]], dtype=torch.int32, device=device)
    return sizes[0, :, None], sizes[1, :, None]


def corners(places: Tensor, weights: Tensor, sides: Tensor, first: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """The four cells around each place, and how much each counts.

    `places` float32 `[..., 2]` are (x, y) in cells, 0 being the centre of a map's first cell; `weights` `[...]` theirs;
    `sides` int32 `[...]` of the square maps; `first` int32 `[...]` the row of a table that holds the map's first cell,
    `stride` rows before the next one's; all of them broadcast. Returns rows int32 and weights float32, `[..., 4]`.
    Cells outside of a map count 0, as `grid_sample` has it without aligned corners and with zeros around.
    """
    low = places.detach().floor()
    share = places - low
    cells = torch.stack([low, low + 1], -1)  # [..., x or y, low or high]
    last = (sides - 1)[..., None, None]
    shares = torch.stack([1 - share, share], -1) * ((cells >= 0) & (cells <= last))
    column, row = cells.clamp(min=0).minimum(last.to(cells.dtype)).int().unbind(-2)
    rows = (row[..., :, None] * sides[..., None, None] + column[..., None, :]) * stride + first[..., None, None]
    across, down = shares.unbind(-2)
    counts = down[..., :, None] * across[..., None, :] * weights[..., None, None]
    return rows.flatten(-2), counts.flatten(-2)


def gathered(table: Tensor, rows: Tensor, weights: Tensor, bags: Tensor | None = None) -> Tensor:
    """Weighted sums of the rows of a table `[R, d]`: `[N, d]` for rows int32 and weights `[N, E]`, or for flat ones of
    which each of the `bags`, int32 `[N]`, says where its part begins.

    The samples themselves are never in memory. In the backward pass 32-bit rows are quicker than 64-bit ones.
    """
    return functional.embedding_bag(rows, table, bags, per_sample_weights=weights, mode="sum")
