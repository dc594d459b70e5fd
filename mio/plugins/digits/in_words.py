"""What is asked about pictures, charts and videos, asked about digits in words: the same thinking, a third as long.

A model learns from these records how to answer once it has read what it sees. They are trained on and measured by no
task of their own.
"""

from __future__ import annotations

from random import Random

from mio import Record
from mio.plugins.digits.charts import about_bars, bars_of
from mio.plugins.digits.corpus import Builder, names, run
from mio.plugins.digits.looking import about_film, about_some, about_three, by_example
from mio.plugins.digits.storytelling import story_of
from mio.plugins.digits.voices import DIGITS
from mio.plugins.digits.world import World

KINDS = ("some", "three", "film", "bars", "example", "example", "story", "story", "counting")


def in_words(world: World, draw: Random) -> Record:
    """`question`: digits in words, and what is asked about them; `answer`, which reads them once more. What is asked
    about four bars is never asked about those of a held-out chart."""
    kind = draw.choice(KINDS)
    if kind == "example":
        some = by_example(draw)
        question = f"{some.shown}, {DIGITS[some.digits[-1]]}"
        return {"question": question, "answer": f"{some.reading}: {some.said[-1]}"}
    if kind == "story":
        digits, story = story_of(draw)
        return {"question": f"{names(digits)}. Tell the story of these numbers.", "answer": f"{names(digits)}: {story}"}
    if kind == "counting":
        way, digits = run(draw, range(3, 6))
        answer = f"counting {way} from {DIGITS[digits[0]]} to {DIGITS[digits[-1]]}"
        return {"question": f"{names(digits)}. Please describe it.", "answer": f"{names(digits)}: {answer}"}
    if kind == "bars":
        asked = about_bars(draw, bars_of(world, draw))
    else:
        asked = {"some": about_some, "three": about_three, "film": about_film}[kind](draw)
    return {
        "question": f"{names(asked.digits)}. {asked.question}",
        "answer": f"{asked.reading}: {asked.answer}",
    }


BUILDERS: tuple[Builder, ...] = (in_words,)
