"""The multi-modal feature synchroniser (MM-Interleaved, arXiv 2401.10208, section 3.2): deformable attention over the
multi-scale maps of several images.

B rows, Q queries, N images of a row, S cells of all levels of an image, C channels. L levels, P points, H heads,
d width of a head. V queries that see an image, K most images that one of them sees, M images that somebody sees.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mio import UserError
from mio.plugins.mm_interleaved.sampling import corners, gathered, geometry


class Sight(NamedTuple):
    """Who sees what."""

    queries: tuple[Tensor, ...]
    """Row and number of each query that sees an image, `[V]`."""
    images: tuple[Tensor, ...]
    """Row and number of each image that somebody sees, `[M]`."""
    seen: Tensor
    """int32 `[V, K]`: what a query sees, the newest first, as places in `images`."""
    there: Tensor
    """bool `[V, K]`: false where a query sees no more."""

    def twice(self) -> Sight:
        """Of a single row, and of a second one that sees the same images."""
        row, number = self.queries
        return Sight(
            (torch.cat([row, row + 1]), number.repeat(2)), self.images, self.seen.repeat(2, 1), self.there.repeat(2, 1)
        )


def sight(visible: Tensor) -> Sight:
    """Of bool `[B, Q, N]`. Without anybody who sees, V and M are 0, and K is 1. Of a tensor without values, which a
    plan is made of, everybody sees everything."""
    if not visible.shape[-1]:
        visible = functional.pad(visible, (0, 1))
    if visible.is_meta:
        return _everything(visible)
    queries = visible.any(-1).nonzero(as_tuple=True)
    images = visible.any(1)
    numbers = images.flatten().cumsum(0, dtype=torch.int32).view_as(images) - 1
    sees = visible[queries]
    most = int(sees.sum(-1).max()) if len(sees) else 1
    # the newest first: images are numbered from 1, and 0 is none
    order = torch.arange(1, visible.shape[-1] + 1, device=visible.device, dtype=torch.int32)
    newest = (sees * order).topk(most).values
    there = newest > 0
    return Sight(queries, images.nonzero(as_tuple=True), numbers[queries[0][:, None], (newest - 1).clamp(min=0)], there)


def _everything(visible: Tensor) -> Sight:
    rows, queries, images = visible.shape

    def numbers(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.int64, device=visible.device)

    seen = numbers(rows * queries, images).int()
    every, each = numbers(rows * queries), numbers(rows * images)
    return Sight((every, every), (each, each), seen, seen.bool())


class FeatureSynchroniser(nn.Module):
    """Every query reads some places of each level of each image that it sees, chosen around a place of its own.

    How much a place counts is a softmax over all of them with a 1 in its denominator, so that a query may read little;
    one that sees nothing gets the output's bias. Images are known by their number counted back from the newest.
    (`mm_interleaved/models/utils/ops/modules/mmfs.py` of github.com/OpenGVLab/MM-Interleaved, whose names of parameters
    these are. Its `ignore_token`, which is 0 and never trained, is left out.)
    """

    def __init__(
        self,
        query_width: int,
        map_width: int,
        inner: int,
        heads: int,
        points: int,
        sides: tuple[int, ...],
        *,
        base: int,
        magnitude: float,
        images: int,
    ) -> None:
        """`inner`: width of the values. `sides` of an image's square maps. Offsets are in cells of a map with the side
        `base`, and begin between plus and minus `magnitude`. A query sees fewer images than `images`."""
        super().__init__()
        self.heads, self.points, self.width = heads, points, inner // heads
        self.sides, self.base, self.magnitude, self.limit = sides, base, magnitude, images
        self.sampling_offsets = nn.Linear(query_width, heads * points * 2)
        self.dynamic_offset_mask = nn.Linear(query_width, query_width)
        # the last output of a level is not used: published weights have it
        self.attention_weights = nn.Linear(query_width, heads * len(sides) * (points + 1))
        self.value_proj = nn.Linear(map_width, inner)
        self.output_proj = nn.Linear(inner, query_width)
        self.query_relpos = nn.Embedding(images, query_width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.uniform_(self.sampling_offsets.bias, -self.magnitude, self.magnitude)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
        for linear in (self.attention_weights, self.dynamic_offset_mask, self.value_proj, self.output_proj):
            nn.init.zeros_(linear.bias)
        nn.init.trunc_normal_(self.query_relpos.weight, std=0.02)

    def forward(self, query: Tensor, reference: Tensor, maps: Tensor, seen: Tensor, there: Tensor) -> Tensor:
        """`[V, query_width]` for queries `[V, query_width]` at the places `reference` `[V, 2]`, (x, y) from 0 to 1, or
        `[1, 2]` for all, of the maps `[M, S, map_width]`. `seen` and `there` as `sight` gives them."""
        count, most = there.shape
        if most >= self.limit:
            raise UserError(
                f"plugins.mm_interleaved: a document shows {most} images before one position, and the synchroniser "
                f"tells {self.limit - 1} apart; raise the plugin's number of images, or shorten documents"
            )
        weights, offsets = self._chosen(query, there)
        sides, begin = geometry(self.sides, query.device)
        head = torch.arange(self.heads, device=query.device, dtype=torch.int32)[:, None]
        first = (seen[:, None] * maps.shape[1] * self.heads + head)[..., None, None]  # [V, H, K, 1, 1]
        reference = reference.expand(count, 2)[:, None, None].expand(-1, self.heads, most, -1)
        entries, bags = len(self.sides) * self.points * 4, None
        if not (complete := most == 1 or there.is_meta or bool(there.all())):
            # a bag per query and head, as long as what is there
            sizes = (there.sum(-1, dtype=torch.int32) * entries).repeat_interleave(self.heads)
            bags = sizes.cumsum(0, dtype=torch.int32) - sizes
            chosen = there[:, None].expand(-1, self.heads, -1).flatten().nonzero()[:, 0]
            weights, offsets, first, reference = (
                one.flatten(0, 2).index_select(0, chosen) for one in (weights, offsets, first, reference)
            )
        # [V, H, K, L, P, 2], in cells of each level
        places = (reference[..., None, None, :] + offsets[..., None, :, :] / self.base) * sides[..., None] - 0.5
        rows, counts = corners(places, weights, sides, first + begin * self.heads, self.heads)
        if complete:
            rows, counts = (one.view(count * self.heads, most * entries) for one in (rows, counts))
        else:
            rows, counts = rows.flatten(), counts.flatten()
        table = self.value_proj(maps).float().view(maps.shape[0] * maps.shape[1] * self.heads, self.width)
        read = gathered(table, rows, counts, bags)
        output: Tensor = self.output_proj(read.view(count, self.value_proj.out_features).to(query.dtype))
        return output

    def _chosen(self, query: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """How much each place counts, `[V, H, K, L, P]`, and its distance from the query's, `[V, H, K, P, 2]`.

        Both are linear in a query that is changed by an embedding of the image's number. So the query and the numbers
        go through the networks by themselves, and no image makes a query go through them again.
        """
        count, most = there.shape
        numbers = self.query_relpos.weight[1 : most + 1]
        changed = torch.cat([self.dynamic_offset_mask(query), numbers.to(query.dtype)])
        offsets, logits = self.sampling_offsets(changed).float(), self.attention_weights(changed).float()
        of_numbers = (offsets[count:] - self.sampling_offsets.bias).view(most, self.heads, self.points, 2)
        offsets = offsets[:count].view(count, self.heads, 1, self.points, 2) + of_numbers.transpose(0, 1)
        shape = (self.heads, len(self.sides), self.points + 1)
        of_numbers = (logits[count:] - self.attention_weights.bias).view(most, *shape).transpose(0, 1)
        logits = (logits[:count].view(count, self.heads, 1, *shape[1:]) + of_numbers)[..., :-1]
        logits = logits.masked_fill(~there[:, None, :, None, None], -torch.inf)
        # a softmax with one more logit, which is 0
        weights = functional.pad(logits.flatten(2), (0, 1)).softmax(-1)[..., :-1]
        return weights.view(logits.shape), offsets


def spread(found: Tensor, sees: Sight, size: torch.Size, nothing: Tensor) -> Tensor:
    """`[B, Q, D]`, or what `size` says: the results `[V, D]` of the queries that see an image, and `nothing` `[D]` for
    all others."""
    if found.numel() == size.numel():
        return found.view(size)
    return nothing.to(found.dtype).expand(size).index_put(sees.queries, found)
