"""The networks of SEED: image -> codes, and codes -> image embedding.

Attributes carry the names of the published checkpoint, whose code is `models/seed_qformer/qformer_quantizer.py` of
github.com/AILab-CVC/SEED.

Shapes: B images; P = 257 patch features; Q = 32 queries, one code each; K codes in the codebook.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mio.plugins.image.seed.qformer import CausalQFormer

SIDE, PATCH = 224, 14
QUERIES = 32
CODE = 32
"""Dimensions of a code in the codebook."""
EMBEDDING = 1024
"""Dimensions of unCLIP's image embedding."""


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """Widths and depths; the defaults are the published model's."""

    vision_width: int = 1408
    vision_depth: int = 39
    """BLIP-2 takes the features before EVA-CLIP-g's 40th and last block."""
    vision_heads: int = 16
    vision_hidden: int = 6144
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    codes: int = 8192
    blocks: int = 4
    """Transformer blocks between the codes and the image embedding."""


def vision_tower(dimensions: Dimensions) -> nn.Module:
    """EVA-CLIP-g without its last norm and head: pixels `[B, 3, 224, 224]` -> features `[B, 257, vision_width]`."""
    import timm

    tower: nn.Module = timm.create_model(
        "eva_giant_patch14_clip_224",
        pretrained=False,
        img_size=SIDE,
        embed_dim=dimensions.vision_width,
        depth=dimensions.vision_depth,
        num_heads=dimensions.vision_heads,
        mlp_ratio=dimensions.vision_hidden / dimensions.vision_width,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_classes=0,
        global_pool="",
        use_post_transformer_norm=False,
        use_fc_norm=False,
    )
    for block in tower.get_submodule("blocks"):  # type: ignore[attr-defined]
        # no checkpoint holds the keys' bias: it is zero, and must be so also where the rest is built without memory
        block.attn.k_bias = torch.zeros(dimensions.vision_width, device="cpu")
    return tower


class SeedEncoder(nn.Module):
    """Pixels `[B, 3, 224, 224]`, normalised -> codes int64 `[B, 32]`."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        width = dimensions.width
        self.visual_encoder = vision_tower(dimensions)
        self.ln_vision = nn.LayerNorm(dimensions.vision_width)
        self.query_tokens = nn.Parameter(torch.empty(1, QUERIES, width))
        self.qformer = CausalQFormer(
            width, dimensions.layers, dimensions.heads, dimensions.hidden, dimensions.vision_width
        )
        self.encode_task_layer = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, CODE))
        self.quantize = nn.Embedding(dimensions.codes, CODE)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.ln_vision(self.visual_encoder(pixels))
        queries = self.query_tokens.expand(len(pixels), -1, -1)
        return self.nearest(self.encode_task_layer(self.qformer(queries, features)))

    def nearest(self, points: Tensor) -> Tensor:
        """Index of the codebook's entry nearest (Euclid, float32) to each point `[..., 32]`."""
        points, entries = points.float(), self.quantize.weight.float()
        squares = points.square().sum(-1, keepdim=True) + entries.square().sum(-1)
        return (squares - 2 * points @ entries.T).argmin(-1)


class SeedDecoder(nn.Module):
    """Codes int64 `[B, 32]` -> image embeddings `[B, 1024]` that condition unCLIP."""

    def __init__(self, dimensions: Dimensions) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        width = dimensions.width
        self.quantize = nn.Embedding(dimensions.codes, CODE)
        self.decode_task_layer = nn.Sequential(nn.Linear(CODE, CODE), nn.Tanh(), nn.Linear(CODE, width))
        self.pos_embed_image = nn.Parameter(torch.empty(1, QUERIES, width))
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.blocks_image = nn.Sequential(
            *(Block(width, dimensions.heads, qkv_bias=True, norm_layer=norm) for _ in range(dimensions.blocks))
        )
        self.image_down = nn.Sequential(
            nn.Linear(width, 256, bias=False),
            nn.ReLU(),
            nn.Linear(256, 128, bias=False),
            nn.ReLU(),
            nn.Linear(128, EMBEDDING // QUERIES, bias=False),
        )
        self.distill_image_proj = nn.Linear(EMBEDDING, EMBEDDING)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.decode_task_layer(self.quantize(codes)) + self.pos_embed_image
        embeddings: Tensor = self.distill_image_proj(self.image_down(self.blocks_image(x)).flatten(1))
        return embeddings
