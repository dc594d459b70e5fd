"""Options of MM-Interleaved's networks. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mio import UserError, number, one_of

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

SAMPLED = ("steps", "guidance", "drop", "images", "context", "least")
"""Options of diffusion that its parameters and arrays do not depend on."""


@dataclass(frozen=True, kw_only=True)
class VisionOptions:
    """CLIP's vision transformer with ViT-Adapter. The defaults are CLIP ViT-L/14's."""

    image_size: int = number(224, 1, 8192)
    """Side in pixels of the square that is cut from the middle of every image and resized."""
    patch: int = number(14, 1, 1024)
    """Side in pixels of a patch. Sides of the maps are 4, 2, 1 and a half times the number of patches on a side."""
    width: int = number(1024, 4, 65_536)
    layers: int = number(24, 1, 1000)
    heads: int = number(16, 1, 4096)
    ffn_width: int = number(4096, 1, 1_000_000)
    groups: int = number(4, 1, 1000)
    """Groups of layers between which vision transformer and adapter exchange."""
    planes: int = number(64, 1, 65_536)
    """Channels of the adapter's first convolution."""
    points: int = number(4, 1, 64)
    """Places that a head of the adapter's attention reads in a map."""
    ratio: float = number(0.5, 0, 16, above=True)
    """Width of the adapter's values, as a share of the width."""

    @property
    def grid(self) -> int:
        """Patches on a side."""
        return self.image_size // self.patch

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the maps, the finest first."""
        return (4 * self.grid, 2 * self.grid, self.grid, self.grid // 2)

    @property
    def cells(self) -> int:
        """Cells of all maps of an image."""
        return sum(side * side for side in self.sides)


@dataclass(frozen=True, kw_only=True)
class ResamplerOptions:
    """The Q-Former that makes an image's positions. The defaults are BLIP-2's."""

    positions: int = number(64, 1, 65_536)
    """Positions that an image takes."""
    width: int = number(768, 4, 65_536)
    layers: int = number(12, 1, 1000)
    heads: int = number(12, 1, 4096)
    ffn_width: int = number(3072, 1, 1_000_000)
    every: int = number(2, 1, 1000)
    """Every so many layers, the first one included, read the image."""


@dataclass(frozen=True, kw_only=True)
class SynchroniserOptions:
    """The synchroniser in layers of the language model."""

    every: int = number(4, 0, 10_000)
    """Every so many layers have one, beginning with the first. 0: none has."""
    levels: int = number(3, 1, 4)
    """Levels of the maps that they read: all but the finest, or the coarsest alone."""
    width: int = number(1024, 1, 65_536)
    """Width of the values."""
    heads: int = number(16, 1, 4096)
    points: int = number(8, 1, 1024)
    """Places that a head reads in a map."""
    magnitude: float = number(3.0, 0, 1000)
    """How far from the centre of an image places begin at most, in patches."""
    images: int = number(50, 2, 100_000)
    """A position sees fewer images than this; they are told apart by their number."""
    epsilon: float = number(1e-6, 0, 1, above=True)
    """Of the norms: the language model's."""


@dataclass(frozen=True, kw_only=True)
class PerceiverOptions:
    """The Q-Former that makes the U-Net's condition of hidden states."""

    queries: int = number(77, 1, 65_536)
    width: int = number(1024, 4, 65_536)
    """Also the width that the U-Net's cross-attention reads."""
    layers: int = number(1, 1, 1000)
    heads: int = number(16, 1, 4096)
    ffn_width: int = number(3072, 1, 1_000_000)
    every: int = number(1, 1, 1000)
    """Every so many layers, the first one included, read the hidden states."""


