"""Records with drawings: stories whose pictures look alike, segmentation maps with what they are of, captions.

The words of a story say how many pictures come and which digit each shows, and nothing of what all of its pictures
share: style, colour, place and tilt. Only the pictures before tell what the next one looks like.

Builders like those of `mio.plugins.digits.corpora`.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from mio import Media, Record
from mio.plugins.digits.drawings import Look
from mio.plugins.digits.voices import DIGITS
from mio.plugins.digits.world import World

LENGTHS = range(2, 6)
"""Pictures of a story."""
NAMES = ("Tom", "Ann", "Max", "Eve")


def picture_stories(world: World, draw: Random) -> Record:
    """`parts`: a story of two to five pictures, `Ann draws three digits: five, two and six.` with a picture behind each
    digit. The same in two pieces: `opening`, the words before the first digit, and `rest`; or `told`, all before the
    last picture, and `next`, that picture. `digit`, `style`, `colour` and `place` of `next`."""
    look, count = Look.of(draw), draw.choice(LENGTHS)
    opening = f"{draw.choice(NAMES)} draws {DIGITS[count]} digits:"
    digits = [draw.randrange(10) for _ in range(count)]
    before = ["", *[","] * (count - 2), " and"]
    pairs = [
        (f"{mark} {DIGITS[digit]}", world.drawing(draw, digit, look))
        for mark, digit in zip(before, digits, strict=True)
    ]
    told: list[str | Media] = [opening, *(part for pair in pairs for part in pair)]
    last = told.pop()
    parts = [*told, last, "."]
    return {
        **{"parts": parts, "opening": opening, "rest": parts[1:], "told": told, "next": last},
        **_said(digits[-1], look),
    }


def drawings(world: World, draw: Random) -> Record:
    """`image`, and its `caption`, `bold red three, top left`; `digit`, `style`, `colour`, `place`."""
    look, digit = Look.of(draw), draw.randrange(10)
    caption = f"{look.style} {look.colour} {DIGITS[digit]}, {look.place}"
    return {"image": world.drawing(draw, digit, look), "caption": caption, **_said(digit, look)}


def segmentation_maps(world: World, draw: Random) -> Record:
    """`map`: the region of a digit in its class's colour on black; `image`: the digit drawn there; `words` for what the
    map does not say: `bold red`; `digit`, `style`, `colour`, `place`."""
    look, digit = Look.of(draw), draw.randrange(10)
    region, image = world.mapped(draw, digit, look)
    return {"map": region, "image": image, "words": f"{look.style} {look.colour}", **_said(digit, look)}


def _said(digit: int, look: Look) -> dict[str, str]:
    return {"digit": DIGITS[digit], "style": look.style, "colour": look.colour, "place": look.place}


BUILDERS: tuple[Callable[[World, Random], Record], ...] = (picture_stories, drawings, segmentation_maps)
"""Each is a corpus `digits/NAME` by its function's name."""
