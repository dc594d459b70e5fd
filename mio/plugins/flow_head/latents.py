"""What flows: the latents of an autoencoder, or the picture itself.

N pictures of side I, C channels; c channels and side G of the latents. Pixels are float from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mio import networks
from mio.plugins.flow_head.options import FlowOptions


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
        self.options = sizes = options.vae
        self.vae = networks.autoencoder(
            "plugins.flow_head",
            sizes.channels,
            sizes.norm_groups,
            in_channels=options.channels,
            out_channels=options.channels,
            layers_per_block=sizes.layers,
            latent_channels=sizes.latents,
            sample_size=options.image_size,
            use_quant_conv=sizes.quant_conv,
            use_post_quant_conv=sizes.quant_conv,
        )

    def encode(self, pixels: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
        """A sample `[N, c, G, G]` of the latents of `[N, C, I, I]`, drawn by the normal noise `draw` of its shape."""
        return (networks.to_latents(self.vae, pixels, arrays["draw"]) - self.options.shift) * self.options.scale

    def decode(self, latents: Tensor) -> Tensor:
        """`[N, C, I, I]` of `[N, c, G, G]`."""
        return networks.from_latents(self.vae, latents / self.options.scale + self.options.shift)
