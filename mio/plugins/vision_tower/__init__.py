"""Images read by a vision transformer inside the model: VITA's way (arXiv 2408.05211), which is InternVL's.

InternViT (arXiv 2312.14238; the network is timm's), the pixel shuffle that makes one position of 2 x 2 patches, and a
projector to the transformer's width. A large image is cut into up to twelve tiles, with a small copy of the whole
behind them; a position is 28 x 28 pixels of a tile, 256 positions a tile.

    image: {tokenizer: none}      # or a tokenizer, whose codes are then for images that are written
    vision_tower: {checkpoint: OpenGVLab/InternViT-300M-448px}

Options are the fields of `VisionTowerOptions`; the defaults are VITA's. Parameters are called `encoders.image.tower.*`
and `encoders.image.projector.*` in rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mio import hookimpl, read_options
from mio.plugins.vision_tower.options import VisionTowerOptions

if TYPE_CHECKING:
    from mio import Encoder


@hookimpl
def mio_encoder(modality: str, options: Mapping[str, Any]) -> Encoder | None:
    if modality != "image":
        return None
    from mio.plugins.vision_tower.encoder import ImageEncoder

    return ImageEncoder(read_options(VisionTowerOptions, options, "plugins.vision_tower"))
