"""The corpora of the digits world, generated as they are read: record i is a function of corpus, split, seed and i.

Every number in a record lies between zero and nine. A builder takes the split's `World` and
a `random.Random` and returns a record; its docstring names the record's fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from mio import Media, Record, number, read_options
from mio.plugins.digits import drawn, talk
from mio.plugins.digits.cloning import cloning
from mio.plugins.digits.voices import DIGITS
from mio.plugins.digits.world import World

LENGTH = {"train": 20_000, "test": 2_000}

Builder = Callable[[World, Random], Record]


@dataclass(frozen=True)
class CorpusOptions:
    """Options of every corpus."""

    length: int | None = number(None, 0, 10**9)
    """Records; by default 20,000 for training and 2,000 that are held out."""
    seed: int = number(0, 0, 2**63 - 1)


class Corpus:
    """A `mio` source of `length` records made by `build`."""

    def __init__(self, name: str, build: Builder, split: str, options: Mapping[str, Any]) -> None:
        chosen = read_options(CorpusOptions, options, f"corpus `digits/{name}`")
        self._name, self._build, self._world = name, build, World(split)
        self._length, self._seed = LENGTH[split] if chosen.length is None else chosen.length, chosen.seed

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self._length:
            raise IndexError(f"record {index} of {self._length}")
        return self._build(self._world, Random(f"{self._name}/{self._world.split}/{self._seed}/{index}"))


def _run(draw: Random, lengths: range) -> tuple[str, list[int]]:
    """`up` or `down`, and consecutive digits that way."""
    length = draw.choice(lengths)
    first = draw.randrange(11 - length)
    digits = list(range(first, first + length))
    return ("up", digits) if draw.random() < 0.5 else ("down", digits[::-1])


def _addends(draw: Random, count: int) -> list[int]:
    """Digits whose sum is at most nine, every sum as likely as any other."""
    total = draw.randrange(10)
    cuts = sorted(draw.randint(0, total) for _ in range(count - 1))
    return [high - low for low, high in zip([0, *cuts], [*cuts, total], strict=True)]


def _names(digits: list[int], between: str = " ") -> str:
    return between.join(DIGITS[digit] for digit in digits)


def captions(world: World, draw: Random) -> Record:
    """`image`, `caption` (`three`)."""
    digit = draw.randrange(10)
    return {"image": world.picture(draw, digit), "caption": DIGITS[digit]}


def speech(world: World, draw: Random) -> Record:
    """`speech`, `transcription` (`three`)."""
    digit = draw.randrange(10)
    return {"speech": world.word(draw, digit), "transcription": DIGITS[digit]}


def facts(world: World, draw: Random) -> Record:  # noqa: ARG001  text needs no media
    """`text`: a number fact, in words or figures."""
    a, b = _addends(draw, 2)
    way, digits = _run(draw, range(3, 8))
    return {
        "text": draw.choice(
            (
                f"{DIGITS[a]} plus {DIGITS[b]} is {DIGITS[a + b]}",
                f"{DIGITS[a + b]} minus {DIGITS[b]} is {DIGITS[a]}",
                f"{a} + {b} = {a + b}",
                f"{a + b} - {b} = {a}",
                f"{a} is {DIGITS[a]}",
                f"counting {way} from {DIGITS[digits[0]]} to {DIGITS[digits[-1]]}: {_names(digits)}",
                f"{DIGITS[digits[0]]}, one {'more' if way == 'up' else 'less'} is {DIGITS[digits[1]]}",
            )
        )
    }


def quiz(world: World, draw: Random) -> Record:  # noqa: ARG001
    """`question` and `answer`, both text."""
    a, b = _addends(draw, 2)
    way, (first, second) = _run(draw, range(2, 3))
    questions = (
        (f"What is {DIGITS[a]} plus {DIGITS[b]}?", DIGITS[a + b]),
        (f"What is {DIGITS[a + b]} minus {DIGITS[b]}?", DIGITS[a]),
        (f"What is one {'more' if way == 'up' else 'less'} than {DIGITS[first]}?", DIGITS[second]),
    )
    question, answer = draw.choice(questions)
    return {"question": question, "answer": answer}


def counting(world: World, draw: Random) -> Record:
    """`way` (`up`, `down`); `shown` and `rest`: words, each before its picture; `next`: the first word of the rest."""
    way, digits = _run(draw, range(3, 6))
    known = draw.randint(2, len(digits) - 1)  # one pair alone would not tell up from down

    def pairs(some: list[int]) -> list[str | Media]:
        spaced = [
            (f"{' ' if place else ''}{DIGITS[digit]}", world.picture(draw, digit)) for place, digit in enumerate(some)
        ]
        return [part for pair in spaced for part in pair]

    return {"way": way, "shown": pairs(digits[:known]), "rest": pairs(digits[known:]), "next": DIGITS[digits[known]]}


def stories(world: World, draw: Random) -> Record:
    """`parts`: a story of a few words that counts something, each number followed by its picture."""
    a, b = _addends(draw, 2)
    name, thing = draw.choice(("Tom", "Ann", "Max", "Eve")), draw.choice(("apples", "cats", "cups", "stars"))
    gets = draw.random() < 0.5
    start, end = (a, a + b) if gets else (a + b, a)
    return {
        "parts": [
            f"{name} has {DIGITS[start]}",
            world.picture(draw, start),
            f" {thing} and {'gets' if gets else 'gives away'} {DIGITS[b]}",
            world.picture(draw, b),
            f". Now {name} has {DIGITS[end]}",
            world.picture(draw, end),
        ]
    }


def videos(world: World, draw: Random) -> Record:
    """`video` of 3 to 5 frames, `description` (`counting up from two to five`), `names` of the digits in order."""
    way, digits = _run(draw, range(3, 6))
    description = f"counting {way} from {DIGITS[digits[0]]} to {DIGITS[digits[-1]]}"
    return {"video": world.video(draw, digits), "description": description, "names": _names(digits)}


def pictures_aloud(world: World, draw: Random) -> Record:
    """`image` and `speech` of the same digit, and its `name`."""
    digit = draw.randrange(10)
    return {"image": world.picture(draw, digit), "speech": world.word(draw, digit), "name": DIGITS[digit]}


def sums(world: World, draw: Random) -> Record:
    """`operands`: two or three pictures with `plus` between; `reading`: the sum in words; `total`: its result;
    `working`: each addition in words, its result drawn (of three operands so is the intermediate sum: a chain of visual
    thought); `drawn`: names of the results drawn."""
    digits = _addends(draw, draw.choice((2, 2, 3)))
    operands: list[str | Media] = [world.picture(draw, digits[0])]
    working: list[str | Media] = []
    results = []
    total = digits[0]
    for digit in digits[1:]:
        operands += [" plus ", world.picture(draw, digit)]
        working.append(f"{' ' if working else ''}{DIGITS[total]} plus {DIGITS[digit]} is {DIGITS[total + digit]}")
        total += digit
        working.append(world.picture(draw, total))
        results.append(total)
    return {
        "operands": operands,
        "reading": f"{_names(digits, ' plus ')} is {DIGITS[total]}",
        "total": DIGITS[total],
        "working": working,
        "drawn": _names(results),
    }


def edits(world: World, draw: Random) -> Record:
    """`image`, `change` (`one more`), `edited` image, its `name`, and `reading` (`three, one more is four`)."""
    way, (first, second) = _run(draw, range(2, 3))
    change = "one more" if way == "up" else "one less"
    return {
        "image": world.picture(draw, first),
        "change": change,
        "edited": world.picture(draw, second),
        "name": DIGITS[second],
        "reading": f"{DIGITS[first]}, {change} is {DIGITS[second]}",
    }


def questions(world: World, draw: Random) -> Record:
    """`question`: a sum spoken; `answer`: its result spoken by the same voice; `asked`: the question's words;
    `reading`: the sum in words with its `result`; `operands`: the question's two numbers spoken one by one."""
    a, b = _addends(draw, 2)
    speaker = world.speaker(draw)
    asked = [DIGITS[a], "plus", DIGITS[b]]
    return {
        "question": world.phrase(speaker, asked),
        "answer": world.word(draw, a + b, speaker),
        "asked": " ".join(asked),
        "reading": f"{' '.join(asked)} is {DIGITS[a + b]}",
        "result": DIGITS[a + b],
        "operands": [world.word(draw, a, speaker), world.word(draw, b, speaker)],
    }


def dialogues(world: World, draw: Random) -> Record:
    """`messages`: a conversation of two turns about a picture, whose second answer is drawn or spoken."""
    way, (first, second) = _run(draw, range(2, 3))
    change = "more" if way == "up" else "less"
    draws = draw.random() < 0.5
    answer = world.picture(draw, second) if draws else world.word(draw, second)
    return {
        "messages": [
            {"role": "user", "content": [world.picture(draw, first), "Which number is this?"]},
            {"role": "assistant", "content": [DIGITS[first]]},
            {"role": "user", "content": [f"{'Draw' if draws else 'Say'} one {change}."]},
            {"role": "assistant", "content": [f"{DIGITS[second]}: ", answer]},
        ]
    }


BUILDERS: tuple[Builder, ...] = (
    *(captions, speech, facts, quiz, counting, stories, videos, pictures_aloud),
    *(sums, edits, questions, dialogues, cloning),
)
"""Each is a corpus `digits/NAME` by its function's name."""

SOURCES = {
    f"digits/{build.__name__}": partial(Corpus, build.__name__, build)
    for build in (*BUILDERS, *talk.BUILDERS, *drawn.BUILDERS)
}