@dataclass(frozen=True, kw_only=True)
class DiffusionOptions:
    """The network that makes images. The defaults are Stable Diffusion 2.1 base's."""

    image_size: int = number(512, 1, 8192)
    """Side in pixels of images that are made; those that are learnt are cut as those that are read."""
    latents: str = one_of("vae", "vae", "pixels")
    """What the U-Net works on: `vae`, the latents of Stable Diffusion's autoencoder, or `pixels`, squares of them."""
    square: int = number(8, 1, 64)
    """Side in pixels of what becomes one cell of the latents. The autoencoder's follows from its channels."""
    vae_channels: Sequence[int] = number(lambda: [128, 256, 512, 512], 1, 65_536)
    vae_layers: int = number(2, 1, 64)
    """Of each of the autoencoder's blocks."""
    vae_latents: int = number(4, 1, 4096)
    """Channels of its latents."""
    vae_scale: float = number(0.18215, 0, 1000, above=True)
    """Factor on its latents."""
    channels: Sequence[int] = number(lambda: [320, 640, 1280, 1280], 1, 65_536)
    """Of the U-Net's blocks. All but the last read the condition."""
    heads: Sequence[int] = number(lambda: [5, 10, 20, 20], 1, 4096)
    """Of attention in each of them."""
    layers: int = number(2, 1, 64)
    """Of each of them."""
    norm_groups: int = number(32, 1, 4096)
    """Groups of the group norms."""
    prediction: str = one_of("epsilon", "epsilon", "v_prediction", "sample")
    """What the U-Net is to predict: the noise, Stable Diffusion 2.1's velocity, or, best where a cell has many channels
    (arXiv 2511.13720), the image."""
    train_steps: int = number(1000, 2, 1_000_000)
    """Steps of noise."""
    beta_start: float = number(0.00085, 0, 1, above=True)
    beta_end: float = number(0.012, 0, 1, above=True)
    """Variances of the first step and the last; square roots of those between are evenly spaced."""
    sync_width: int = number(1024, 1, 65_536)
    """Width of the values of its synchronisers."""
    sync_heads: int = number(16, 1, 4096)
    sync_points: int = number(8, 1, 1024)
    sync_magnitude: float = number(1.0, 0, 1000)
    """How far from a cell places begin at most, in cells."""
    sync_images: int = number(10, 2, 100_000)
    images: int = number(1, 0, 100_000)
    """Images right before the one that is made, whose maps its synchronisers read. 0: none are there."""
    context: int = number(2048, 1, 1_000_000)
    """Positions before an image whose hidden states its condition is made of, at most."""
    least: int = number(3, 1, 1_000_000)
    """Images with a shorter context are not learnt to be made: that of an image that begins a document says nothing."""
    drop: float = number(0.1, 0, 1, below=True)
    """Share of images that are learnt without their context."""
    steps: int = number(30, 1, 1_000_000)
    """Of the sampler."""
    guidance: float = number(7.5, 0, 1000)
    """Weight of classifier-free guidance; 1 is none."""

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that arrays and the shapes of parameters depend on."""
        content = {name: value for name, value in asdict(self).items() if name not in SAMPLED}
        return {**content, "synchronised": self.images > 0}

    @property
    def side(self) -> int:
        """Side of the latents."""
        return self.image_size // self.cell

    @property
    def cell(self) -> int:
        """Side in pixels of what one cell of the latents stands for."""
        return 2 ** (len(self.vae_channels) - 1) if self.latents == "vae" else self.square

    def latent_channels(self, channels: int) -> int:
        """Channels of the latents of images with so many."""
        return self.vae_latents if self.latents == "vae" else channels * self.square**2

    @property
    def residuals(self) -> list[tuple[int, int]]:
        """Channels and side of what the U-Net's way down leaves to its way up, in order."""
        side, found = self.side, [(self.channels[0], self.side)]
        for index, channels in enumerate(self.channels):
            found += [(channels, side)] * self.layers
            if index < len(self.channels) - 1:
                side //= 2
                found.append((channels, side))
        return found


