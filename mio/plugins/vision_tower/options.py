"""Options of the vision tower. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mio import UserError, number, one_of

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ELSEWHERE = ("attention",)
"""Options that the network and its arrays do not depend on."""
STORED = ("checkpoint", "projector_checkpoint", "layer_scale")
"""Options that say what parameters begin with: without effect once a run has weights of its own."""


@dataclass(frozen=True, kw_only=True)
class VisionTowerOptions:
    """Options of the plugin; the defaults are those of VITA's InternViT-300M-448px."""

    checkpoint: str = ""
    """Folder or file with the tower's weights, in the layout of OpenGVLab/InternViT-300M-448px, of timm, or of a whole
    VITA, whose projector is then taken too. Empty: weights are drawn."""
    projector_checkpoint: str = ""
    """Folder or file with the projector's weights: VITA's `mm_projector.bin`, a whole VITA, or a whole Janus."""
    image_size: int = number(448, 1, 8192)
    """Side in pixels of a tile."""
    patch: int = number(14, 1, 1024)
    """Side in pixels of a patch."""
    channels: int = number(3, 1, 3)
    """3 (RGB) or 1 (grey)."""
    width: int = number(1024, 1, 65_536)
    layers: int = number(24, 1, 1000)
    heads: int = number(16, 1, 4096)
    ffn_width: int = number(4096, 1, 1_000_000)
    """Hidden size of the feed-forward networks."""
    layer_scale: float = number(0.1, 0, 100)
    """What LayerScale's factors are drawn as."""
    shuffle: int = number(2, 1, 64)
    """Side, in patches, of the square that pixel shuffle joins into one position; 1 joins none."""
    feature_scale: float = number(0.5, 0, 1000, above=True)
    """Factor on the tower's features before they are joined (VITA's `scale_pix_shuffle`; InternVL has none)."""
    projector_layers: int = number(2, 1, 16)
    """Linear layers of the projector, with GELU between them: 2 is `mlp2x_gelu`."""
    min_tiles: int = number(1, 1, 1024)
    max_tiles: int = number(12, 1, 1024)
    """Fewest and most tiles of an image. 1 for both cuts none: the image is stretched to one tile."""
    thumbnail: bool = True
    """Whether an image of several tiles is also shown whole, behind them."""
    min_side: int = number(2, 1, 8192)
    """Images whose shorter side in pixels is below are refused: they are placeholders, not pictures."""
    attention: str = one_of("causal", "causal", "full")
    """What positions of an image see of it in the transformer: `causal`, those before them; `full`, all, as in BAGEL.
    """
    mean: Sequence[float] = number(lambda: list(IMAGENET_MEAN), -10, 10)
    std: Sequence[float] = number(lambda: list(IMAGENET_STD), 0, 10, above=True)
    """Mean and standard deviation of each channel, of pixels from 0 to 1. Grey images take the average of three."""

    def __post_init__(self) -> None:
        if problems := self.problems():
            raise UserError("; ".join(f"plugins.vision_tower: {problem}" for problem in problems))

    def problems(self) -> list[str]:
        """What does not go together."""
        problems = []
        if self.channels not in (1, 3):
            problems.append(f"`channels` is {self.channels}, must be 1 or 3")
        if self.image_size % (self.patch * self.shuffle):
            problems.append(
                f"`image_size` {self.image_size} must be a multiple of `patch` x `shuffle`, {self.patch * self.shuffle}"
            )
        if self.width % self.heads:
            problems.append(f"`width` {self.width} must be a multiple of `heads` {self.heads}")
        if self.min_tiles > self.max_tiles:
            problems.append(f"`min_tiles` is {self.min_tiles}, must be at most `max_tiles`, {self.max_tiles}")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in {self.channels, 3}:
                problems.append(f"`{name}` has {len(getattr(self, name))} numbers, must have {self.channels}")
        return problems

    @property
    def network(self) -> dict[str, Any]:
        """What makes timm's `VisionTransformer` this tower, beside its sizes: `vit_intern300m_patch14_448`, which has
        no norm behind the layers."""
        return {"init_values": self.layer_scale, "final_norm": False}

    @property
    def background(self) -> Sequence[int] | None:
        """Colour with which an image becomes square; None where it is stretched."""
        return None

    @property
    def tile_positions(self) -> int:
        """Positions of one tile."""
        return (self.image_size // (self.patch * self.shuffle)) ** 2

    @property
    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each of the `channels`."""
        mean, std = list(self.mean), list(self.std)
        if self.channels == 1:
            mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
        return mean, std

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that positions, arrays and the shapes of parameters depend on."""
        return {name: value for name, value in asdict(self).items() if name not in (*STORED, *ELSEWHERE)}


@dataclass(frozen=True, kw_only=True)
class SiglipOptions(VisionTowerOptions):
    """Options of `tower: siglip` (arXiv 2303.15343); the defaults are those of Janus's SigLIP-L/16-384."""

    checkpoint: str = ""
    """Folder or file with the tower's weights, in the layout of google/siglip-large-patch16-384, of timm, or of a whole
    Janus in the layout of transformers, whose aligner is then taken too. Empty: weights are drawn."""
    image_size: int = number(384, 1, 8192)
    patch: int = number(16, 1, 1024)
    layer_scale: float = number(0.0, 0, 0)
    """SigLIP has none."""
    shuffle: int = number(1, 1, 64)
    feature_scale: float = number(1.0, 0, 1000, above=True)
    max_tiles: int = number(1, 1, 1024)
    mean: Sequence[float] = number(lambda: [0.5, 0.5, 0.5], -10, 10)
    std: Sequence[float] = number(lambda: [0.5, 0.5, 0.5], 0, 10, above=True)
    fit: str = one_of("pad", "pad", "stretch")
    """How an image becomes square where it is not cut into tiles: `pad` with the colour `mean`, which keeps its aspect
    ratio, as Janus does; `stretch`, as SigLIP does."""
    activation: str = one_of("gelu", "gelu", "gelu_tanh")
    """`gelu`: Janus's and timm's; `gelu_tanh`: that of google/siglip in transformers, its approximation."""

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.fit == "pad" and self.max_tiles > 1:
            problems.append("`fit: pad` is for images that are not cut: give `max_tiles: 1`, or `fit: stretch`")
        return problems

    @property
    def network(self) -> dict[str, Any]:
        """timm's `vit_large_patch16_siglip_384` without the head that pools: no class token, a norm behind the
        layers."""
        return {"class_token": False, "act_layer": self.activation}

    @property
    def background(self) -> Sequence[int] | None:
        return [int(255 * value) for value in self.statistics[0]] if self.fit == "pad" else None

    @property
    def identity(self) -> dict[str, Any]:
        return {"tower": "siglip", **super().identity}


TOWERS: dict[str, type[VisionTowerOptions]] = {"internvit": VisionTowerOptions, "siglip": SiglipOptions}
