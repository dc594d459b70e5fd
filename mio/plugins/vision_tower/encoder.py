"""How images become embeddings: the `Encoder` of the modality `image`. Without torch until the network is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mio.plugins.vision_tower.options import VisionTowerOptions
from mio.plugins.vision_tower.tiles import count_tiles, tiles

if TYPE_CHECKING:
    from torch import Tensor, nn

VERSION = 1
"""Version of the preprocessing; part of the fingerprint."""


class ImageEncoder:
    """Encoder (`mio.Encoder`) of images: tiles uint8 `[T, S, S, C]`, normalised on the network's device."""

    def __init__(self, options: VisionTowerOptions) -> None:
        self.options = options
        self.together = options.attention == "full"
        content = json.dumps([VERSION, options.identity], sort_keys=True)
        self.fingerprint = f"vision-tower-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def positions(self, media: Any) -> int:
        """Positions of all tiles of an image. Raises `DataError` for anything but an image, and one that is tiny."""
        return count_tiles(media, self.options) * self.options.tile_positions

    def prepare(self, media: Any) -> Mapping[str, npt.NDArray[np.generic]]:
        """`tiles` uint8 `[T, S, S, C]`. Raises `DataError` as `positions` does."""
        return {"tiles": tiles(media, self.options)}

    def dummy(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """One black tile for each of the fewest tiles that an image may have."""
        side, channels = self.options.image_size, self.options.channels
        return self.prepare(np.zeros((side, side, 3) if channels == 3 else (side, side), np.uint8))

    def module(self, width: int) -> nn.Module:
        """Tower and projector, embeddings `[S, width]`."""
        from mio.plugins.vision_tower.tower import VisionTower

        return VisionTower(self.options, width)

    def weights(self) -> Mapping[str, Tensor]:
        """Tensors of the checkpoints by name of a parameter; none without a checkpoint. Raises `UserError`, see
        `weights.py`."""
        from mio.plugins.vision_tower.weights import pretrained

        return pretrained(self.options)
