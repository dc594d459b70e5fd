"""What flows: the latents of an autoencoder, or the picture itself.

N pictures of side I, C channels; c channels and side G of the latents. Pixels are float from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mio import UserError
from mio.plugins.flow_head.options import FlowOptions

TOGETHER = 8
"""Pictures that the autoencoder takes at a time, which needs much memory for each."""


class Pixels(nn.Module):
    """The picture itself."""

    def encode(self, pixels: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        """`[N, C, I, I]` of the same."""
        return pixels

    def decode(self, latents: Tensor) -> Tensor:
        """`[N, C, I, I]` of the same."""
        return latents


class Autoencoder(nn.Module):
    """Latents of an autoencoder (`vae`, from diffusers), which is not trained here."""

    def __init__(self, options: FlowOptions) -> None:
        super().__init__()
        try:
            from diffusers import AutoencoderKL
        except ImportError as error:
            raise UserError(
                'plugins.flow_head: `latents: vae` needs diffusers; pip install "mio[flow_head]", or take '
                "`latents: pixels`"
            ) from error
        self.options = sizes = options.vae
        count = len(sizes.channels)
        make: Any = AutoencoderKL
        self.vae = make(
            in_channels=options.channels,
            out_channels=options.channels,
            down_block_types=("DownEncoderBlock2D",) * count,
            up_block_types=("UpDecoderBlock2D",) * count,
            block_out_channels=tuple(sizes.channels),
            layers_per_block=sizes.layers,
            latent_channels=sizes.latents,
            norm_num_groups=sizes.norm_groups,
            sample_size=options.image_size,
            use_quant_conv=sizes.quant_conv,
            use_post_quant_conv=sizes.quant_conv,
        ).requires_grad_(False)

    @torch.no_grad()
    def encode(self, pixels: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
        """A sample `[N, c, G, G]` of the latents of `[N, C, I, I]`, drawn by the normal noise `draw` of its shape."""
        parts = zip(torch.split(pixels, TOGETHER), torch.split(arrays["draw"], TOGETHER), strict=True)
        drawn = [(found := self.vae.encode(one).latent_dist).mean + found.std * draw for one, draw in parts]
        return (torch.cat(drawn) - self.options.shift) * self.options.scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """`[N, C, I, I]` of `[N, c, G, G]`."""
        parts = torch.split(latents / self.options.scale + self.options.shift, TOGETHER)
        return torch.cat([self.vae.decode(one).sample for one in parts])
