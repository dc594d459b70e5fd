"""Evaluation tasks of drawings: does the next picture of a story look like those before, do words and maps come true?

Scans are held out. Each template is one that `recipes/mm-interleaved/digits` trains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from mio import Answer, Record, Task, Template
from mio.plugins.digits import drawn
from mio.plugins.digits.corpus import Builder
from mio.plugins.digits.drawing_judges import Seen, overlap, see_drawings
from mio.plugins.digits.measuring import DECODING, held_out
from mio.plugins.digits.voices import DIGITS

Judge = Callable[[Sequence[Answer], Sequence[Record]], list[bool]]

LOOK = ("style", "colour", "place")
OVERLAP = 0.85
"""Least overlap of what is drawn with the drawing that a map is of. One drawing of ten of the same digit, in the same
style and place, has as much by chance."""


def _first(answers: Sequence[Answer]) -> list[npt.NDArray[np.uint8] | None]:
    """The first picture of each answer."""
    return [next(iter(answer.media("image")), None) for answer in answers]


def _seen(pictures: Sequence[npt.NDArray[np.uint8] | None]) -> list[Seen]:
    seen = iter(see_drawings([picture for picture in pictures if picture is not None]))
    return [Seen() if picture is None else next(seen) for picture in pictures]


def _alike(fields: Sequence[str], answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:
    """The first picture is as the record says in all of the fields."""
    return [
        all(getattr(seen, field) == record[field] for field in fields)
        for seen, record in zip(_seen(_first(answers)), records, strict=True)
    ]


def _as_mapped(answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:
    """The first picture has the style and colour that are asked for, and its strokes where the map has the digit."""
    right = _alike(("style", "colour"), answers, records)
    return [
        alike and picture is not None and overlap(picture, record["image"].data) >= OVERLAP
        for alike, picture, record in zip(right, _first(answers), records, strict=True)
    ]


def _described(answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:
    return [answer.text.strip() == record["caption"] for answer, record in zip(answers, records, strict=True)]


def _told(answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:
    """As many pictures as the opening says, the digits that the story's own words name, and all in one look."""
    return [_one_story(answer, record["opening"]) for answer, record in zip(answers, records, strict=True)]


def _one_story(answer: Answer, opening: str) -> bool:
    named = [word for word in answer.text.replace(",", " ").replace(".", " ").split() if word in DIGITS]
    seen = see_drawings(answer.media("image"))
    looks = {(one.style, one.colour, one.place) for one in seen}
    count = next(word for word in opening.split() if word in DIGITS)
    return len(looks) == 1 and [one.digit for one in seen] == named and DIGITS[len(named)] == count


def _task(name: str, build: Builder, prompt: str, response: str, judge: Judge, output: str = "image") -> Task:
    return Task(
        name=name,
        template=Template(direction=name, prompt=prompt, response=response),
        records=lambda count: held_out(build, count),
        output=output,
        judge=judge,
        decoding=DECODING,
    )


def drawing_tasks() -> list[Task]:
    """Nothing is read or trained before a task's records or judge are called."""
    story = (drawn.picture_stories, "{told}", "{next}.")
    return [
        *(_task(f"next_{field}", *story, partial(_alike, (field,))) for field in (*LOOK, "digit")),
        _task("tell_story", drawn.picture_stories, "{opening}", "{rest}", _told),
        _task("draw_caption", drawn.drawings, "{caption}:", "{image}", partial(_alike, (*LOOK, "digit"))),
        _task("draw_map", drawn.segmentation_maps, "{map} {words}:", "{image}", _as_mapped),
        _task("caption_drawing", drawn.drawings, "{image}", "{caption}", _described, "text"),
    ]
