"""Image files as arrays, and filters of records by image size."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mio import DataError, Media, MemoryFile, Record, media, number, read_options

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff")
"""Files with other endings are read if they have one of `FORMATS`; `.gif` counts as a video by default."""

# Named one by one: Pillow's other formats include some that call external programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")

MAX_PIXELS = 64_000_000
"""Largest width times height, checked in the header before any pixel is decoded."""

File = Path | MemoryFile

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_PNG_ORIENTED = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
"""Chunks in which Pillow finds an orientation."""
_WHITE_IS_ZERO = 0
_BITS, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339  # tags of TIFF 6.0
_ORIENTATION = 274
_SIDEWAYS = (5, 6, 7, 8)
_SEPARATE = 2
_SIGNED = 2


def size(path: File) -> tuple[int, int]:
    """Width and height by the file's header, as the pixels are stored. Raises `DataError`."""
    with _opened(path) as image:
        width, height = image.size
        return width, height


def probe(path: File) -> npt.NDArray[np.uint8]:
    """As `read`, without decoding pixels: of the array `[H, W, 3]` only height and width are right, and it takes no
    memory. A PNG with texts, which may hold its orientation behind the pixels, is decoded. Raises `DataError` as `size`
    does: `read` may find more damage."""
    with _opened(path) as image:
        if image.format == "PNG" and _has_text(path):
            height, width = read(path).shape[:2]
        else:
            width, height = image.size
            if _sideways(image):
                width, height = height, width
    return np.broadcast_to(np.uint8(0), (height, width, 3))


def read(path: File) -> npt.NDArray[np.uint8]:
    """First picture of an image file, upright: uint8 `[H, W]` for a grey file, `[H, W, 3]` otherwise.

    Images are composed on white. Of 16 bits the upper 8 are used; floats go from 0 (black) to 1. Colours count as sRGB,
    whatever profile the file holds.

    Raises `DataError` for a file that is damaged, too large, or not an image, and for signed or 32-bit integers, whose
    white level no file states.
    """
    image = _opened(path)
    stored = _stored(image)
    with image:
        try:
            image.load()
        except MemoryError:
            raise
        except Exception as error:
            if not isinstance(error, ValueError) or image.format != "PNG":
                raise DataError(f"{path}: damaged image: {error}") from error
            image = _loaded_without_text(path)
    with image:
        _turn(image)
        if isinstance(image.info.get("transparency"), str):
            del image.info["transparency"]  # text with this key
        try:
            return _pixels(image, stored, path)
        except (MemoryError, DataError):
            raise
        except Exception as error:
            raise DataError(f"{path}: images of mode {image.mode} cannot be read: {error}") from error


def checked_pixels(image: Any) -> npt.NDArray[np.uint8]:
    """Pixels uint8 `[H, W]` or `[H, W, 3]`. Raises `DataError` for anything else."""
    pixels: npt.NDArray[Any] = np.asarray(image)
    colours = pixels.shape[2:]
    if pixels.dtype != np.uint8 or not pixels.size or pixels.ndim not in (2, 3) or colours not in ((), (3,)):
        raise DataError(f"an image must be uint8 [H, W] or [H, W, 3], this is {pixels.dtype} {list(pixels.shape)}")
    return pixels


def checked_codes(codes: Any, frames: int, size: int) -> npt.NDArray[np.int64]:
    """Codes int64 `[1, frames]` of one image. Raises `DataError` for another shape, and for codes not below `size`."""
    codes = np.asarray(codes)
    if codes.shape != (1, frames):
        raise DataError(f"an image has codes [1, {frames}], these are {list(codes.shape)}")
    if codes.min() < 0 or codes.max() >= size:
        raise DataError(f"image codes must lie in 0..{size - 1}, these reach {codes.min()}..{codes.max()}")
    return np.asarray(codes, np.int64)


def picture(image: Any) -> Any:
    """Pixels as an RGB image of Pillow. Raises `DataError` as `checked_pixels` does."""
    from PIL import Image

    return Image.fromarray(checked_pixels(image)).convert("RGB")


def write_png(image: Any, stem: Path) -> Path:
    """Writes an image of Pillow to `stem` plus `.png`; returns the path."""
    path = stem.with_name(stem.name + ".png")
    image.save(path)
    return path


