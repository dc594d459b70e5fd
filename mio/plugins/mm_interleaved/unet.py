"""Stable Diffusion's U-Net with synchronisers on what its way down leaves to its way up.

B images, C channels and side G of a residual, N images before each, S cells of all levels of their maps.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mio.plugins.mm_interleaved.norms import LayerNorm
from mio.plugins.mm_interleaved.options import DiffusionOptions, MMInterleavedOptions
from mio.plugins.mm_interleaved.positions import centres, grid_sines, resized
from mio.plugins.mm_interleaved.synchroniser import FeatureSynchroniser, Sight, spread


def make_unet(options: DiffusionOptions, latents: int, condition: int) -> Any:
    """diffusers' U-Net for latents of so many channels, whose cross-attention reads vectors of width `condition`."""
    from diffusers import UNet2DConditionModel

    count = len(options.channels)
    make: Any = UNet2DConditionModel
    return make(
        sample_size=options.side,
        in_channels=latents,
        out_channels=latents,
        down_block_types=("CrossAttnDownBlock2D",) * (count - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (count - 1),
        block_out_channels=tuple(options.channels),
        layers_per_block=options.layers,
        attention_head_dim=tuple(options.heads),
        cross_attention_dim=condition,
        use_linear_projection=True,
        norm_num_groups=options.norm_groups,
    )


class ResidualSynchroniser(nn.Module):
    """What a residual of the U-Net takes from the maps of the images before; every cell looks around its own place.

    (`MMFSBlock` of `mm_interleaved/models/decoders/sd_mmfs.py` in github.com/OpenGVLab/MM-Interleaved: norms, fixed
    positions, synchroniser, and a convolution that begins at 0.)
    """

    places: Tensor
    centres: Tensor

    def __init__(self, channels: int, side: int, maps: int, sides: tuple[int, ...], options: DiffusionOptions) -> None:
        """`side` of the residual, `maps` channels and `sides` of the maps."""
        super().__init__()
        self.query_norm = LayerNorm(channels, eps=1e-6)
        self.feat_norm = LayerNorm(maps, eps=1e-6)
        self.mmfs = FeatureSynchroniser(
            channels,
            maps,
            options.sync_width,
            options.sync_heads,
            options.sync_points,
            sides,
            base=side,
            magnitude=options.sync_magnitude,
            images=options.sync_images,
        )
        self.conv = nn.Conv2d(channels, channels, 1)
        for value in self.conv.parameters():
            nn.init.zeros_(value)
        self.register_buffer("places", resized(grid_sines(channels, options.side), side))
        self.register_buffer("centres", centres((side,)))

    def forward(self, residual: Tensor, maps: Tensor, sees: Sight) -> Tensor:
        """`[B, C, G, G]`, to be added to `residual`. `maps` `[M, S, channels]` are those that `sees` tells of, where
        every image is one query."""
        shape = residual.shape
        query = residual.flatten(2).transpose(1, 2)
        images, cells = sees.queries[0], len(self.centres)
        asked = (self.query_norm(query[images]) + self.places).flatten(0, 1)
        seen, there = (one.repeat_interleave(cells, 0) for one in (sees.seen, sees.there))
        found = self.mmfs(asked, self.centres.repeat(len(images), 1), self.feat_norm(maps), seen, there)
        whole = Sight((images,), sees.images, seen, there)
        found = spread(found.unflatten(0, (len(images), cells)), whole, query.shape, self.mmfs.output_proj.bias)
        output: Tensor = self.conv(found.transpose(1, 2).view(shape))
        return output


class SynchronisedUNet(nn.Module):
    """The U-Net (`unet`) and its synchronisers: `down`, one for each residual, and `mid`. There are none if the options
    ask for no images before the one that is made."""

    def __init__(self, options: MMInterleavedOptions) -> None:
        super().__init__()
        diffusion = options.diffusion
        self.unet = make_unet(diffusion, diffusion.latent_channels(options.channels), options.perceiver.width)
        residuals = [*diffusion.residuals, diffusion.residuals[-1]] if diffusion.images else []
        blocks = [
            ResidualSynchroniser(channels, side, options.vision.width, options.vision.sides, diffusion)
            for channels, side in residuals
        ]
        self.down, self.mid = nn.ModuleList(blocks[:-1]), nn.ModuleList(blocks[-1:])

    def forward(
        self, latents: Tensor, times: Tensor, condition: Tensor, maps: Tensor | None, sees: Sight | None
    ) -> Tensor:
        """What is predicted, of the shape of noisy `latents` `[B, channels, side, side]`.

        `times` `[B]` are their steps of noise, `condition` is `[B, queries, width]`; `maps` `[M, S, channels]` are
        those that `sees` tells of, where every image is one query. These are the calls of diffusers' own `forward`,
        with the synchronisers before the way up (`utils/monkey_patch/sd_unet_forward_monkey_patch.py` of the
        reference).
        """
        unet = self.unet
        embedded = unet.time_embedding(unet.get_time_embed(sample=latents, timestep=times))
        x = unet.conv_in(latents)
        residuals = [x]
        for block in unet.down_blocks:
            x, left = block(x, embedded, **_read(block, condition))
            residuals += left
        x = unet.mid_block(x, embedded, encoder_hidden_states=condition)
        if maps is not None and sees is not None:
            residuals = [one + each(one, maps, sees) for one, each in zip(residuals, self.down, strict=True)]
            x = x + self.mid[0](x, maps, sees)
        for block in unet.up_blocks:
            left, residuals = residuals[-len(block.resnets) :], residuals[: -len(block.resnets)]
            x = block(x, tuple(left), embedded, **_read(block, condition))
        output: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))
        return output


def _read(block: nn.Module, condition: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": condition} if getattr(block, "has_cross_attention", False) else {}
