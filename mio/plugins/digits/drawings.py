"""Drawings of digits: a scan redrawn on a larger sheet in a style, a colour, a tilt and a place of its own.

What a drawing looks like is independent of the digit that it shows, and much of it lies in fine strokes. RGB uint8
`[32, 32, 3]` on white; a function of scan, variant and look.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
import numpy.typing as npt

from mio.plugins.digits import scans
from mio.plugins.digits.scans import Pixels

SIDE = 32
"""Of a drawing, in pixels."""
GLYPH = 20
"""Side in pixels of the part of a drawing that the digit takes."""
FINE = 3
"""Side in pixels of the fine grid, on which strokes are shaped, of one pixel of a drawing."""

STYLES = ("thin", "bold", "outline", "dotted")
COLOURS = {"red": (220, 40, 40), "green": (30, 150, 60), "blue": (40, 80, 220), "black": (20, 20, 20)}
PLACES = ("top left", "top right", "bottom left", "bottom right")
TILTS = (-15, 0, 15)
"""Degrees counterclockwise."""

CLASSES = (
    *((128, 64, 128), (244, 35, 232), (250, 170, 30), (102, 102, 156), (190, 153, 153)),
    *((220, 220, 0), (107, 142, 35), (70, 130, 180), (220, 20, 60), (0, 160, 160)),
)
"""Colours of the digits' classes in segmentation maps, zero first."""

Colour = tuple[int, int, int]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Look:
    """How a digit is drawn."""

    style: str
    colour: str
    place: str
    tilt: int

    @classmethod
    def of(cls, draw: Random) -> Look:
        """Any look, all as likely."""
        return cls(draw.choice(STYLES), draw.choice(tuple(COLOURS)), draw.choice(PLACES), draw.choice(TILTS))

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column where the digit's part of the drawing begins."""
        row, column = divmod(PLACES.index(self.place), 2)
        return row * (SIDE - GLYPH), column * (SIDE - GLYPH)

    @property
    def key(self) -> str:
        return f"{self.style}-{self.colour}-{self.place.replace(' ', '-')}{self.tilt:+d}"


def drawing(index: int, variant: int, look: Look) -> Pixels:
    """Scan `index` in a look. The variants are those of `scans.vary`."""
    return _painted(strokes(index, variant, look.tilt, look.style), COLOURS[look.colour], look.corner)


def segmentation_map(index: int, variant: int, look: Look) -> Pixels:
    """Which pixels of the drawing are its digit's, whatever the style: its class's colour there, black elsewhere."""
    digit = int(scans.scans()[1][index])
    region = np.where(_covered(_grown(_ink(index, variant, look.tilt) > 75, 2)) >= 128, 255, 0)
    return _painted(region, CLASSES[digit], look.corner, paper=0)


def _painted(cover: npt.NDArray[np.integer], colour: Colour, corner: tuple[int, int], paper: int = 255) -> Pixels:
    """A sheet with `cover`, `[20, 20]` with colour at 255 and paper at 0, at its corner."""
    row, column = corner
    sheet = np.full((SIDE, SIDE, 3), paper, np.uint8)
    part = paper + (np.array(colour) - paper) * (cover[..., None] / 255)
    sheet[row : row + GLYPH, column : column + GLYPH] = np.rint(part)
    return sheet


def strokes(index: int, variant: int, tilt: int, style: str) -> Pixels:
    """How much of each pixel the strokes of a style cover, uint8 `[20, 20]`."""
    ink = _ink(index, variant, tilt)
    if style == "thin":
        shape = (ink > 75) & (ink > 0.65 * _widest(ink, 6))
    elif style == "bold":
        shape = _grown(ink > 75, 1)
    elif style == "outline":
        shape = _grown(ink > 75, 2) & (ink < 115)
    else:
        rows, columns = np.indices(ink.shape) % (2 * FINE) < FINE + 1
        shape = _grown(ink > 90, 1) & rows & columns
    return _covered(shape)


@lru_cache(16)
def _ink(index: int, variant: int, tilt: int) -> Pixels:
    """The scan's ink on the fine grid, with 255 at its darkest: uint8 `[60, 60]`."""
    from PIL import Image

    scan = scans.vary(index, variant)
    side, canvas = 6 * scans.SIDE, Image.new("L", (FINE * GLYPH, FINE * GLYPH))
    inked = Image.fromarray(np.rint(scan * (255 / scan.max())).astype(np.uint8))
    margin = (FINE * GLYPH - side) // 2
    canvas.paste(inked.resize((side, side), Image.Resampling.BICUBIC), (margin, margin))
    return np.asarray(canvas.rotate(tilt, Image.Resampling.BICUBIC))


def _widest(ink: Pixels, radius: int) -> Pixels:
    """The most ink in the square of `radius` around each pixel."""
    from PIL import Image, ImageFilter

    return np.asarray(Image.fromarray(ink).filter(ImageFilter.MaxFilter(2 * radius + 1)))


def _grown(shape: Mask, radius: int) -> Mask:
    """Everything within `radius` of the shape, with round corners."""
    near = [
        (y, x)
        for y, x in np.ndindex(2 * radius + 1, 2 * radius + 1)
        if (y - radius) ** 2 + (x - radius) ** 2 <= radius**2
    ]
    padded, (height, width) = np.pad(shape, radius), shape.shape
    wide: Mask = np.logical_or.reduce([padded[y : y + height, x : x + width] for y, x in near])
    return wide


def _covered(shape: Mask) -> Pixels:
    """Share of each pixel that a shape on the fine grid covers, uint8 `[20, 20]`."""
    covered: Pixels = np.rint(shape.reshape(GLYPH, FINE, GLYPH, FINE).mean((1, 3)) * 255).astype(np.uint8)
    return covered
