"""Questions about pictures and videos: image understanding, reasoning over several pictures, learning from examples in
the context, video understanding and dialogue.

Answers say what was seen before they say what follows from it.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import NamedTuple

from mio import Media, Record, Task
from mio.plugins.digits.corpus import Builder, names, run
from mio.plugins.digits.judges import ceiling
from mio.plugins.digits.measuring import of, task, written
from mio.plugins.digits.voices import DIGITS
from mio.plugins.digits.world import World

PLACES = ("first", "second", "third", "fourth", "fifth")
BOUNDS = (3, 4, 5)
"""With which numbers are compared."""


class Asked(NamedTuple):
    """A question about digits that are seen, or read, one after the other."""

    digits: list[int]
    question: str
    reading: str
    """The digits in words, and what leads from them to the answer."""
    answer: str


def about_some(draw: Random) -> Asked:
    """About one digit, two or three: a look at them is enough."""
    kind = draw.choice(("even", "than", "next", "which", "extreme", "place"))
    digits = draw.sample(range(10), {"which": 2, "extreme": 2, "place": 3}.get(kind, 1))
    one, reading = digits[0], names(digits)
    if kind == "even":
        return Asked(digits, "Is it even?", reading, "no" if one % 2 else "yes")
    if kind == "than":
        bound = draw.choice(BOUNDS)
        return Asked(digits, f"Is it more than {DIGITS[bound]}?", reading, "yes" if one > bound else "no")
    if kind == "next":
        step = draw.choice([step for step in (-1, 1) if 0 <= one + step <= 9])
        return Asked(digits, f"What is one {'more' if step > 0 else 'less'}?", reading, DIGITS[one + step])
    if kind == "place":
        place = draw.randrange(3)
        return Asked(digits, f"What is the {PLACES[place]} number?", reading, DIGITS[digits[place]])
    word, chosen = draw.choice((("larger", max), ("smaller", min)))
    found = chosen(digits)
    if kind == "extreme":
        return Asked(digits, f"What is the {word} number?", reading, DIGITS[found])
    question = f"Which is {word}, the first or the second?"
    return Asked(digits, question, f"{placed(digits)}, {placed(digits, found)}", PLACES[digits.index(found)])


def placed(digits: list[int], only: int | None = None) -> str:
    """`nine first, two second`, where a small model finds the place of a number; or of one of them alone."""
    pairs = zip(digits, PLACES, strict=False)
    return ", ".join(f"{DIGITS[digit]} {place}" for digit, place in pairs if only in (None, digit))


def about_three(draw: Random) -> Asked:
    """About three different digits, in several steps."""
    kind = draw.choice(("range", "small", "middle", "rest"))
    while True:
        digits = draw.sample(range(10), 3)
        low, middle, high = sorted(digits)
        if (kind != "small" or low + middle <= 9) and (kind != "rest" or digits[0] + digits[2] <= 9):
            break
    if kind == "middle":
        question, answer = "What is one more than the middle one in size?", DIGITS[middle + 1]
        working = f"in order {names([low, middle, high])}, {DIGITS[middle]}, one more is {answer}"
    else:
        question, one, sign, other = {
            "range": ("How much more is the largest than the smallest?", high, "minus", low),
            "small": ("What do the two smaller ones make?", low, "plus", middle),
            "rest": ("What do the first and the last make?", digits[0], "plus", digits[2]),
        }[kind]
        answer = DIGITS[one - other if sign == "minus" else one + other]
        working = f"{DIGITS[one]} {sign} {DIGITS[other]} is {answer}"
        if kind == "small":
            working = f"in order {names([low, middle, high])}, {working}"
    return Asked(digits, question, f"{names(digits)}, {working}", answer)


class Examples(NamedTuple):
    """A rule by example."""

    digits: list[int]
    """Three or four, all different, the last of which is asked about."""
    said: list[str]
    """What the rule makes of each: up to two more or less, in words or in figures, or if it is even."""
    rule: str
    """The rule in words."""
    result: str
    """What it makes of the last digit, in words."""

    @property
    def shown(self) -> str:
        """All but the last, in words."""
        return ", ".join(f"{DIGITS[digit]} {said}" for digit, said in zip(self.digits[:-1], self.said, strict=False))

    @property
    def reading(self) -> str:
        """Each example with the rule that it shows, and what that makes of the last digit."""
        pairs = zip(self.digits, [*self.said[:-1], ""], strict=True)
        return f"{', '.join(f'{DIGITS[digit]} {said} {self.rule}' for digit, said in pairs)} {self.result}".replace(
            "  ", " "
        )


def by_example(draw: Random) -> Examples:
    """A rule, and what it makes of some digits."""
    count = draw.randint(3, 4)
    if draw.random() < 0.2:
        digits = draw.sample(range(10), count)
        said = ["odd" if one % 2 else "even" for one in digits]
        return Examples(digits, said, "parity", said[-1])
    step, words = draw.randint(-2, 2), draw.choice((DIGITS, "0123456789"))
    digits = draw.sample([digit for digit in range(10) if 0 <= digit + step <= 9], count)
    rule = f"{DIGITS[abs(step)]} {'less' if step < 0 else 'more'}"
    return Examples(digits, [words[digit + step] for digit in digits], rule, DIGITS[digits[-1] + step])


def about_film(draw: Random, film: tuple[list[int], str] | None = None) -> Asked:
    """About the digits of a film's three to five frames, of which a third go up, a third down, and a third neither."""
    digits, way = film or film_of(draw)
    kind = draw.choice(("place", "place", "last", "count", "largest", "way"))
    if kind == "place":
        place = draw.randrange(len(digits))
        question, answer = f"Which number is the {PLACES[place]}?", DIGITS[digits[place]]
    else:
        question, answer = {
            "last": ("Which number is the last?", DIGITS[digits[-1]]),
            "count": ("How many numbers are there?", DIGITS[len(digits)]),
            "largest": ("Which number is the largest?", DIGITS[max(digits)]),
            "way": ("Do the numbers go up or down?", way),
        }[kind]
    reading = names(digits)
    if kind == "way":
        reading += f", {' '.join('up' if low < high else 'down' for low, high in pairwise(digits))}"
    return Asked(digits, question, reading, answer)


