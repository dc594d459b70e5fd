"""The network: noisy patches to embeddings of positions, hidden states to velocities.

N items of P positions each, F numbers of a position, D width of the transformer; C channels and side I of a picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mio import Condition, HeadItems, Sampling, UserError
from mio.plugins.flow_head import flow
from mio.plugins.flow_head.latents import Autoencoder, Pixels
from mio.plugins.flow_head.options import FlowOptions


class FlowNetwork(nn.Module):
    """Loss and samples of pictures (`Bagel` of `modeling/bagel/bagel.py`, github.com/ByteDance-Seed/Bagel: `vae2llm`,
    `time_embedder`, `latent_pos_embed`, `llm2vae`)."""

    def __init__(self, options: FlowOptions, width: int) -> None:
        super().__init__()
        if width % 4:
            raise UserError(f"plugins.flow_head: `model.width` is {width}, must be a multiple of 4")
        self.options, self.width = options, width
        self.autoencoder = Autoencoder(options) if options.latents == "vae" else Pixels()
        self.patch_in = nn.Linear(options.features, width)
        self.time_embedder = nn.Sequential(nn.Linear(options.frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.velocity_out = nn.Linear(width, options.features)
        nn.init.zeros_(self.velocity_out.weight)
        nn.init.zeros_(self.velocity_out.bias)

    def inputs(self, items: HeadItems) -> tuple[Tensor, tuple[Tensor]]:
        """Embeddings `[N * P, D]` that the positions begin with, and the velocities to predict, float32 `[N, P, F]`."""
        arrays = items.arrays
        pixels = arrays["pixels"].permute(0, 3, 1, 2).float() / 127.5 - 1
        clean = flow.patchify(self.autoencoder.encode(pixels, arrays).float(), self.options.patch)
        times = arrays["time"]
        embeddings = self.embedded(flow.noisy(clean, arrays["noise"], times), times)
        return embeddings.flatten(0, 1), (flow.velocity(clean, arrays["noise"]),)

    def embedded(self, patches: Tensor, times: Tensor) -> Tensor:
        """`[N, P, D]` of noisy patches `[N, P, F]` at times `[N]`."""
        moments = self.time_embedder(torch.cat(flow.waves(times, self.options.frequencies // 2), -1))
        places = flow.places(self.options.side, self.width, patches.device)
        embedded: Tensor = self.patch_in(patches) + moments[:, None] + places
        return embedded

    def forward(self, condition: Condition, items: HeadItems, kept: tuple[Tensor]) -> Tensor:  # noqa: ARG002
        """The mean squared error of each picture's velocities, float32 `[N]`."""
        (target,) = kept
        predicted = self.velocity_out(condition.own).view_as(target)
        losses: Tensor = (predicted.float() - target).square().flatten(1).mean(1)
        return losses

    @torch.no_grad()
    def sample(self, condition: Condition, sampling: Sampling, run: Any) -> list[np.ndarray]:  # noqa: ARG002
        """Pictures uint8 `[I, I, 3]`, or `[I, I]` of grey ones. A picture's noise follows from its seed alone."""
        options, device = self.options, self.patch_in.weight.device
        guidance = sampling.guidance or options.guidance
        shape = (options.positions, options.features)
        noise = [
            np.random.Generator(np.random.Philox(seed)).standard_normal(shape, np.float32) for seed in sampling.seeds
        ]

        def velocity(patches: Tensor, time: float, dropped: bool) -> Tensor:
            times = torch.full((len(patches),), time, device=device)
            found: Tensor = self.velocity_out(run(self.embedded(patches, times), dropped)).float()
            return found

        def field(patches: Tensor, time: float) -> Tensor:
            under = velocity(patches, time, False)
            if guidance == 1 or time <= options.guided_above:
                return under
            return flow.guided(under, velocity(patches, time, True), guidance, options.renormalise)

        steps = sampling.steps or options.steps
        patches = flow.euler(torch.from_numpy(np.stack(noise)).to(device), field, steps, options.sampling_shift)
        return self.pictures(flow.unpatchify(patches, options.patch))

    def pictures(self, latents: Tensor) -> list[np.ndarray]:
        """Pictures as the modality reads them, of what flows, `[N, c, G, G]`."""
        pixels = (self.autoencoder.decode(latents).float() * 127.5 + 127.5).round().clamp(0, 255)
        images = pixels.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
        return [image[..., 0] if self.options.channels == 1 else image for image in images]
