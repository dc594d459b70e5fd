"""Judges of drawings: which digit, in which style, which colour, at which place?

Colour and place are read by rule. Style and digit are told by classifiers of the strokes, moved to the middle, that
learn from drawings of the training scans once per process, never from what a model has drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from mio import DataError
from mio.plugins.digits import scans
from mio.plugins.digits.drawings import COLOURS, GLYPH, PLACES, SIDE, STYLES, TILTS, strokes
from mio.plugins.digits.voices import DIGITS

if TYPE_CHECKING:
    from sklearn.svm import SVC

VARIANTS = 2
"""Variants of each training scan, each in every style, that the classifiers learn from."""
FAINTEST = 64
"""Levels that the darkest pixel of a drawing differs from white at least."""
NEAREST = 0.35
"""Largest distance of a hue from the one that it is called; the nearest two that have names are 0.55 apart."""

Ink = npt.NDArray[np.float64]


class Seen(NamedTuple):
    """What a drawing shows. All empty where nothing is drawn; no colour where it is none of those with names."""

    digit: str = ""
    style: str = ""
    colour: str = ""
    place: str = ""


def see_drawings(pictures: Sequence[npt.NDArray[np.uint8]]) -> list[Seen]:
    """What drawings, uint8 `[32, 32, 3]`, show. Raises `DataError` for other arrays."""
    inks = [_ink(picture) for picture in pictures]
    drawn = [number for number, ink in enumerate(inks) if ink.any()]
    seen = [Seen()] * len(pictures)
    if not drawn:
        return seen
    shapes = np.stack([_shape(inks[number]) for number in drawn])
    judges = _judges()
    styles = judges["style"].predict(shapes)
    digits = np.zeros(len(drawn), np.int64)
    for style in set(styles):
        digits[styles == style] = judges[style].predict(shapes[styles == style])
    for number, style, digit in zip(drawn, styles, digits, strict=True):
        ink = inks[number]
        seen[number] = Seen(DIGITS[digit], str(style), _colour(pictures[number], ink), _place(ink))
    return seen


def overlap(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """How far two drawings have their strokes in the same places, a pixel more or less: intersection over union of
    strokes that are a pixel wider on all sides; 0 where neither has any. Raises `DataError` as `see_drawings` does."""
    first, second = _wide(one), _wide(other)
    return float((first & second).sum() / max((first | second).sum(), 1))


def _wide(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    from PIL import Image, ImageFilter

    inked = Image.fromarray(np.where(_ink(picture) > 0.3, 255, 0).astype(np.uint8))
    return np.asarray(inked.filter(ImageFilter.MaxFilter(3))) > 0


def _ink(picture: npt.NDArray[np.uint8]) -> Ink:
    """How far each pixel is from white, 1 at the farthest, `[32, 32]`; all 0 where nothing is drawn."""
    if picture.dtype != np.uint8 or picture.shape != (SIDE, SIDE, 3):
        raise DataError(
            f"the judge of drawings takes uint8 [{SIDE}, {SIDE}, 3], not {picture.dtype} {list(picture.shape)}"
        )
    away = 255.0 - picture.min(2)
    return away / away.max() if away.max() >= FAINTEST else np.zeros_like(away)


def _bounds(ink: Ink) -> list[tuple[int, int]]:
    """First and last row with strokes, first and last column."""
    inked = ink > 0.3
    return [(int(some[0]), int(some[-1])) for some in (np.flatnonzero(inked.any(axis)) for axis in (1, 0))]


def _shape(ink: Ink) -> Ink:
    """The strokes, in the middle of a square as large as a digit's part of a drawing and a little blurred, `[400]`."""
    row, column = ((first + last + 1) // 2 for first, last in _bounds(ink))
    middle = np.pad(ink, GLYPH // 2 + 1)[row : row + GLYPH + 2, column : column + GLYPH + 2]
    for _ in range(2):  # rows, then columns
        middle = (middle[:-2] + 2 * middle[1:-1] + middle[2:]).T / 4
    return middle.ravel()


def _place(ink: Ink) -> str:
    low, right = (first + last > SIDE - 1 for first, last in _bounds(ink))
    return PLACES[2 * low + right]


def _colour(picture: npt.NDArray[np.uint8], ink: Ink) -> str:
    """By what is missing of white where strokes are darkest: by hue, since strokes may cover a pixel in part."""
    missing = _hue(picture[ink > 0.7].mean(0))
    distances = {name: float(np.linalg.norm(missing - _hue(np.array(colour)))) for name, colour in COLOURS.items()}
    nearest = min(distances, key=lambda name: distances[name])
    return nearest if distances[nearest] <= NEAREST else ""


def _hue(colour: npt.NDArray[np.number]) -> Ink:
    """What is missing of white in red, green and blue, as shares of the most."""
    hue: Ink = (255.0 - colour) / (255.0 - colour.min())
    return hue


@cache
def _judges() -> Mapping[str, SVC]:
    """`style`, and by style the judge of digits in it."""
    from sklearn.svm import SVC

    draw, digits = Random(0), scans.scans()[1]
    shapes: dict[str, list[Ink]] = {style: [] for style in STYLES}
    shown: list[int] = []
    for index in scans.indices("train"):
        for variant in range(VARIANTS):
            tilt = draw.choice(TILTS)
            shown.append(int(digits[index]))
            for style in STYLES:
                cover = np.pad(strokes(index, variant, tilt, style) / 255.0, (SIDE - GLYPH) // 2)
                shapes[style].append(_shape(cover / cover.max()))
    kind = partial(SVC, gamma=0.15, C=10.0, random_state=0)
    judges = {style: kind().fit(np.stack(some), shown) for style, some in shapes.items()}
    some_of_all = np.concatenate([np.stack(some[::4]) for some in shapes.values()])
    return judges | {"style": kind().fit(some_of_all, np.repeat(STYLES, len(shown[::4])))}
