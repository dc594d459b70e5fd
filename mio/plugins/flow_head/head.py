"""How pictures are learnt and made: the `Head`. Without torch until the network is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mio import DataError
from mio.plugins.flow_head import times
from mio.plugins.flow_head.options import FlowOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    Arrays = Mapping[str, npt.NDArray[np.generic]]

VERSION = 1
"""Version of what is made of pictures; part of the fingerprint."""


class FlowHead:
    """Head (`mio.Head`) of pictures: one position for each patch, and no condition beside what these see."""

    def __init__(self, options: FlowOptions) -> None:
        self.options = options
        self.context = 0
        self.maps: Mapping[str, int] = {}
        self.drop, self.writes = options.drop, options.positions
        content = json.dumps([VERSION, options.identity], sort_keys=True)
        self.fingerprint = f"flow-head-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def positions(self, media: Any) -> int:
        """As many for every picture. Raises `DataError` for anything else."""
        checked(media)
        return self.options.positions

    def target(self, media: Any) -> Arrays:
        """`pixels` uint8 `[1, I, I, C]`. Raises `DataError` for anything but a picture."""
        return {"pixels": square(media, self.options.image_size, self.options.channels)}

    def noise(self, target: Arrays, random: np.random.Generator) -> Arrays:  # noqa: ARG002
        """`noise` float32 `[1, P, F]`, the `time` float32 `[1]` that says how much of it there is, and, for an
        autoencoder, what its latents are drawn by, `draw` float32 `[1, c, G, G]`."""
        options = self.options
        drawn: dict[str, npt.NDArray[np.generic]] = {
            "noise": random.standard_normal((1, options.positions, options.features), np.float32),
            "time": np.array([times.drawn(random, options.shift)], np.float32),
        }
        if options.latents == "vae":
            side = options.side * options.patch
            drawn["draw"] = random.standard_normal((1, options.latent_channels, side, side), np.float32)
        return drawn

    def example(self) -> npt.NDArray[np.uint8]:
        """A black picture as it is made: uint8 `[I, I, 3]`, or `[I, I]` of grey ones."""
        side, channels = self.options.image_size, self.options.channels
        return np.zeros((side, side, 3) if channels == 3 else (side, side), np.uint8)

    def module(self, width: int) -> nn.Module:
        """The network: losses, and pictures. Raises `UserError` for a width that is no multiple of 4."""
        from mio.plugins.flow_head.network import FlowNetwork

        return FlowNetwork(self.options, width)

    def weights(self) -> Mapping[str, Tensor]:
        """Pretrained tensors of the autoencoder by name of a parameter. Raises `UserError`, see `weights.py`."""
        from mio.plugins.flow_head.weights import pretrained

        return pretrained(self.options)

    def save(self, media: Any, stem: Path) -> Path:
        """A PNG file."""
        from PIL import Image

        path = stem.with_name(stem.name + ".png")
        Image.fromarray(checked(media)).save(path)
        return path


def square(image: Any, side: int, channels: int) -> npt.NDArray[np.uint8]:
    """The largest square in the middle of a picture, resized (bicubic): uint8 `[1, side, side, channels]`. Raises
    `DataError` as `checked`."""
    from PIL import Image

    picture = Image.fromarray(checked(image)).convert("RGB" if channels == 3 else "L")
    width, height = picture.size
    if (width, height) != (side, side):
        cut = min(width, height)
        left, top = (width - cut) // 2, (height - cut) // 2
        picture = picture.crop((left, top, left + cut, top + cut)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture, np.uint8).reshape(1, side, side, channels)


def checked(image: Any) -> npt.NDArray[np.uint8]:
    """Pixels uint8 `[H, W]` or `[H, W, 3]`. Raises `DataError` for anything else."""
    pixels: npt.NDArray[Any] = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or not pixels.size:
        raise DataError(
            f"plugins.flow_head: a picture must be uint8 [H, W] or [H, W, 3], this is {pixels.dtype} "
            f"{list(pixels.shape)}"
        )
    return pixels
