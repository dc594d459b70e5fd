"""Multi-scale deformable attention (arXiv 2010.04159, section 4.1) over one set of maps.

B images, Q queries, L levels, P points, H heads, d width of a head, S cells of all levels, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mio.plugins.mm_interleaved.sampling import corners, gathered, geometry


class DeformableAttention(nn.Module):
    """Every query reads `points` places of each level, which it chooses around a place of its own."""

    def __init__(self, width: int, heads: int, points: int, sides: tuple[int, ...], ratio: float) -> None:
        """`sides` of the maps that are read; the values have `ratio` times the width."""
        super().__init__()
        self.heads, self.points, self.sides = heads, points, sides
        levels, inner = len(sides), int(width * ratio)
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, inner)
        self.output_proj = nn.Linear(inner, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Each head looks in a direction of its own, further with every point (Deformable DETR's initialisation)."""
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        around = torch.stack([angles.cos(), angles.sin()], -1)
        around = around / around.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        offsets = around[:, None, None] * steps[:, None]  # [H, 1, P, 2]
        with torch.no_grad():
            self.sampling_offsets.weight.zero_()
            self.sampling_offsets.bias.copy_(offsets.expand(-1, len(self.sides), -1, -1).flatten())
            self.attention_weights.weight.zero_()
            self.attention_weights.bias.zero_()
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, reference: Tensor, maps: Tensor) -> Tensor:
        """`[B, Q, D]` for queries `[B, Q, D]` at the places `reference` `[Q, 2]`, (x, y) from 0 to 1, of maps
        `[B, S, D]`."""
        images, count = query.shape[:2]
        shape = (images, count, self.heads, len(self.sides), self.points)
        offsets = self.sampling_offsets(query).float().view(*shape, 2)
        weights = self.attention_weights(query).float().view(*shape[:3], -1).softmax(-1).view(shape)
        # rows of the table are image by image, level by level, cell by cell, head by head
        image = torch.arange(images, device=query.device, dtype=torch.int32).view(images, 1, 1, 1, 1)
        head = torch.arange(self.heads, device=query.device, dtype=torch.int32)[:, None, None]
        sides, begin = geometry(self.sides, query.device)
        first = (image * maps.shape[1] + begin) * self.heads + head
        places = reference[:, None, None, None] * sides[..., None] + offsets - 0.5
        rows, counts = corners(places, weights, sides, first, self.heads)
        each = (images * count * self.heads, len(self.sides) * self.points * 4)
        inner = self.value_proj.out_features
        table = self.value_proj(maps).float().view(images * maps.shape[1] * self.heads, inner // self.heads)
        read = gathered(table, rows.view(each), counts.view(each))
        output: Tensor = self.output_proj(read.view(images, count, inner).to(query.dtype))
        return output
