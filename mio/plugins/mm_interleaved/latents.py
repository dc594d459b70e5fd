"""What diffusion works on: the latents of an autoencoder, or squares of pixels.

N images of side I, C channels; c channels and side G of the latents. Pixels are float from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from mio import networks
from mio.plugins.mm_interleaved.options import DiffusionOptions


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
        self.scale = options.vae_scale
        self.vae = networks.autoencoder(
            "plugins.mm_interleaved",
            options.vae_channels,
            options.norm_groups,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=options.vae_layers,
            latent_channels=options.vae_latents,
            sample_size=options.image_size,
        )

    def encode(self, pixels: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
        """A sample `[N, c, G, G]` of the latents of `[N, C, I, I]`, drawn by the normal noise `draw` of its shape."""
        return self.scale * networks.to_latents(self.vae, pixels, arrays["draw"])

    def decode(self, latents: Tensor) -> Tensor:
        """`[N, C, I, I]` of `[N, c, G, G]`."""
        return networks.from_latents(self.vae, latents / self.scale)


def make_latents(options: DiffusionOptions, channels: int) -> PixelLatents | AutoencoderLatents:
    """What `latents` asks for, of images with so many channels."""
    return AutoencoderLatents(options, channels) if options.latents == "vae" else PixelLatents(options)
