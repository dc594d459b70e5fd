"""Options of the flow head. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mio import UserError, number, one_of

SAMPLED = ("steps", "guidance", "guided_above", "renormalise", "sampling_shift")
"""Options of the sampler, which change nothing that is learnt."""
LEARNT = ("shift", "drop")
"""Options of what is drawn for the loss, which a further stage may change."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderOptions:
    """The autoencoder (diffusers' `AutoencoderKL`). The defaults are those of FLUX.1, which BAGEL has."""

    checkpoint: str = ""
    """Folder of an autoencoder in the layout of diffusers: black-forest-labs/FLUX.1-schnell's `vae`. Empty: weights are
    drawn."""
    channels: Sequence[int] = number(lambda: [128, 256, 512, 512], 1, 65_536)
    """Of its blocks; each but the last halves the sides."""
    layers: int = number(2, 1, 64)
    """Of each block."""
    latents: int = number(16, 1, 4096)
    """Channels of its latents."""
    norm_groups: int = number(32, 1, 4096)
    """Groups of its group norms."""
    quant_conv: bool = False
    """Whether it has convolutions around its latents, as Stable Diffusion's has."""
    scale: float = number(0.3611, 0, 1000, above=True)
    shift: float = number(0.1159, -1000, 1000)
    """What is made are `(latents - shift) * scale`."""


@dataclass(frozen=True, kw_only=True)
class FlowOptions:
    """Options of the plugin; the defaults are BAGEL's (`modeling/bagel/bagel.py`, `inferencer.py` and
    `train/pretrain_unified_navit.py` of github.com/ByteDance-Seed/Bagel)."""

    modality: str = "image"
    """What is made; its files are pictures."""
    image_size: int = number(1024, 1, 8192)
    """Side in pixels of what is made. What is learnt is cut to the square in its middle, and resized."""
    channels: int = number(3, 1, 3)
    """3 (RGB) or 1 (grey)."""
    latents: str = one_of("vae", "vae", "pixels")
    """What flows: `vae`, the latents of an autoencoder, or `pixels`, the picture itself, from -1 to 1."""
    vae: AutoencoderOptions = field(default_factory=AutoencoderOptions)
    patch: int = number(2, 1, 1024)
    """Side of the square of latents (or of pixels) that is one position."""
    frequencies: int = number(256, 2, 65_536)
    """Features of a timestep that its network is given."""
    shift: float = number(1.0, 0, 1000, above=True)
    """Shift of the timesteps that are learnt: above 1, more noise (arXiv 2403.03206, section 5.3.2)."""
    drop: float = number(0.1, 0, 1, below=True)
    """Share of pictures that are learnt without anything before them, for guidance."""
    steps: int = number(49, 1, 1_000_000)
    """Of the sampler."""
    sampling_shift: float = number(3.0, 0, 1000, above=True)
    """Shift of the timesteps of the sampler."""
    guidance: float = number(4.0, 0, 1000, above=True)
    """Weight of classifier-free guidance; 1 is none."""
    guided_above: float = number(0.4, 0, 1)
    """Guidance ends at this timestep: below, little noise is left."""
    renormalise: str = one_of("global", "global", "channel", "none")
    """What guidance may not make longer: `global`, a picture's velocity as a whole; `channel`, that of each of its
    positions; `none`."""

    def __post_init__(self) -> None:
        problems = []
        if self.channels not in (1, 3):
            problems.append(f"`channels` is {self.channels}, must be 1 or 3")
        if self.image_size % (self.cell * self.patch):
            problems.append(
                f"`image_size` {self.image_size} must be a multiple of {self.cell * self.patch}, the side in pixels of "
                "what one position makes"
            )
        if self.frequencies % 2:
            problems.append(f"`frequencies` {self.frequencies} must be even")
        if self.latents == "vae" and any(width % self.vae.norm_groups for width in self.vae.channels):
            problems.append(f"`vae.channels` must be multiples of `vae.norm_groups`, {self.vae.norm_groups}")
        if self.latents == "pixels" and self.vae != AutoencoderOptions():
            problems.append("`vae` is for `latents: vae`; leave it out, or leave out `latents: pixels`")
        if problems:
            raise UserError("; ".join(f"plugins.flow_head: {problem}" for problem in problems))

    @property
    def cell(self) -> int:
        """Side in pixels of what one cell of the latents stands for."""
        return 2 ** (len(self.vae.channels) - 1) if self.latents == "vae" else 1

    @property
    def latent_channels(self) -> int:
        """Channels of what flows."""
        return self.vae.latents if self.latents == "vae" else self.channels

    @property
    def side(self) -> int:
        """Positions on a side of a picture."""
        return self.image_size // (self.cell * self.patch)

    @property
    def positions(self) -> int:
        """Positions of a picture."""
        return self.side**2

    @property
    def features(self) -> int:
        """Numbers that one position makes."""
        return self.latent_channels * self.patch**2

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that arrays and the shapes of parameters depend on."""
        kept = {name: value for name, value in asdict(self).items() if name not in (*SAMPLED, *LEARNT)}
        if self.latents == "vae":
            kept["vae"].pop("checkpoint")  # without effect once a run has weights of its own
        else:
            kept.pop("vae")
        return kept
