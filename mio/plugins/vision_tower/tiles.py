"""Images as tiles: InternVL's dynamic resolution (arXiv 2404.16821, section 3.3), as VITA has it. NumPy and Pillow.

H, W: height and width of an image. T tiles of S x S pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mio import DataError
from mio.plugins.vision_tower.options import VisionTowerOptions

Pixels = npt.NDArray[np.uint8]

SHORTEST = 14
"""Fewest pixels that are left of the shorter side of an image that is padded: Janus's `min_size`."""


@cache
def grids(least: int, most: int) -> tuple[tuple[int, int], ...]:
    """Every (columns, rows) of `least` to `most` tiles, those of fewer tiles first."""
    sides = range(1, most + 1)
    every = [(columns, rows) for columns in sides for rows in sides if least <= columns * rows <= most]
    return tuple(sorted(every, key=lambda grid: (grid[0] * grid[1], grid[0])))


@lru_cache(maxsize=4096)
def grid_of(width: int, height: int, side: int, least: int, most: int) -> tuple[int, int]:
    """(columns, rows) of an image's tiles: the grid whose shape is nearest to the image's.

    Of grids that are as near, a larger one only if the image has more than half of its pixels
    (`find_closest_aspect_ratio` of github.com/VITA-MLLM/VITA, `vita/util/data_utils_video_audio_neg_patch.py`).
    """
    shape, area = width / height, width * height
    best, distance = (1, 1), float("inf")
    for columns, rows in grids(least, most):
        off = abs(shape - columns / rows)
        if off < distance:
            best, distance = (columns, rows), off
        elif off == distance and area > 0.5 * side * side * columns * rows:
            best = (columns, rows)
    return best


def count_tiles(image: Any, options: VisionTowerOptions) -> int:
    """Tiles of an image, by its size alone. Raises `DataError` as `checked` does."""
    height, width = checked(image, options).shape[:2]
    columns, rows = _grid(width, height, options)
    return columns * rows + (options.thumbnail and columns * rows > 1)


def tiles(image: Any, options: VisionTowerOptions) -> Pixels:
    """Tiles of an image in reading order, uint8 `[T, S, S, C]`, the whole image behind them where there are several.

    The aspect ratio is not kept: the image is stretched to the grid, bicubic. An image that the options have padded is
    one tile. Raises `DataError` as `checked` does.
    """
    from PIL import Image

    side = options.image_size
    picture = Image.fromarray(checked(image, options)).convert("RGB" if options.channels == 3 else "L")
    if options.background is not None:
        return padded(picture, side, options.background)[None]
    columns, rows = _grid(*picture.size, options)
    stretched = _pixels(picture, columns * side, rows * side, options.channels)
    cut = stretched.reshape(rows, side, columns, side, options.channels).swapaxes(1, 2)
    cut = cut.reshape(rows * columns, side, side, options.channels)
    if options.thumbnail and rows * columns > 1:
        cut = np.concatenate([cut, _pixels(picture, side, side, options.channels)[None]])
    return np.ascontiguousarray(cut)


def padded(picture: Any, side: int, colour: Sequence[int]) -> Pixels:
    """An image as a square, uint8 `[S, S, C]`: its longer side made `side` pixels, bicubic, and `colour` at both ends
    of the other (`VLMImageProcessor` of github.com/deepseek-ai/Janus, `janus/models/image_processing_vlm.py`)."""
    factor = side / max(picture.size)
    width, height = (max(round(size * factor), min(SHORTEST, side)) for size in picture.size)
    resized = _pixels(picture, width, height, len(colour))
    square = np.empty((side, side, len(colour)), np.uint8)
    square[:] = colour
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = resized
    return square


def checked(image: Any, options: VisionTowerOptions) -> Pixels:
    """Pixels uint8 `[H, W]` or `[H, W, 3]`. Raises `DataError` for anything else, and an image that is too small."""
    pixels: npt.NDArray[Any] = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise DataError(
            f"plugins.vision_tower: an image must be uint8 [H, W] or [H, W, 3], this is {pixels.dtype} "
            f"{list(pixels.shape)}"
        )
    height, width = pixels.shape[:2]
    if min(height, width) < options.min_side:
        raise DataError(
            f"plugins.vision_tower: an image of {width} x {height} pixels is smaller than `min_side`, "
            f"{options.min_side}: leave it out, or lower the option"
        )
    return pixels


def _grid(width: int, height: int, options: VisionTowerOptions) -> tuple[int, int]:
    return grid_of(width, height, options.image_size, options.min_tiles, options.max_tiles)


def _pixels(picture: Any, width: int, height: int, channels: int) -> Pixels:
    from PIL import Image

    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, np.uint8).reshape(height, width, channels)
