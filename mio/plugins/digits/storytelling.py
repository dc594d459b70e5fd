"""Visual storytelling: pictures in a row become a story in words, which says what each shows and what happened between.

Who the story is about, what is counted and how it comes and goes is free; the judge follows the story's own choices.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from mio import Answer, Record, Task
from mio.plugins.digits.corpus import Builder, names
from mio.plugins.digits.judges import ceiling
from mio.plugins.digits.measuring import of, task
from mio.plugins.digits.voices import DIGITS
from mio.plugins.digits.world import World

PEOPLE = {"Tom": "he", "Max": "he", "Ann": "she", "Eve": "she"}
THINGS = ("apples", "cats", "cups", "stars")
COMES, GOES = ("finds", "gets"), ("loses", "sells")


def story_of(draw: Random) -> tuple[list[int], str]:
    """Three or four digits, each other than the one before, and a story that counts them."""
    person, thing = draw.choice(list(PEOPLE)), draw.choice(THINGS)
    counts = [draw.randrange(10)]
    for _ in range(draw.randint(2, 3)):
        counts.append(draw.choice([digit for digit in range(10) if digit != counts[-1]]))
    sentences, who = [f"{person} has {DIGITS[counts[0]]} {thing}."], PEOPLE[person]
    for place in range(1, len(counts)):
        change = counts[place] - counts[place - 1]
        verb, when = draw.choice(COMES if change > 0 else GOES), "Then" if place < len(counts) - 1 else "At last"
        sentences.append(f"{when} {who} has {DIGITS[counts[place]]}, for {who} {verb} {DIGITS[abs(change)]}.")
    return counts, " ".join(sentences)


def storytelling(world: World, draw: Random) -> Record:
    """`pictures`: three or four; `story`: `Ann has three cups. Then she has five, for she finds two. At last she has
    four, for she loses one.`; `counts`: what the pictures show, in words."""
    counts, story = story_of(draw)
    return {
        "pictures": [world.picture(draw, digit) for digit in counts],
        "story": story,
        "counts": names(counts),
    }


_OPENING = re.compile(r"(\w+) has (\w+) (\w+)\.")
_EVENT = re.compile(r" (?:Then|At last) (he|she) has (\w+), for (he|she) (\w+) (\w+)\.")


def counted(story: str) -> list[str]:
    """What a story counts, sentence by sentence, in words; nothing if it is no story: if it begins otherwise, if
    somebody else comes in, or if what comes and goes does not lead from one count to the next."""
    opening = _OPENING.match(story)
    if not opening or opening[1] not in PEOPLE or opening[2] not in DIGITS or opening[3] not in THINGS:
        return []
    counts, place = [opening[2]], opening.end()
    while event := _EVENT.match(story, place):
        one, count, other, verb, change = event.groups()
        if {one, other} != {PEOPLE[opening[1]]} or count not in DIGITS or change not in DIGITS:
            return []
        step = {**dict.fromkeys(COMES, 1), **dict.fromkeys(GOES, -1)}.get(verb, 0) * DIGITS.index(change)
        if not step or DIGITS.index(counts[-1]) + step != DIGITS.index(count):
            return []
        counts.append(count)
        place = event.end()
    return counts if place == len(story) else []


def _told(answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:
    """A story that holds together, with a sentence for each picture in turn that says its number; what stands before
    it, up to a colon, is no part of it."""
    return [
        " ".join(counted(answer.text.rsplit(":", 1)[-1].strip())) == record["counts"]
        for answer, record in zip(answers, records, strict=True)
    ]


BUILDERS: tuple[Builder, ...] = (storytelling,)


def storytelling_tasks() -> list[Task]:
    """One story for all pictures is right once in about a thousand."""
    return [
        task(
            "storytelling",
            storytelling,
            prompt="Tell the story of these pictures. {pictures}",
            response="{counts}: {story}",
            output="text",
            judge=_told,
            ceiling=ceiling(of("pictures")),
        )
    ]
