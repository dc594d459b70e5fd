"""The corpora of the digits world, generated as they are read.

Every number in a record lies between zero and nine. Here are the builders of pairs, sums, edits, counting and videos;
those of other abilities stand beside their tasks.
"""

from __future__ import annotations

from functools import partial
from random import Random

from mio import Media, Record
from mio.plugins.digits import charts, cloning, drawn, in_words, looking, quizzes, storytelling, talk
from mio.plugins.digits.corpus import Builder, Corpus, addends, names, run
from mio.plugins.digits.voices import DIGITS
from mio.plugins.digits.world import World


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
    a, b = addends(draw, 2)
    way, digits = run(draw, range(3, 8))
    return {
        "text": draw.choice(
            (
                f"{DIGITS[a]} plus {DIGITS[b]} is {DIGITS[a + b]}",
                f"{DIGITS[a + b]} minus {DIGITS[b]} is {DIGITS[a]}",
                f"{a} + {b} = {a + b}",
                f"{a + b} - {b} = {a}",
                f"{a} is {DIGITS[a]}",
                f"counting {way} from {DIGITS[digits[0]]} to {DIGITS[digits[-1]]}: {names(digits)}",
                f"{DIGITS[digits[0]]}, one {'more' if way == 'up' else 'less'} is {DIGITS[digits[1]]}",
            )
        )
    }


def counting(world: World, draw: Random) -> Record:
    """`way` (`up`, `down`); `shown` and `rest`: words, each before its picture; `next`: the first word of the rest."""
    way, digits = run(draw, range(3, 6))
    known = draw.randint(2, len(digits) - 1)  # one pair alone would not tell up from down

    def pairs(some: list[int]) -> list[str | Media]:
        spaced = [
            (f"{' ' if place else ''}{DIGITS[digit]}", world.picture(draw, digit)) for place, digit in enumerate(some)
        ]
        return [part for pair in spaced for part in pair]

    return {"way": way, "shown": pairs(digits[:known]), "rest": pairs(digits[known:]), "next": DIGITS[digits[known]]}


def stories(world: World, draw: Random) -> Record:
    """`parts`: a story of a few words that counts something, each number followed by its picture."""
    a, b = addends(draw, 2)
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
    way, digits = run(draw, range(3, 6))
    description = f"counting {way} from {DIGITS[digits[0]]} to {DIGITS[digits[-1]]}"
    return {"video": world.video(draw, digits), "description": description, "names": names(digits)}


def pictures_aloud(world: World, draw: Random) -> Record:
    """`image` and `speech` of the same digit, and its `name`."""
    digit = draw.randrange(10)
    return {"image": world.picture(draw, digit), "speech": world.word(draw, digit), "name": DIGITS[digit]}


def sums(world: World, draw: Random) -> Record:
    """`operands`: two or three pictures with `plus` between; `reading`: the sum in words; `total`: its result;
    `working`: each addition in words, its result drawn (of three operands so is the intermediate sum: a chain of visual
    thought); `drawn`: names of the results drawn."""
    digits = addends(draw, draw.choice((2, 2, 3)))
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
        "reading": f"{names(digits, ' plus ')} is {DIGITS[total]}",
        "total": DIGITS[total],
        "working": working,
        "drawn": names(results),
    }


def edits(world: World, draw: Random) -> Record:
    """`image`, `change` (`one more`), `edited` image, its `name`, and `reading` (`three, one more is four`)."""
    way, (first, second) = run(draw, range(2, 3))
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
    a, b = addends(draw, 2)
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
    way, (first, second) = run(draw, range(2, 3))
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
    *(captions, speech, facts, counting, stories, videos, pictures_aloud, sums, edits, questions, dialogues),
    *(*quizzes.BUILDERS, *looking.BUILDERS, *charts.BUILDERS, *storytelling.BUILDERS),
    *(*in_words.BUILDERS, *cloning.BUILDERS),
)
"""Those of MIO's stages. Each is a corpus `digits/NAME` by its function's name."""

SOURCES = {
    f"digits/{build.__name__}": partial(Corpus, build.__name__, build)
    for build in (*BUILDERS, *talk.BUILDERS, *drawn.BUILDERS)
}
