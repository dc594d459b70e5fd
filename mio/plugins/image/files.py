"""Image files as arrays, and filters of records by image size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mio import DataError, Media, Record, number, read_options

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

# Named one by one: Pillow's other formats include some that call external programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")

MAX_PIXELS = 64_000_000
"""Largest width times height that is decoded; the header tells it before any pixel is."""


def size(path: Path) -> tuple[int, int]:
    """Width and height by the file's header. Raises `DataError`."""
    with _opened(path) as image:
        width, height = image.size
        return width, height


def read(path: Path) -> npt.NDArray[np.uint8]:
    """First picture of an image file, upright: uint8 `[H, W]` for a grey file, `[H, W, 3]` otherwise.

    Transparent parts become white. Raises `DataError` for a file that is damaged, too large, or no image.
    """
    from PIL import Image, ImageOps

    with _opened(path) as image:
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise DataError(f"{path}: damaged image: {error}") from error
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):
            return (np.asarray(image) >> 8).astype(np.uint8)
        # no copy of what is as it should be: a picture of the largest size takes 200 MB
        if image.mode in ("1", "L"):
            return np.asarray(image if image.mode == "L" else image.convert("L"))
        if "A" in image.getbands() or "transparency" in image.info:
            transparent = image.convert("RGBA")
            white = Image.new("RGB", transparent.size, "white")
            white.paste(transparent, mask=transparent)
            return np.asarray(white)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _opened(path: Path) -> Any:
    from PIL import Image

    try:
        image = Image.open(path, formats=FORMATS)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: too large: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        reason = (
            "the file is empty" if path.is_file() and path.stat().st_size == 0 else f"not one of {', '.join(FORMATS)}"
        )
        raise DataError(f"{path}: not an image that can be read: {reason}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise DataError(f"{path}: {width} x {height} pixels are too many (at most {MAX_PIXELS:,})")
    return image


def _sizes(value: Any) -> Iterator[tuple[int, int]]:
    """Width and height of each image inside a record's field; images that are codes already have none."""
    if isinstance(value, Media) and value.modality == "image":
        if isinstance(value.data, Path):
            yield size(value.data)
        else:
            height, width = np.shape(value.data)[:2]
            yield width, height
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _sizes(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _sizes(inner)


@dataclass(frozen=True)
class AspectRatioOptions:
    """Options of the filter `aspect_ratio`."""

    maximum: float = number(2.0, 1, 1e6)


@dataclass(frozen=True)
class MinSideOptions:
    """Options of the filter `min_side`."""

    pixels: float = number(224.0, 0, 1e6)


def aspect_ratio(record: Record, options: Mapping[str, Any]) -> str:
    """Drops records with an image whose longer side exceeds `maximum` (default 2) times the shorter."""
    maximum = read_options(AspectRatioOptions, options, "filter `aspect_ratio`").maximum
    wide = any(max(sides) > maximum * min(sides) for sides in _sizes(record))
    return f"aspect ratio above {maximum:g}" if wide else ""


def min_side(record: Record, options: Mapping[str, Any]) -> str:
    """Drops records with an image whose shorter side is below `pixels` (default 224)."""
    pixels = read_options(MinSideOptions, options, "filter `min_side`").pixels
    small = any(min(sides) < pixels for sides in _sizes(record))
    return f"side below {pixels:g} pixels" if small else ""
