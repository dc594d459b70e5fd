"""The network: InternViT or SigLIP, pixel shuffle, projector.

T tiles of S x S pixels, C channels; G patches on the side of a tile, V width of the tower; D width of the transformer.
"""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mio import EncoderInput
from mio.plugins.vision_tower.options import VisionTowerOptions


class VisionTower(nn.Module):
    """Tiles to embeddings of positions. Layers are children of the `nn.ModuleList` `tower.blocks`."""

    def __init__(self, options: VisionTowerOptions, width: int) -> None:
        super().__init__()
        self.options = options
        self.tower = VisionTransformer(
            img_size=options.image_size,
            patch_size=options.patch,
            in_chans=options.channels,
            num_classes=0,
            global_pool="",
            embed_dim=options.width,
            depth=options.layers,
            num_heads=options.heads,
            mlp_ratio=(options.ffn_width + 0.5) / options.width,  # timm rounds down
            **options.network,
        )
        self.tower.blocks = nn.ModuleList(self.tower.blocks)  # type: ignore[assignment]
        joined = options.width * options.shuffle**2
        layers: list[nn.Module] = [nn.Linear(joined, width)]
        for _ in range(options.projector_layers - 1):
            layers += [nn.GELU(), nn.Linear(width, width)]
        self.projector = nn.Sequential(*layers)

    def forward(self, items: EncoderInput) -> Tensor:
        """Embeddings `[S, D]` of the positions of all items: a tile's in reading order, tile by tile."""
        embeddings: Tensor = self.projector(self.features(self.normalised(items.arrays["tiles"])))
        return embeddings.flatten(0, 1)

    def normalised(self, tiles: Tensor) -> Tensor:
        """uint8 `[T, S, S, C]` to `[T, C, S, S]`, in the type of the weights."""
        mean, std = (torch.tensor(values, device=tiles.device) for values in self.options.statistics)
        pixels = (tiles.float() / 255 - mean) / std
        return pixels.permute(0, 3, 1, 2).to(self.tower.patch_embed.proj.weight.dtype)

    def features(self, pixels: Tensor) -> Tensor:
        """Normalised pixels `[T, C, S, S]` to joined features `[T, (G / shuffle)^2, V * shuffle^2]` of the last layer,
        without a class token."""
        hidden = self.tower.patch_embed(pixels)
        hidden = self.tower.norm_pre(self.tower.patch_drop(self.tower._pos_embed(hidden)))
        for block in self.tower.blocks:
            hidden = block(hidden)
        patches = self.tower.norm(hidden)[:, self.tower.num_prefix_tokens :]
        return pixel_shuffle(patches * self.options.feature_scale, self.options.shuffle)


def pixel_shuffle(patches: Tensor, side: int) -> Tensor:
    """Patches `[T, G * G, V]` in reading order to `[T, (G / side)^2, side^2 * V]`.

    The features of a square stand row by row, and the squares in reading order. (InternVL's first version, `ps_version`
    v1, and VITA's `pixel_shuffle` in `internvit_encoder.py` come to the same by two views and two transpositions.)
    """
    tiles, count, width = patches.shape
    grid = round(count**0.5)
    squares = patches.view(tiles, grid // side, side, grid // side, side, width).permute(0, 1, 3, 2, 4, 5)
    return squares.reshape(tiles, (grid // side) ** 2, side * side * width)
