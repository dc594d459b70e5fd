"""Images as the networks take them. NumPy and Pillow."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mio import DataError

Pixels = npt.NDArray[np.uint8]


def square(image: Any, side: int, grey: bool) -> Pixels:
    """The largest square in the middle of an image, resized: uint8 `[1, side, side, 1 or 3]`.

    It is halved by averaging while it is at least twice as large, and then resized, bicubic (`center_crop_arr` of
    `mm_interleaved/custom_datasets/utils.py` in github.com/OpenGVLab/MM-Interleaved). Raises `DataError` as `checked`.
    """
    from PIL import Image

    picture = Image.fromarray(checked(image)).convert("L" if grey else "RGB")
    while min(picture.size) >= 2 * side:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = side / min(picture.size)
    size = (max(side, round(picture.width * scale)), max(side, round(picture.height * scale)))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    cut = np.asarray(picture.crop((left, top, left + side, top + side)), np.uint8)
    return cut.reshape(1, side, side, -1)


def checked(image: Any) -> Pixels:
    """Pixels uint8 `[H, W]` or `[H, W, 3]`. Raises `DataError` for anything else."""
    pixels: npt.NDArray[Any] = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or not pixels.size:
        raise DataError(
            "plugins.mm_interleaved: an image must be uint8 [H, W] or [H, W, 3], this is "
            f"{pixels.dtype} {list(pixels.shape)}"
        )
    return pixels
