"""ViT-Adapter (arXiv 2205.08534): a plain vision transformer that gives maps of four sizes.

B images, C width of the vision transformer, G side of its grid of patches, S cells of the maps of sides 2G, G and G / 2
together, which the cells of the *pyramid* are.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from mio.plugins.mm_interleaved.deformable import DeformableAttention
from mio.plugins.mm_interleaved.norms import ChannelNorm, LayerNorm
from mio.plugins.mm_interleaved.positions import centres
from mio.plugins.mm_interleaved.sampling import starts

CELL = 16
"""Pixels of the adapter's own picture per patch, in each direction: its convolutions have strides of 4 to 32."""


def _square(cells: Tensor, side: int) -> Tensor:
    """`[B, C, side, side]` of `[B, side * side, C]`."""
    return cells.transpose(1, 2).reshape(len(cells), -1, side, side)


def convolution(inner: int, outer: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inner, outer, 3, stride, 1, bias=False), ChannelNorm(outer, eps=1e-6), nn.ReLU()]


class SpatialPrior(nn.Module):
    """Convolutions that give maps of four sizes of a picture `[B, 3, 16 G, 16 G]`."""

    def __init__(self, channels: int, planes: int, width: int) -> None:
        """`channels` of a picture; `planes` of the first convolution."""
        super().__init__()
        self.stem = nn.Sequential(
            *convolution(channels, planes, 2),
            *convolution(planes, planes, 1),
            *convolution(planes, planes, 1),
            nn.MaxPool2d(3, 2, 1),
        )
        self.conv2 = nn.Sequential(*convolution(planes, 2 * planes, 2))
        self.conv3 = nn.Sequential(*convolution(2 * planes, 4 * planes, 2))
        self.conv4 = nn.Sequential(*convolution(4 * planes, 4 * planes, 2))
        self.fc1 = nn.Conv2d(planes, width, 1)
        self.fc2 = nn.Conv2d(2 * planes, width, 1)
        self.fc3 = nn.Conv2d(4 * planes, width, 1)
        self.fc4 = nn.Conv2d(4 * planes, width, 1)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Maps `[B, C, 4G, 4G]`, `[B, C, 2G, 2G]`, `[B, C, G, G]` and `[B, C, G/2, G/2]`."""
        first = self.stem(picture)
        second = self.conv2(first)
        third = self.conv3(second)
        return self.fc1(first), self.fc2(second), self.fc3(third), self.fc4(self.conv4(third))


class ConvolutionalFeedForward(nn.Module):
    """A feed-forward network whose hidden layer is convolved within each map of the pyramid."""

    def __init__(self, width: int, hidden: int, sides: tuple[int, ...]) -> None:
        super().__init__()
        self.sides = sides
        self.fc1 = nn.Linear(width, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, pyramid: Tensor) -> Tensor:
        hidden = self.fc1(pyramid)
        maps = hidden.split([side * side for side in self.sides], 1)
        convolved = [
            self.dwconv(_square(one, side)).flatten(2).transpose(1, 2)
            for one, side in zip(maps, self.sides, strict=True)
        ]
        output: Tensor = self.fc2(functional.gelu(torch.cat(convolved, 1)))
        return output


class Injector(nn.Module):
    """What patches `[B, G * G, C]` take from the pyramid `[B, S, C]`; nothing at first."""

    def __init__(self, width: int, heads: int, points: int, sides: tuple[int, ...], ratio: float) -> None:
        super().__init__()
        self.query_norm = LayerNorm(width)
        self.feat_norm = LayerNorm(width)
        self.attn = DeformableAttention(width, heads, points, sides, ratio)
        self.gamma = nn.Parameter(torch.zeros(width))

    def forward(self, patches: Tensor, reference: Tensor, pyramid: Tensor) -> Tensor:
        taken: Tensor = self.attn(self.query_norm(patches), reference, self.feat_norm(pyramid))
        return patches + self.gamma * taken


class Extractor(nn.Module):
    """What the pyramid `[B, S, C]` takes from patches `[B, G * G, C]`, and a feed-forward network."""

    def __init__(self, width: int, heads: int, points: int, sides: tuple[int, ...], grid: int, ratio: float) -> None:
        super().__init__()
        self.query_norm = LayerNorm(width)
        self.feat_norm = LayerNorm(width)
        self.attn = DeformableAttention(width, heads, points, (grid,), ratio)
        self.ffn = ConvolutionalFeedForward(width, width // 4, sides)
        self.ffn_norm = LayerNorm(width)

    def forward(self, pyramid: Tensor, reference: Tensor, patches: Tensor) -> Tensor:
        pyramid = pyramid + self.attn(self.query_norm(pyramid), reference, self.feat_norm(patches))
        output: Tensor = pyramid + self.ffn(self.ffn_norm(pyramid))
        return output


class ViTAdapter(nn.Module):
    """Everything that is added to a vision transformer.

    (`mm_interleaved/models/encoders/vit_adapter/` of github.com/OpenGVLab/MM-Interleaved.)
    """

    patch_places: Tensor
    pyramid_places: Tensor

    def __init__(
        self, width: int, heads: int, grid: int, *, channels: int, planes: int, points: int, ratio: float, groups: int
    ) -> None:
        """`groups` of the vision transformer's layers, between which patches and pyramid exchange."""
        super().__init__()
        self.grid = grid
        self.sides = (4 * grid, 2 * grid, grid, grid // 2)
        self.level_embed = nn.Parameter(torch.zeros(3, width))
        self.prior = SpatialPrior(channels, planes, width)
        self.injectors = nn.ModuleList(Injector(width, heads, points, self.sides[1:], ratio) for _ in range(groups))
        # one for each group, and two more behind the last
        self.extractors = nn.ModuleList(
            Extractor(width, heads, points, self.sides[1:], grid, ratio) for _ in range(groups + 2)
        )
        self.up = nn.ConvTranspose2d(width, width, 2, 2)
        self.register_buffer("patch_places", centres((grid,)))
        self.register_buffer("pyramid_places", centres(self.sides[1:]))

    def forward(self, pixels: Tensor, tokens: Tensor, layers: Iterable[Iterable[nn.Module]]) -> tuple[Tensor, Tensor]:
        """Tokens `[B, 1 + G * G, C]` behind the last layer, a class token first, and maps of sides 4G, 2G, G and G / 2
        in one, `[B, cells, C]`.

        `pixels` `[B, channels, *, *]` are as the vision transformer takes them, `tokens` what goes into its first
        layer, `layers` its layers in groups.
        """
        side = self.grid * CELL
        picture = functional.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
        finest, *others = self.prior(picture)
        pyramid = torch.cat(
            [one.flatten(2).transpose(1, 2) + own for one, own in zip(others, self.level_embed, strict=True)], 1
        )
        first, patches = tokens[:, :1], tokens[:, 1:]
        outputs = []
        for index, (injector, group) in enumerate(zip(self.injectors, layers, strict=True)):
            tokens = torch.cat([first, injector(patches, self.patch_places, pyramid)], 1)
            for layer in group:
                tokens = layer(tokens)
            first, patches = tokens[:, :1], tokens[:, 1:]
            last = index == len(self.injectors) - 1
            for extractor in self.extractors[index : None if last else index + 1]:
                pyramid = extractor(pyramid, self.pyramid_places, patches)
            outputs.append(patches)
        return tokens, self._maps(finest, pyramid, outputs)

    def _maps(self, finest: Tensor, pyramid: Tensor, outputs: list[Tensor]) -> Tensor:
        """The pyramid and its enlargement, each level with the outputs of one group of layers."""
        bounds = starts(self.sides[1:])
        levels = [
            _square(pyramid[:, begin:end], side)
            for begin, end, side in zip(bounds, bounds[1:], self.sides[1:], strict=False)
        ]
        levels.insert(0, self.up(levels[0]) + finest)
        # of more or fewer groups than levels, those that are spread evenly and end with the last
        picked = [outputs[(index + 1) * len(outputs) // len(levels) - 1] for index in range(len(levels))]
        maps = []
        for level, patches, side in zip(levels, picked, self.sides, strict=True):
            square = _square(patches, self.grid)
            if side != self.grid:
                square = functional.interpolate(square, size=(side, side), mode="bilinear", align_corners=False)
            maps.append((level + square).flatten(2).transpose(1, 2))
        return torch.cat(maps, 1)