@dataclass(frozen=True, kw_only=True)
class MMInterleavedOptions:
    """Options of the plugin; the defaults are those of MM-Interleaved 13B."""

    checkpoint: str = ""
    """Folder or file with all weights of a trained MM-Interleaved. Empty: those below, or drawn ones."""
    clip: str = ""
    """Folder or file with the weights of CLIP's vision transformer (openai/clip-vit-large-patch14)."""
    diffusion_checkpoint: str = ""
    """Folder of Stable Diffusion 2.1 base in the layout of diffusers, with `unet` and `vae`, and `text_encoder` and
    `tokenizer` for the condition of an empty text."""
    grey: bool = False
    """Whether images have one channel; they are coloured otherwise."""
    mean: Sequence[float] = number(lambda: list(CLIP_MEAN), -10, 10)
    std: Sequence[float] = number(lambda: list(CLIP_STD), 0, 10, above=True)
    """Mean and standard deviation of each channel, of pixels from 0 to 1, of images that are read."""
    write: bool = True
    """Whether images are written too, by `diffusion`. Otherwise they are only read."""
    vision: VisionOptions = field(default_factory=VisionOptions)
    resampler: ResamplerOptions = field(default_factory=ResamplerOptions)
    layers: SynchroniserOptions = field(default_factory=SynchroniserOptions)
    perceiver: PerceiverOptions = field(default_factory=PerceiverOptions)
    diffusion: DiffusionOptions = field(default_factory=DiffusionOptions)

    def __post_init__(self) -> None:
        problems = [*self._of_vision(), *self._of_diffusion()]
        for name, part in (("resampler", self.resampler), ("perceiver", self.perceiver)):
            if part.width % part.heads:
                problems.append(f"`{name}.width` {part.width} must be a multiple of its `heads`, {part.heads}")
        if self.layers.width % self.layers.heads:
            problems.append(f"`layers.width` {self.layers.width} must be a multiple of `heads`, {self.layers.heads}")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in {self.channels, 3}:
                problems.append(f"`{name}` has {len(getattr(self, name))} numbers, must have {self.channels}")
        if problems:
            raise UserError("; ".join(f"plugins.mm_interleaved: {problem}" for problem in problems))

    def _of_vision(self) -> list[str]:
        vision, problems = self.vision, []
        if vision.image_size % (2 * vision.patch):
            problems.append(
                f"`vision.image_size` {vision.image_size} must be an even multiple of `patch`, {vision.patch}: the "
                "coarsest map has half as many cells on a side as there are patches"
            )
        if vision.width % (4 * vision.heads):
            problems.append(f"`vision.width` {vision.width} must be a multiple of 4 x `heads`, {4 * vision.heads}")
        if int(vision.width * vision.ratio) % vision.heads or int(vision.width * vision.ratio) < vision.heads:
            problems.append(f"`vision.ratio` x `width` must be a multiple of `heads`, {vision.heads}")
        if vision.layers % vision.groups:
            problems.append(f"`vision.layers` {vision.layers} must be a multiple of `groups`, {vision.groups}")
        return problems

    def _of_diffusion(self) -> list[str]:
        diffusion, problems = self.diffusion, []
        if not self.write:
            return []
        if len(diffusion.heads) != len(diffusion.channels):
            problems.append(
                f"`diffusion.heads` has {len(diffusion.heads)} numbers, must have as many as `channels`, "
                f"{len(diffusion.channels)}"
            )
        smallest = diffusion.cell * 2 ** (len(diffusion.channels) - 1)
        if diffusion.image_size % smallest:
            problems.append(
                f"`diffusion.image_size` {diffusion.image_size} must be a multiple of {smallest}, the side in pixels "
                "of a cell of the smallest residual"
            )
        normed = {"channels": diffusion.channels}
        if diffusion.latents == "vae":
            normed["vae_channels"] = diffusion.vae_channels
        for name, values in normed.items():
            if any(value % diffusion.norm_groups for value in values):
                problems.append(f"`diffusion.{name}` must be multiples of `norm_groups`, {diffusion.norm_groups}")
        if any(value % 4 for value in diffusion.channels):
            problems.append("`diffusion.channels` must be multiples of 4")
        if any(value % heads for value, heads in zip(diffusion.channels, diffusion.heads, strict=False)):
            problems.append("`diffusion.channels` must be multiples of `heads`")
        if diffusion.sync_width % diffusion.sync_heads:
            problems.append(f"`diffusion.sync_width` must be a multiple of `sync_heads`, {diffusion.sync_heads}")
        if diffusion.images >= diffusion.sync_images:
            problems.append(
                f"`diffusion.images` is {diffusion.images}, must be below `sync_images`, {diffusion.sync_images}"
            )
        return problems

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return 1 if self.grey else 3

    @property
    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel."""
        mean, std = list(self.mean), list(self.std)
        if self.grey and len(mean) == 3:
            mean = [sum(mean) / 3]
        if self.grey and len(std) == 3:
            std = [sum(std) / 3]
        return mean, std
