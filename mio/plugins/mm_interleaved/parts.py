"""What the contract asks for: the encoder of images, the networks in layers, the head that makes images. Without torch
until a network is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mio.plugins.mm_interleaved.options import MMInterleavedOptions
from mio.plugins.mm_interleaved.pictures import checked, square

if TYPE_CHECKING:
    from torch import Tensor, nn

    Arrays = Mapping[str, npt.NDArray[np.generic]]

IMAGE = "image"
VERSION = 1
"""Version of what is made of images; part of the fingerprints."""


def fingerprint(part: str, *content: Any) -> str:
    """Of a part, by everything that its arrays and parameters depend on."""
    text = json.dumps([VERSION, *content], sort_keys=True)
    return f"mm-interleaved-{part}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class ImageEncoder:
    """Encoder (`mio.Encoder`) of images: CLIP with ViT-Adapter, and a Q-Former. Of its maps the finest come first."""

    def __init__(self, options: MMInterleavedOptions) -> None:
        self.options = options
        self.maps = (options.vision.cells, options.vision.width)
        self.fingerprint = fingerprint(
            "encoder", options.grey, asdict(options.vision), asdict(options.resampler), *options.statistics
        )

    def positions(self, media: Any) -> int:
        """As many for every image. Raises `DataError` for anything but an image."""
        checked(media)
        return self.options.resampler.positions

    def prepare(self, media: Any) -> Arrays:
        """`pixels` uint8 `[1, side, side, channels]`. Raises `DataError` for anything but an image."""
        return {"pixels": square(media, self.options.vision.image_size, self.options.grey)}

    def dummy(self) -> Arrays:
        """A black image."""
        return self.prepare(np.zeros((self.options.vision.image_size,) * 2, np.uint8))

    def module(self, width: int) -> nn.Module:
        """The network, `(embeddings [S, width], maps [N, cells, channels])`."""
        from mio.plugins.mm_interleaved.reader import ImageReader

        return ImageReader(self.options, width)

    def weights(self) -> Mapping[str, Tensor]:
        """Pretrained tensors by name of a parameter. Raises `UserError`, see `weights.py`."""
        from mio.plugins.mm_interleaved.weights import of_reader

        return of_reader(self.options)


class LayerAdapter:
    """Adapter (`mio.Adapter`): synchronisers in every so many layers."""

    def __init__(self, options: MMInterleavedOptions) -> None:
        self.options = options
        self.reads = IMAGE
        self.fingerprint = fingerprint("layers", asdict(options.layers), options.vision.sides, options.vision.width)

    def layers(self, count: int) -> Sequence[int]:
        """The first one and every so many after it."""
        return range(0, count, self.options.layers.every)

    def module(self, width: int) -> nn.Module:
        """The network of a layer."""
        from mio.plugins.mm_interleaved.layers import LayerSynchroniser

        return LayerSynchroniser(self.options, width)

    def weights(self) -> Mapping[str, Tensor]:
        """Pretrained tensors by layer and name of a parameter. Raises `UserError`, see `weights.py`."""
        from mio.plugins.mm_interleaved.weights import of_layers

        return of_layers(self.options)


class ImageHead:
    """Head (`mio.Head`) of images: a condition of the hidden states before, and diffusion. It has no positions."""

    def __init__(self, options: MMInterleavedOptions) -> None:
        self.options = options
        diffusion, vision = options.diffusion, options.vision
        self.context, self.drop, self.writes = diffusion.context, diffusion.drop, 0
        self.maps: Mapping[str, int] = {IMAGE: diffusion.images} if diffusion.images else {}
        self.fingerprint = fingerprint(
            "head", options.grey, asdict(options.perceiver), diffusion.identity, vision.sides, vision.width
        )

    def positions(self, media: Any) -> int:
        """None. Raises `DataError` for anything but an image."""
        checked(media)
        return 0

    def target(self, media: Any) -> Arrays:
        """`pixels` uint8 `[1, side, side, channels]`. Raises `DataError` for anything but an image."""
        return {"pixels": square(media, self.options.diffusion.image_size, self.options.grey)}

    def noise(self, target: Arrays, random: np.random.Generator) -> Arrays:  # noqa: ARG002
        """`noise` float32 `[1, c, G, G]`, its step `times` int64 `[1]`, and, for an autoencoder, what its latents are
        drawn by, `draw`."""
        diffusion = self.options.diffusion
        shape = (1, diffusion.latent_channels(self.options.channels), diffusion.side, diffusion.side)
        drawn: dict[str, npt.NDArray[np.generic]] = {
            "noise": random.standard_normal(shape, np.float32),
            "times": random.integers(diffusion.train_steps, size=1),
        }
        if diffusion.latents == "vae":
            drawn["draw"] = random.standard_normal(shape, np.float32)
        return drawn

    def example(self) -> Any:
        """A black image of the size that all have."""
        side = self.options.diffusion.image_size
        return np.zeros((side, side) if self.options.grey else (side, side, 3), np.uint8)

    def module(self, width: int) -> nn.Module:
        """The network: losses, and images."""
        from mio.plugins.mm_interleaved.painter import ImagePainter

        return ImagePainter(self.options, width)

    def weights(self) -> Mapping[str, Tensor]:
        """Pretrained tensors by name of a parameter. Raises `UserError`, see `weights.py`."""
        from mio.plugins.mm_interleaved.weights import of_painter

        return of_painter(self.options)

    def save(self, media: Any, stem: Path) -> Path:
        """A PNG file."""
        from PIL import Image

        path = stem.with_name(stem.name + ".png")
        Image.fromarray(checked(media)).save(path)
        return path
