"""What diffusion works on: the latents of an autoencoder, or squares of pixels.

N images of side I, C channels; c channels and side G of the latents. Pixels are float from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mio.plugins.mm_interleaved.options import DiffusionOptions

TOGETHER = 8
"""Images that the autoencoder takes at a time: its memory is many times that of the U-Net's."""


class PixelLatents(nn.Module):
    """Squares of pixels as channels: nothing is lost, and nothing trained."""

    def __init__(self, options: DiffusionOptions) -> None:
        super().__init__()
        self.square = options.square

    def encode(self, pixels: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        """`[N, c, G, G]` of `[N, C, I, I]`."""
        return functional.pixel_unshuffle(pixels, self.square)

    def decode(self, latents: Tensor) -> Tensor:
        """`[N, C, I, I]` of `[N, c, G, G]`."""
        return functional.pixel_shuffle(latents, self.square)


class AutoencoderLatents(nn.Module):
    """Latents of Stable Diffusion's autoencoder (`vae`, from diffusers), which is not trained here."""

    def __init__(self, options: DiffusionOptions, channels: int) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        count = len(options.vae_channels)
        self.scale = options.vae_scale
        make: Any = AutoencoderKL
        self.vae = make(
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * count,
            up_block_types=("UpDecoderBlock2D",) * count,
            block_out_channels=tuple(options.vae_channels),
            layers_per_block=options.vae_layers,
            latent_channels=options.vae_latents,
            norm_num_groups=options.norm_groups,
            sample_size=options.image_size,
        ).requires_grad_(False)

    @torch.no_grad()
    def encode(self, pixels: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
        """A sample `[N, c, G, G]` of the latents of `[N, C, I, I]`, drawn by the normal noise `draw` of its shape."""
        parts = zip(torch.split(pixels, TOGETHER), torch.split(arrays["draw"], TOGETHER), strict=True)
        drawn = [(found := self.vae.encode(one).latent_dist).mean + found.std * draw for one, draw in parts]
        return self.scale * torch.cat(drawn)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """`[N, C, I, I]` of `[N, c, G, G]`."""
        return torch.cat([self.vae.decode(one / self.scale).sample for one in torch.split(latents, TOGETHER)])


def make_latents(options: DiffusionOptions, channels: int) -> PixelLatents | AutoencoderLatents:
    """What `latents` asks for, of images with so many channels."""
    return AutoencoderLatents(options, channels) if options.latents == "vae" else PixelLatents(options)
