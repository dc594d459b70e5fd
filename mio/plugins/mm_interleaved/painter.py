"""The network that makes images: hidden states to a condition, and diffusion under it.

N images of side I, C positions of a context, D width of the language model, M images before each, S cells of all levels
of their maps; c channels and side G of the latents.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mio import Condition, HeadItems, Sampling
from mio.plugins.mm_interleaved.latents import make_latents
from mio.plugins.mm_interleaved.options import DiffusionOptions, MMInterleavedOptions
from mio.plugins.mm_interleaved.positions import sines
from mio.plugins.mm_interleaved.qformer import QFormer
from mio.plugins.mm_interleaved.synchroniser import Sight, sight
from mio.plugins.mm_interleaved.unet import SynchronisedUNet


class ImagePainter(nn.Module):
    """Loss and samples of images under what stands before them.

    (`mm_interleaved/models/decoders/decoder_image.py` and `sd.py` of github.com/OpenGVLab/MM-Interleaved, and
    `_prepare_context_features_for_image_decoder` of `mm_interleaved.py`.) The autoencoder is `latents`, the U-Net
    `decoder.unet`, its synchronisers `decoder.down` and `decoder.mid`.
    """

    def __init__(self, options: MMInterleavedOptions, width: int) -> None:
        super().__init__()
        self.options = options
        perceiver, diffusion = options.perceiver, options.diffusion
        self.context_feat_proj = nn.Linear(width, width)
        self.perceiver = QFormer(
            perceiver.queries,
            perceiver.width,
            perceiver.layers,
            perceiver.heads,
            perceiver.ffn_width,
            width,
            every=perceiver.every,
            normalised=False,
        )
        self.neg_prompt_embeds = nn.Parameter(torch.empty(1, perceiver.queries, perceiver.width))
        nn.init.normal_(self.neg_prompt_embeds, std=0.02)
        self.latents = make_latents(diffusion, options.channels)
        self.decoder = SynchronisedUNet(options)

    def forward(self, condition: Condition, items: HeadItems, kept: object) -> Tensor:  # noqa: ARG002
        """The mean squared error of each image, float32 `[N]`; 0 where the context is too short to learn from."""
        diffusion, arrays = self.options.diffusion, items.arrays
        pixels = arrays["pixels"].permute(0, 3, 1, 2).to(condition.context.dtype) / 127.5 - 1
        clean, noise, times = self.latents.encode(pixels, arrays), arrays["noise"], arrays["times"]
        noisy, target = diffused(diffusion, clean.float(), noise, times)
        words = torch.where(items.dropped[:, None, None], self.neg_prompt_embeds, self.words(condition))
        predicted = self.decoder(noisy, times, words, *self.before(condition))
        losses: Tensor = (predicted.float() - target).square().flatten(1).mean(1)
        return losses * (condition.context_mask.sum(1) >= diffusion.least)

    def words(self, condition: Condition) -> Tensor:
        """What the U-Net's cross-attention reads, `[N, queries, width]`, of hidden states `[N, C, D]`."""
        context, mask = condition.context, condition.context_mask
        if not context.shape[1]:
            context, mask = functional.pad(context, (0, 0, 0, 1)), functional.pad(mask, (0, 1))
        places = sines(context.shape[-1], torch.arange(context.shape[1], device=context.device))
        mask = mask | ~mask.any(1, keepdim=True)  # attention to nothing is no number
        found: Tensor = self.perceiver(self.context_feat_proj(context) + places.to(context.dtype), mask)
        return found

    def before(self, condition: Condition) -> tuple[Tensor, Sight] | tuple[None, None]:
        """Maps `[M, S, channels]` of the images before those that are made, and who sees which."""
        if not condition.maps:
            return None, None
        ((maps, there),) = condition.maps.values()
        sees = sight(there.flip(1)[:, None])  # of which the last one is the newest
        return maps.flip(1)[sees.images], sees

    @torch.no_grad()
    def sample(self, condition: Condition, sampling: Sampling, run: object) -> list[Any]:  # noqa: ARG002
        """Images uint8 `[I, I, 3]`, or `[I, I]` of grey ones.

        One at a time, since a kernel for several may round differently: an image follows from its seed and its
        condition alone.
        """
        steps = sampling.steps or self.options.diffusion.steps
        guidance = sampling.guidance or self.options.diffusion.guidance
        return [
            self._made(of_one(condition, number), seed, steps, guidance) for number, seed in enumerate(sampling.seeds)
        ]

    def _made(self, condition: Condition, seed: int, steps: int, guidance: float) -> Any:
        words, (maps, sees) = self.words(condition), self.before(condition)
        if guided := guidance != 1:
            # one pass for both: the maps are seen with and without the words
            words = torch.cat([self.neg_prompt_embeds, words])
            sees = None if sees is None else sees.twice()
        scheduler = schedule(self.options.diffusion)
        scheduler.set_timesteps(steps)
        latents = initial(self.options.diffusion, self.options.channels, seed).to(words.device)
        for step in scheduler.timesteps.tolist():
            times = torch.full((len(words),), step, device=words.device)
            found = self.decoder(latents.expand(len(words), -1, -1, -1), times, words, maps, sees).float()
            if guided:
                without, under = found.chunk(2)
                found = without + guidance * (under - without)
            latents = scheduler.step(found, step, latents).prev_sample
        pixels = (self.latents.decode(latents).float()[0] * 127.5 + 127.5).round().clamp(0, 255)
        image = pixels.permute(1, 2, 0).to(torch.uint8).cpu().numpy()
        return image[..., 0] if self.options.grey else image


def of_one(condition: Condition, number: int) -> Condition:
    """What one of the images is conditioned on, without what fills it up to the length of others."""
    one = slice(number, number + 1)
    length = max(1, int(condition.context_mask[number].sum()))
    return condition._replace(
        context=condition.context[one, :length],
        context_mask=condition.context_mask[one, :length],
        maps={name: (maps[one], there[one]) for name, (maps, there) in condition.maps.items()},
    )


def schedule(options: DiffusionOptions) -> Any:
    """diffusers' scheduler of Stable Diffusion, as DDIM (arXiv 2010.02502)."""
    from diffusers import DDIMScheduler

    make: Any = DDIMScheduler
    with torch.device("cpu"):
        return make(
            num_train_timesteps=options.train_steps,
            beta_start=options.beta_start,
            beta_end=options.beta_end,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=options.prediction,
        )


def diffused(options: DiffusionOptions, clean: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Latents `[N, c, G, G]` with noise of the steps `times` `[N]`, and what is to be predicted of them."""
    scheduler = schedule(options)
    noisy = scheduler.add_noise(clean, noise, times)
    if options.prediction == "sample":
        return noisy, clean
    return noisy, noise if options.prediction == "epsilon" else scheduler.get_velocity(clean, noise, times)


def initial(options: DiffusionOptions, channels: int, seed: int) -> Tensor:
    """Noise `[1, c, G, G]` that an image begins with, the same on every device."""
    shape = (1, options.latent_channels(channels), options.side, options.side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