def _pixels(image: Any, stored: tuple[str, str], path: File) -> npt.NDArray[np.uint8]:
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep(image, stored, path)
    if _tag(image, _SAMPLE_FORMAT) == _SIGNED:
        raise _unknown_range(path)
    # avoids copies: a picture of the largest size takes 200 MB
    if image.mode in ("1", "L"):
        pixels = np.asarray(image if image.mode == "L" else image.convert("L"))
        key = image.info.get("transparency")
        return pixels if key is None else np.where(pixels == _grey(key, stored), np.uint8(255), pixels)
    if image.mode == "RGB" and isinstance(image.info.get("transparency"), tuple):
        return _keyed(image, stored, path)
    if image.has_transparency_data:
        grey = image.mode in ("LA", "La") or stored[1] == "LA;16B"
        transparent = image.convert("RGBA")
        white = Image.new("RGB", transparent.size, "white")
        white.paste(transparent, mask=transparent)
        return np.asarray(white)[..., 0] if grey else np.asarray(white)
    if image.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return np.asarray(ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _deep(image: Any, stored: tuple[str, str], path: File) -> npt.NDArray[np.uint8]:
    """Grey pixels of more than 8 bits."""
    pixels = np.asarray(image)
    inverted = _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO
    if image.mode == "I":
        raise _unknown_range(path)
    if image.mode == "F":
        if stored == ("libtiff", "F;32BF"):
            pixels = pixels.byteswap()  # libtiff has swapped the bytes already
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise DataError(
                f"{path}: its floats go from {pixels.min():g} to {pixels.max():g}, which does not say what is white; "
                "scale them to 0 ... 1, or convert the file to 8 or 16 bits"
            )
        grey = np.rint(pixels * 255).astype(np.uint8)
    else:
        grey = (pixels >> (int(_tag(image, _BITS) or 16) - 8)).astype(np.uint8)
    if inverted:
        grey = 255 - grey
    key = image.info.get("transparency")
    return grey if key is None else np.where(pixels == key, np.uint8(255), grey)


def _keyed(image: Any, stored: tuple[str, str], path: File) -> npt.NDArray[np.uint8]:
    """An RGB picture with one transparent colour."""
    pixels = np.asarray(image)
    key = np.asarray(image.info["transparency"], np.uint16)
    if stored[1] == "RGB;16B":  # Pillow keeps only the upper bytes
        with _opened(path) as lower:
            lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
            lower.load()
            _turn(lower)
            clear = (np.asarray(lower) == (key & 255)).all(-1) & (pixels == key >> 8).all(-1)
    else:
        clear = (pixels == (key & 255)).all(-1)
    return np.where(clear[..., None], np.uint8(255), pixels)


def _grey(key: int, stored: tuple[str, str]) -> int:
    """The transparent value of a grey PNG of up to 8 bits, scaled to 0 ... 255 as its pixels are."""
    bits = {"L;2": 2, "L;4": 4}.get(stored[1], 8)
    most: int = (1 << bits) - 1
    return (key & most) * 255 // most


def _tag(image: Any, number: int) -> Any:
    """First value of a TIFF's tag; None without one."""
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) and value else value


def _unknown_range(path: File) -> DataError:
    return DataError(
        f"{path}: its pixels are integers with a sign or of 32 bits, which does not say what is white; convert the "
        "file to 8 or 16 bits"
    )


def _turn(image: Any) -> None:
    """Turns a picture upright by its EXIF orientation."""
    from PIL import ImageOps

    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # unreadable EXIF data is ignored, as in any viewer
        return


def _opened(path: File) -> Any:
    """An image with its header read."""
    if isinstance(path, Path):
        media.regular_file(path)
    try:
        return _checked(path)
    except ValueError:
        return _checked(path, _without_text(path))


def _loaded_without_text(path: File) -> Any:
    image = _checked(path, _without_text(path))
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: damaged image: {error}") from error
    return image


def _checked(path: File, content: io.BytesIO | None = None) -> Any:
    """Opens an image, or `content` in its place, which has no text. Raises `ValueError` for a PNG with text that Pillow
    finds too long."""
    from PIL import Image

    file = content or (path if isinstance(path, Path) else path.open())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `MAX_PIXELS` is less
            image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: too large: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and content is None:
            raise
        empty = not path.read_bytes()
        reason = "the file is empty" if empty else f"not one of {', '.join(FORMATS)}, or damaged"
        raise DataError(f"{path}: not an image that can be read: {reason}") from error
    width, height = image.size
    if not 0 < width * height <= MAX_PIXELS:
        image.close()
        what = "too many" if width * height > 0 else "none"
        raise DataError(f"{path}: {width} x {height} pixels are {what} (at most {MAX_PIXELS:,})")
    if _tag(image, _PLANES) == _SEPARATE and _stored(image)[0] == "raw":
        bits = _tag(image, _BITS)
        if bits != 8 or _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow would read bytes as samples
            image.close()
            raise DataError(
                f"{path}: a TIFF of separate planes of {bits} bits is not read; save it with interleaved pixels"
            )
    return image


def _stored(image: Any) -> tuple[str, str]:
    """Codec and raw mode of an image that is not loaded yet, in Pillow's terms."""
    if not image.tile:
        return "", ""
    tile = image.tile[0]
    arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    return tile.codec_name, str(arguments[0]) if arguments else ""


def _without_text(path: File) -> io.BytesIO:
    """A PNG without its texts and colour profile, which Pillow refuses beyond 1 MiB; any other file unchanged."""
    content = path.read_bytes()
    if not content.startswith(_PNG):
        return io.BytesIO(content)
    kept, begin = [_PNG], len(_PNG)
    while begin + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, begin)
        if kind not in _PNG_TEXT:
            kept.append(content[begin : begin + 12 + length])
        begin += 12 + length
    return io.BytesIO(b"".join(kept))


def _sideways(image: Any) -> bool:
    """Whether `_turn` will exchange width and height. Pillow has done so already where it opens a TIFF, and texts of a
    PNG are not looked at."""
    if image.format in ("PNG", "TIFF"):
        return False
    try:
        return image.getexif().get(_ORIENTATION) in _SIDEWAYS
    except MemoryError:
        raise
    except Exception:  # unreadable EXIF data is ignored, as in `_turn`
        return False


def _has_text(path: File) -> bool:
    """Whether a PNG has a chunk that may say how it is turned."""
    with path.open("rb") as file:
        file.seek(len(_PNG))
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if kind in _PNG_ORIENTED:
                return True
            file.seek(length + 4, 1)
    return False


def _sizes(record: Record) -> Iterator[tuple[int, int]]:
    """Width and height of each image of a record; images that are codes have none."""
    for item in media.contents(record):
        if isinstance(item, Media) and item.modality == "image":
            if isinstance(item.data, File):
                yield size(item.data)
            else:
                height, width = np.shape(item.data)[:2]
                yield width, height


@dataclass(frozen=True)
class AspectRatioOptions:
    """Options of the filter `aspect_ratio`."""

    maximum: float = number(2.0, 1, 1e6)


@dataclass(frozen=True)
class MinSideOptions:
    """Options of the filter `min_side`."""

    pixels: float = number(224.0, 0, 1e6, above=True)


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