def film_of(draw: Random) -> tuple[list[int], str]:
    """Digits of three to five frames, and whether they go `up`, `down` or `neither`, each as often."""
    way = draw.choice(("up", "down", "neither"))
    digits = draw.sample(range(10), draw.randint(3, 5))
    if way == "neither":
        while digits == sorted(digits) or digits == sorted(digits, reverse=True):
            draw.shuffle(digits)
        return digits, way
    if draw.random() < 0.5:
        length = len(digits)
        digits = run(draw, range(length, length + 1))[1]
    return sorted(digits, reverse=way == "down"), way


def image_quiz(world: World, draw: Random) -> Record:
    """`pictures`: one to three; `question` about them, `reading` of their digits, `answer`."""
    return _about_pictures(world, draw, about_some(draw))


def reasoning(world: World, draw: Random) -> Record:
    """`pictures`: three, of different digits; `question` that takes several steps, `reading` with these steps in words,
    `answer`."""
    return _about_pictures(world, draw, about_three(draw))


def _about_pictures(world: World, draw: Random, asked: Asked) -> Record:
    pictures = [world.picture(draw, digit) for digit in asked.digits]
    return {"pictures": pictures, "question": asked.question, "reading": asked.reading, "answer": asked.answer}


def examples(world: World, draw: Random) -> Record:
    """`shown`: two or three pictures, each followed by the answer that a rule gives, which is not said; `asked`:
    another picture; `reading`: what was seen, the rule in words, and what it makes of the other picture; `answer`: the
    same as the examples have it."""
    some = by_example(draw)
    pictures = [world.picture(draw, digit) for digit in some.digits]
    shown: list[str | Media] = []
    for picture, said in zip(pictures[:-1], some.said, strict=False):
        shown += [picture, f" {said}, "]
    return {
        "shown": shown,
        "asked": pictures[-1],
        "reading": some.reading,
        "answer": some.said[-1],
    }


def video_quiz(world: World, draw: Random) -> Record:
    """`video` of three to five frames, which count or not; `question` about it, `reading` of its digits, `answer`."""
    asked = about_film(draw)
    video = world.video(draw, asked.digits)
    return {"video": video, "question": asked.question, "reading": asked.reading, "answer": asked.answer}


def video_dialogues(world: World, draw: Random) -> Record:
    """`messages`: two questions about a video, the second answered from what the first answer read."""
    film = film_of(draw)
    first, second = about_film(draw, film), about_film(draw, film)
    return {
        "messages": [
            {"role": "user", "content": [world.video(draw, first.digits), f" {first.question}"]},
            {"role": "assistant", "content": [f"{first.reading}: {first.answer}"]},
            {"role": "user", "content": [second.question]},
            {"role": "assistant", "content": [second.answer]},
        ]
    }


BUILDERS: tuple[Builder, ...] = (image_quiz, reasoning, examples, video_quiz, video_dialogues)


def looking_tasks() -> list[Task]:
    """Who knows the question but sees nothing is right about once in three where a question may be answered by yes or
    no, the first or the second, up or down (`image_quiz`, `video_quiz`), else once in five or less."""
    return [
        task(
            "image_quiz",
            image_quiz,
            prompt="{pictures} {question}",
            response="{reading}: {answer}",
            output="text",
            judge=written("answer"),
            ceiling=ceiling(of("pictures")),
        ),
        task(
            "reason",
            reasoning,
            prompt="{pictures} Think step by step. {question}",
            response="{reading}: {answer}",
            output="text",
            judge=written("answer"),
            ceiling=ceiling(of("pictures")),
        ),
        task(
            "in_context",
            examples,
            prompt="{shown}{asked}",
            response="{reading}: {answer}",
            output="text",
            judge=written("answer"),
            ceiling=ceiling(of("asked")),  # of the examples one that can be read would do
        ),
        task(
            "video_quiz",
            video_quiz,
            prompt="{video} {question}",
            response="{reading}: {answer}",
            output="text",
            judge=written("answer"),
            ceiling=ceiling(of("video")),
        ),
    ]
