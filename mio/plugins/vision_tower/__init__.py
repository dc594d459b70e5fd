"""Images read by a vision transformer inside the model: as VITA does (arXiv 2408.05211), or as Janus does.

VITA's way is InternVL's: InternViT (arXiv 2312.14238; the network is timm's), the pixel shuffle that makes one position
of 2 x 2 patches, and a projector to the transformer's width. A large image is cut into up to twelve tiles, with a small
copy of the whole behind them; a position is 28 x 28 pixels of a tile, 256 positions a tile.

    image: {tokenizer: none}      # or a tokenizer, whose codes are then for images that are written
    vision_tower: {checkpoint: OpenGVLab/InternViT-300M-448px}

Janus (arXiv 2410.13848) reads an image whole, padded to a square: SigLIP (arXiv 2303.15343), one position for each of
24 x 24 patches, and a projector, which it calls aligner.

    image: {tokenizer: janus, checkpoint: deepseek-community/Janus-Pro-1B}     # codes, for images that are written
    vision_tower: {tower: siglip, checkpoint: deepseek-community/Janus-Pro-1B}

Options are the fields of `VisionTowerOptions`, with VITA's defaults, or of `SiglipOptions`, with Janus's. Parameters
are called `encoders.image.tower.*` and `encoders.image.projector.*` in rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mio import UserError, hookimpl, read_options
from mio.plugins.vision_tower.options import TOWERS

if TYPE_CHECKING:
    from mio import Encoder


@hookimpl
def mio_paths() -> Sequence[str]:
    return ["checkpoint", "projector_checkpoint"]


@hookimpl
def mio_requires() -> Sequence[str]:
    return ["image"]


@hookimpl
def mio_encoder(modality: str, options: Mapping[str, Any]) -> Encoder | None:
    if modality != "image":
        return None
    from mio.plugins.vision_tower.encoder import ImageEncoder

    rest = dict(options)
    tower = rest.pop("tower", "internvit")
    if not isinstance(tower, str) or tower not in TOWERS:
        raise UserError(f"plugins.vision_tower: unknown tower `{tower}`; known are {', '.join(TOWERS)}")
    return ImageEncoder(read_options(TOWERS[tower], rest, "plugins.vision_tower"))
