"""Bar charts: their drawing, questions about them, and a reader of charts by rule. One of five charts is held out."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mio import Media, Record, Task
from mio.plugins.digits import scans
from mio.plugins.digits.corpus import Builder, names, of_split
from mio.plugins.digits.looking import BOUNDS, PLACES, Asked, placed
from mio.plugins.digits.measuring import task, written
from mio.plugins.digits.voices import DIGITS
from mio.plugins.digits.world import World

if TYPE_CHECKING:
    from mio import RoundTrip

BARS = 4
LOOKS = 8
"""Variants of a chart: broad or narrow bars, darker or lighter, with noise in the ink."""

Pixels = npt.NDArray[np.uint8]


def chart(heights: Sequence[int], look: int) -> Pixels:
    """Four bars of 0 to 8 pixels, uint8 `[8, 8]` with ink at 255. A function of heights and look."""
    draw = np.random.default_rng((zlib.crc32(bytes(heights)), look))
    grid = np.zeros((scans.SIDE, scans.SIDE))
    for bar, height in enumerate(heights):
        left = 2 * bar
        grid[scans.SIDE - height :, left : left + 1 + look % 2] = 1
    pixels = grid * (255 * draw.uniform(0.85, 1.0) + draw.normal(0, 8, grid.shape))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def read_chart(picture: Pixels) -> tuple[int, ...]:
    """Heights of a chart's bars: rows with ink in the bar's two columns, from the ground up without a gap. The picture
    is uint8 `[8, 8]` or `[8, 8, 3]`."""
    grey = picture if picture.ndim == 2 else picture.mean(2)
    inked = np.maximum(grey[::-1, 0::2], grey[::-1, 1::2]) > 127  # [rows from the ground, bars]
    return tuple(int(rows) for rows in np.cumprod(inked, axis=0).sum(axis=0))


def _picture(draw: Random, heights: Sequence[int]) -> Media:
    look = draw.randrange(LOOKS)
    key = f"chart/{'-'.join(map(str, heights))}/v{look}"
    return Media("image", chart(heights, look), key, names(list(heights)))


def bars_of(world: World, draw: Random) -> list[int]:
    """Bars that all differ, so that one is the highest and one the lowest."""
    while True:
        heights = draw.sample(range(9), BARS)
        if of_split(world, names(heights)):
            return heights


def charts(world: World, draw: Random) -> Record:
    """`image` of a bar chart, `caption`: the heights of its bars (`bars three one seven zero`). One of five charts is
    held out."""
    heights = bars_of(world, draw)
    return {"image": _picture(draw, heights), "caption": f"bars {names(heights)}"}


def about_bars(draw: Random, heights: list[int]) -> Asked:
    """A question about the bars of a chart."""
    kind = draw.choice(("extreme", "height", "difference", "compare", "many"))
    if kind == "extreme":
        word, chosen = draw.choice((("highest", max), ("lowest", min)))
        found = chosen(heights)
        reading = f"{placed(heights)}, {placed(heights, found)}"
        return Asked(heights, f"Which bar is the {word}?", reading, PLACES[heights.index(found)])
    if kind == "height":
        place = draw.randrange(BARS)
        return Asked(heights, f"How high is the {PLACES[place]} bar?", names(heights), DIGITS[heights[place]])
    if kind == "difference":
        low, high = min(heights), max(heights)
        question, answer = "How much higher is the highest bar than the lowest?", DIGITS[high - low]
        steps = f"{DIGITS[high]} minus {DIGITS[low]} is {answer}"
    elif kind == "compare":
        one, other = draw.sample(range(BARS), 2)
        question = f"Is the {PLACES[one]} bar higher than the {PLACES[other]}?"
        steps = f"{DIGITS[heights[one]]} and {DIGITS[heights[other]]}"
        answer = "yes" if heights[one] > heights[other] else "no"
    else:
        bound = draw.choice(BOUNDS)
        above = ["yes" if height > bound else "no" for height in heights]
        question, steps = f"How many bars are more than {DIGITS[bound]}?", " ".join(above)
        answer = DIGITS[above.count("yes")]
    return Asked(heights, question, f"{names(heights)}, {steps}", answer)


def chart_quiz(world: World, draw: Random) -> Record:
    """`image` of a bar chart; `question` about it, `reading`: heights of its bars and working, `answer`. One of five
    charts is held out."""
    heights = bars_of(world, draw)
    asked = about_bars(draw, heights)
    picture = _picture(draw, heights)
    return {"image": picture, "question": asked.question, "reading": asked.reading, "answer": asked.answer}


def _ceiling(records: Sequence[Record], roundtrip: RoundTrip) -> float:
    """Share of charts whose bars are read right after the codec."""
    shown = roundtrip([record["image"] for record in records])
    right = [
        names(list(read_chart(picture))) == record["image"].label
        for picture, record in zip(shown, records, strict=True)
    ]
    return float(np.mean(right)) if right else 0.0


BUILDERS: tuple[Builder, ...] = (charts, chart_quiz)


def chart_tasks() -> list[Task]:
    """Who knows the question but sees no chart is right about once in four."""
    return [
        task(
            "chart_quiz",
            chart_quiz,
            prompt="{image} {question}",
            response="{reading}: {answer}",
            output="text",
            judge=written("answer"),
            ceiling=_ceiling,
        )
    ]
