"""The network that reads images: CLIP with ViT-Adapter, and the Q-Former behind it.

N images of side I, C channels of the maps, G patches on a side of an image, S cells of its maps, D width of the
language model.
"""

from __future__ import annotations

from functools import partial

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mio import EncoderInput
from mio.plugins.mm_interleaved.norms import LayerNorm
from mio.plugins.mm_interleaved.options import MMInterleavedOptions
from mio.plugins.mm_interleaved.positions import grid_sines, resized
from mio.plugins.mm_interleaved.qformer import QFormer
from mio.plugins.mm_interleaved.vit_adapter import ViTAdapter


class ImageReader(nn.Module):
    """Images to embeddings of their positions, and to maps.

    (`mm_interleaved/models/encoders/visual_tokenizer.py` of github.com/OpenGVLab/MM-Interleaved.) Parameters whose name
    begins with `clip` are CLIP's.
    """

    places: Tensor
    map_places: Tensor

    def __init__(self, options: MMInterleavedOptions, width: int) -> None:
        super().__init__()
        self.options = options
        vision, resampler = options.vision, options.resampler
        self.clip = VisionTransformer(
            img_size=vision.image_size,
            patch_size=vision.patch,
            in_chans=options.channels,
            num_classes=0,
            global_pool="",
            embed_dim=vision.width,
            depth=vision.layers,
            num_heads=vision.heads,
            mlp_ratio=(vision.ffn_width + 0.5) / vision.width,  # timm rounds down
            act_layer="quick_gelu",
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
            pre_norm=True,
            final_norm=False,
        )
        self.clip.blocks = nn.ModuleList(self.clip.blocks)  # type: ignore[assignment]
        self.adapter = ViTAdapter(
            vision.width,
            vision.heads,
            vision.grid,
            channels=options.channels,
            planes=vision.planes,
            points=vision.points,
            ratio=vision.ratio,
            groups=vision.groups,
        )
        self.pos_proj = nn.Linear(vision.width, vision.width)
        self.pos_ln = LayerNorm(vision.width, eps=1e-6)
        self.post_ln = LayerNorm(vision.width, eps=1e-6)
        self.resampler = QFormer(
            resampler.positions,
            resampler.width,
            resampler.layers,
            resampler.heads,
            resampler.ffn_width,
            vision.width,
            every=resampler.every,
            normalised=True,
        )
        self.proj = nn.Linear(resampler.width, width)
        nn.init.normal_(self.proj.weight, std=1e-3)
        nn.init.zeros_(self.proj.bias)
        grid = grid_sines(vision.width, vision.grid)
        self.register_buffer("places", torch.cat([torch.zeros(1, vision.width), grid]))
        self.register_buffer("map_places", torch.cat([resized(grid, side) for side in vision.sides]))

    def forward(self, items: EncoderInput) -> tuple[Tensor, Tensor]:
        """Embeddings `[positions of all images, D]`, image by image, and maps `[N, S, C]`, the finest level first."""
        tokens, maps = self.features(self.normalised(items.arrays["pixels"]))
        read = self.post_ln(self.pos_ln(self.pos_proj(tokens)) + self.places)
        embeddings: Tensor = self.proj(self.resampler(read))
        return embeddings.flatten(0, 1), maps + self.map_places

    def normalised(self, pixels: Tensor) -> Tensor:
        """uint8 `[N, I, I, channels]` to `[N, channels, I, I]` as CLIP was trained on."""
        mean, std = (torch.tensor(values, device=pixels.device) for values in self.options.statistics)
        return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2).to(self.clip.patch_embed.proj.weight.dtype)

    def features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The class token and the patches behind the last layer, `[N, 1 + G * G, C]`, and maps `[N, S, C]`."""
        tokens = self.clip.norm_pre(self.clip._pos_embed(self.clip.patch_embed(pixels)))
        each = len(self.clip.blocks) // self.options.vision.groups
        groups = [self.clip.blocks[begin : begin + each] for begin in range(0, len(self.clip.blocks), each)]
        features: tuple[Tensor, Tensor] = self.adapter(pixels, tokens, groups)
        return features
