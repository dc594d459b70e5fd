"""Questions about pictures and videos: image understanding, reasoning over several pictures, learning from examples in
the context, video understanding and dialogue.

Answers say what was seen before they say what follows from it.
"""

from __future__ import annotations

from random import Random

from mio import Media, Record, Task
from mio.plugins.digits.corpus import Builder, names, run
from mio.plugins.digits.judges import ceiling
from mio.plugins.digits.measuring import of, task, written
from mio.plugins.digits.voices import DIGITS
from mio.plugins.digits.world import World

PLACES = ("first", "second", "third", "fourth", "fifth")


def _pictures(world: World, draw: Random, digits: list[int]) -> list[Media]:
    return [world.picture(draw, digit) for digit in digits]


def image_quiz(world: World, draw: Random) -> Record:
    """`pictures`: one to three; `question` about them, `reading` of their digits, `answer`."""
    kind = draw.choice(("even", "than", "next", "which", "extreme", "place"))
    digits = draw.sample(range(10), {"which": 2, "extreme": 2, "place": 3}.get(kind, 1))
    one = digits[0]
    if kind == "even":
        question, answer = "Is it even?", "no" if one % 2 else "yes"
    elif kind == "than":
        bound = draw.choice((3, 4, 5))
        question, answer = f"Is it more than {DIGITS[bound]}?", "yes" if one > bound else "no"
    elif kind == "next":
        step = draw.choice([step for step in (-1, 1) if 0 <= one + step <= 9])
        question, answer = f"What is one {'more' if step > 0 else 'less'}?", DIGITS[one + step]
    elif kind == "which":
        word, chosen = draw.choice((("larger", max), ("smaller", min)))
        question, answer = f"Which is {word}, the first or the second?", PLACES[digits.index(chosen(digits))]
    elif kind == "extreme":
        word, chosen = draw.choice((("larger", max), ("smaller", min)))
        question, answer = f"What is the {word} number?", DIGITS[chosen(digits)]
    else:
        place = draw.randrange(3)
        question, answer = f"What is the {PLACES[place]} number?", DIGITS[digits[place]]
    return {
        "pictures": _pictures(world, draw, digits),
        "question": question,
        "reading": names(digits),
        "answer": answer,
    }


def reasoning(world: World, draw: Random) -> Record:
    """`pictures`: three, of different digits; `question` that takes several steps, `working`: these steps in words,
    `answer`."""
    kind = draw.choice(("range", "small", "middle", "rest"))
    while True:
        digits = draw.sample(range(10), 3)
        low, middle, high = sorted(digits)
        if (kind != "small" or low + middle <= 9) and (kind != "rest" or digits[0] + digits[2] <= 9):
            break
    if kind == "range":
        question, answer = "How much more is the largest than the smallest?", DIGITS[high - low]
        working = f"{DIGITS[high]} minus {DIGITS[low]} is {answer}"
    elif kind == "small":
        question, answer = "What do the two smaller ones make together?", DIGITS[low + middle]
        working = f"{DIGITS[low]} plus {DIGITS[middle]} is {answer}"
    elif kind == "middle":
        question, answer = "What is one more than the one between the others in size?", DIGITS[middle + 1]
        working = f"in order {names([low, middle, high])}, {DIGITS[middle]}, one more is {answer}"
    else:
        question, answer = "What do the first and the last make together?", DIGITS[digits[0] + digits[2]]
        working = f"{DIGITS[digits[0]]} plus {DIGITS[digits[2]]} is {answer}"
    return {
        "pictures": _pictures(world, draw, digits),
        "question": question,
        "working": f"{names(digits)}, {working}",
        "answer": answer,
    }


def examples(world: World, draw: Random) -> Record:
    """`shown`: two or three pictures, each followed by the answer that a rule gives, which is never said (the number
    itself, one or two more or less, in words or figures; or whether it is even); `asked`: another picture; `reading`:
    what was seen, in words; `answer`: the rule's for the last picture."""
    if draw.random() < 0.2:
        allowed, rule = list(range(10)), lambda digit: "odd" if digit % 2 else "even"
    else:
        step, say = draw.randint(-2, 2), draw.choice((DIGITS, "0123456789"))
        allowed, rule = [digit for digit in range(10) if 0 <= digit + step <= 9], lambda digit: say[digit + step]
    digits = draw.sample(allowed, draw.randint(3, 4))
    pictures = _pictures(world, draw, digits)
    shown: list[str | Media] = []
    for digit, picture in zip(digits[:-1], pictures, strict=False):
        shown += [picture, f" {rule(digit)}, "]
    reading = ", ".join(f"{DIGITS[digit]} {rule(digit)}" for digit in digits[:-1])
    return {
        "shown": shown,
        "asked": pictures[-1],
        "reading": f"{reading}, {DIGITS[digits[-1]]}",
        "answer": rule(digits[-1]),
    }


def _film(draw: Random) -> tuple[list[int], str]:
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


def _about(draw: Random, digits: list[int], way: str) -> tuple[str, str]:
    """A question about a film, and its answer."""
    kind = draw.choice(("place", "place", "last", "count", "largest", "way"))
    if kind == "place":
        place = draw.randrange(len(digits))
        return f"Which number is the {PLACES[place]}?", DIGITS[digits[place]]
    if kind == "last":
        return "Which number is the last?", DIGITS[digits[-1]]
    if kind == "count":
        return "How many numbers are there?", DIGITS[len(digits)]
    if kind == "largest":
        return "Which number is the largest?", DIGITS[max(digits)]
    return "Do the numbers go up or down?", way


def video_quiz(world: World, draw: Random) -> Record:
    """`video` of three to five frames, which count or not; `question` about it, `names` of its digits, `answer`."""
    digits, way = _film(draw)
    question, answer = _about(draw, digits, way)
    return {"video": world.video(draw, digits), "question": question, "names": names(digits), "answer": answer}


def video_dialogues(world: World, draw: Random) -> Record:
    """`messages`: two questions about a video, the second answered from what the first answer read."""
    digits, way = _film(draw)
    first, second = _about(draw, digits, way), _about(draw, digits, way)
    return {
        "messages": [
            {"role": "user", "content": [world.video(draw, digits), f" {first[0]}"]},
            {"role": "assistant", "content": [f"{names(digits)}: {first[1]}"]},
            {"role": "user", "content": [second[0]]},
            {"role": "assistant", "content": [second[1]]},
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
            response="{working}: {answer}",
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
            response="{names}: {answer}",
            output="text",
            judge=written("answer"),
            ceiling=ceiling(of("video")),
        ),
    ]
