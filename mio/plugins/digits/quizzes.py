"""Questions in words, and what is answered in words or aloud: language only, speech generation, speech understanding.

One of five questions in words is held out: those that a model is asked have never been put to it in training.
"""

from __future__ import annotations

from random import Random

from mio import Record, Task
from mio.plugins.digits.corpus import Builder, names, of_split
from mio.plugins.digits.judges import ceiling
from mio.plugins.digits.measuring import of, shown, task, written
from mio.plugins.digits.voices import DIGITS
from mio.plugins.digits.world import World

Puzzle = tuple[str, str, str]
"""A question, the working of its answer (empty, or with a colon behind it), the answer."""


def _chain(draw: Random) -> Puzzle:
    """Two additions or subtractions one after the other; no result is below zero or above nine."""
    total = draw.randrange(10)
    question, working = f"What is {DIGITS[total]}", []
    for _ in range(2):
        result = draw.randrange(10)
        sign = "plus" if result > total or (result == total and draw.random() < 0.5) else "minus"
        step = f"{sign} {DIGITS[abs(result - total)]}"
        question += f" {step}"
        working.append(f"{DIGITS[total]} {step} is {DIGITS[result]}")
        total = result
    return f"{question}?", f"{', '.join(working)}: ", DIGITS[total]


def _extreme(draw: Random) -> Puzzle:
    some = draw.sample(range(10), 3)
    kind, chosen = draw.choice((("largest", max), ("smallest", min)))
    return f"Which is the {kind} of {_listed(some)}?", "", DIGITS[chosen(some)]


def _backwards(draw: Random) -> Puzzle:
    some = draw.sample(range(10), draw.randint(3, 5))
    return f"Say {_listed(some)} backwards.", "", names(some[::-1], ", ")


def _sorted(draw: Random) -> Puzzle:
    some = draw.sample(range(10), draw.randint(3, 4))
    return f"Put {_listed(some)} in order.", "", names(sorted(some), ", ")


def _listed(some: list[int]) -> str:
    return f"{names(some[:-1], ', ')} and {DIGITS[some[-1]]}"


def _puzzle(world: World, draw: Random, kinds: tuple[object, ...]) -> Puzzle:
    while True:
        puzzle: Puzzle = draw.choice(kinds)(draw)  # type: ignore[operator]
        if of_split(world, puzzle[0]):
            return puzzle


def quiz(world: World, draw: Random) -> Record:
    """`question` and `answer`, both text; `result`: the end of the answer, behind its working if it has any. One of
    five questions is held out."""
    question, working, result = _puzzle(world, draw, (_chain, _extreme, _backwards, _sorted))
    return {"question": question, "answer": f"{working}{result}", "result": result}


def quiz_aloud(world: World, draw: Random) -> Record:
    """`question`, a text, `working` of its answer, which ends in the answer's word, `answer`: that word spoken, and
    `result`, the word. One of five questions is held out."""
    question, working, result = _puzzle(world, draw, (_chain, _extreme))
    speech = world.word(draw, DIGITS.index(result))
    return {"question": question, "working": f"{working}{result}", "answer": speech, "result": result}


def spoken_quiz(world: World, draw: Random) -> Record:
    """`question`: three words spoken by one voice (`three plus four`, `four one more`, `first nine two`, `more nine
    two`); `asked`: its words; `answer`: its answer in writing; `operands`: the question's digits spoken one by one."""
    kind = draw.choice(("plus", "more", "less", "first", "last", "larger"))
    if kind == "plus":
        total = draw.randrange(10)
        digits = [first := draw.randint(0, total), total - first]
        asked, answer = [DIGITS[digits[0]], "plus", DIGITS[digits[1]]], total
    elif kind in ("more", "less"):
        digits = [draw.randrange(9) + (kind == "less")]
        asked, answer = [DIGITS[digits[0]], "one", kind], digits[0] + (1 if kind == "more" else -1)
    else:
        digits = draw.sample(range(10), 2)
        asked = ["more" if kind == "larger" else kind, *(DIGITS[digit] for digit in digits)]
        answer = {"first": digits[0], "last": digits[1], "larger": max(digits)}[kind]
    speaker = world.talker(draw)
    return {
        "question": world.phrase(speaker, asked),
        "asked": " ".join(asked),
        "answer": DIGITS[answer],
        "operands": [world.word(draw, digit, speaker) for digit in digits],
    }


BUILDERS: tuple[Builder, ...] = (quiz, quiz_aloud, spoken_quiz)


def quiz_tasks() -> list[Task]:
    """The best that can be said without a look at the question is right about once in ten."""
    return [
        task("quiz", quiz, prompt="{question}", response="{answer}", output="text", judge=written("result")),
        task(
            "quiz_aloud",
            quiz_aloud,
            prompt="Answer aloud. {question}",
            response="{working}: {answer}",
            output="speech",
            judge=shown("result", "speech"),
            ceiling=ceiling(of("answer")),
        ),
        task(
            "spoken_quiz",
            spoken_quiz,
            prompt="Answer in writing. {question}",
            response="{asked}: {answer}",
            output="text",
            judge=written("answer"),
            ceiling=ceiling(of("operands")),
        ),
    ]
