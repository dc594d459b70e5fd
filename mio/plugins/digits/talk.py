"""Conversations of the digits world with a listener that may be meant or not: questions, written and spoken, and talk.

Speech is addressed to the listener when one person asks a question or makes a request, in words that are one: `which
number`, `one more`, `three plus four`, `how many`, `count down`. It is not addressed when somebody counts, when
somebody states a result (`three plus four is seven`, `four is one more`), when the same questions are put to somebody
else by name (`tom, which number`), or when two people talk at once; nor are noise and tones. No word wakes the listener
up: what is said, and by how many, has to tell.

Builders like those of `mio.plugins.digits.corpora`. `asked` is the question in writing, `question` the same spoken.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from mio import Media, Record
from mio.plugins.digits.sounds import MOST_BEEPS
from mio.plugins.digits.voices import DIGITS
from mio.plugins.digits.world import World

FURTHER = ("which number", "how many", "is", "first", "last", "more", "less", "count", "up", "down", "tom")
WORDS = (*DIGITS, "plus", *FURTHER)
Words = tuple[str, ...]

UNADDRESSED = {"unaddressed": True}
"""Field of records whose speech is not addressed to the listener."""
OTHER_NAMES = ("noise", "tones", "two voices", *(f"{DIGITS[count]} beeps" for count in range(1, MOST_BEEPS + 1)))
"""What is heard that is not one voice."""
NAME = "tom"
"""Somebody else who is talked to."""


def _consecutive(draw: Random) -> tuple[bool, list[int]]:
    """Whether it goes up, and three to five consecutive digits that way."""
    length = draw.randint(3, 5)
    first = draw.randrange(11 - length)
    digits, up = list(range(first, first + length)), draw.random() < 0.5
    return up, digits if up else digits[::-1]


def _about_digit(draw: Random, digit: int) -> tuple[Words, str]:
    """A question about a picture of `digit`, and its answer."""
    kinds = ["which", "which", "plus", "count"]
    kinds += ["more"] if digit < 9 else []
    kinds += ["less"] if digit > 0 else []
    kind = draw.choice(kinds)
    if kind == "which":
        return ("which number",), DIGITS[digit]
    if kind == "plus":
        other = draw.randint(0, 9 - digit)
        return ("plus", DIGITS[other]), DIGITS[digit + other]
    if kind == "count":
        up = draw.random() < 0.5
        run = range(digit, 10) if up else range(digit, -1, -1)
        return ("count", "up" if up else "down"), " ".join(DIGITS[number] for number in run)
    return ("one", kind), DIGITS[digit + (1 if kind == "more" else -1)]


def _sum(draw: Random) -> tuple[Words, str]:
    total = draw.randrange(10)
    first = draw.randint(0, total)
    return (DIGITS[first], "plus", DIGITS[total - first]), DIGITS[total]


def _about_video(draw: Random, digits: list[int]) -> tuple[Words, str]:
    kind = draw.choice(("first", "last", "how many"))
    if kind == "how many":
        return ("how many",), DIGITS[len(digits)]
    return ("which number", "is", kind), DIGITS[digits[0 if kind == "first" else -1]]


def _question(draw: Random) -> Words:
    """Any question."""
    kind = draw.randrange(3)
    if kind == 0:
        return _about_digit(draw, draw.randrange(10))[0]
    return _sum(draw)[0] if kind == 1 else _about_video(draw, [0, 1, 2])[0]


def _remark(draw: Random) -> Words:
    """Talk of one person that is no question to the listener."""
    kind = draw.choice(("counting", "result", "change", "place", "other", "other"))
    if kind == "counting":
        return tuple(DIGITS[digit] for digit in _consecutive(draw)[1])
    if kind == "result":
        words, total = _sum(draw)
        return (*words, "is", total)
    if kind == "change":
        return (DIGITS[draw.randrange(10)], "is", "one", draw.choice(("more", "less")))
    if kind == "place":
        return (DIGITS[draw.randrange(10)], "is", draw.choice(("first", "last")))
    return (NAME, *_question(draw))


def _spoken(world: World, draw: Random, words: Words) -> dict[str, object]:
    return {"question": world.utterance(draw, words), "asked": " ".join(words)}


def _seen(world: World, draw: Random) -> list[Media]:
    """What the listener looks at meanwhile: a picture, or nothing."""
    return [world.picture(draw, draw.randrange(10))] if draw.random() < 0.5 else []


def written(world: World, draw: Random) -> Record:  # noqa: ARG001  text needs no media
    """`question` and `answer` in writing, with everything that it is about: a sum, a number, numbers in a row; or words
    to repeat."""
    kind = draw.randrange(5)
    if kind == 0:
        words, answer = _sum(draw)
        return {"question": " ".join(words), "answer": answer}
    if kind == 1:
        digit = draw.randrange(10)
        words, answer = _about_digit(draw, digit)
        return {"question": f"{DIGITS[digit]}, {' '.join(words)}", "answer": answer}
    if kind == 2:
        digits = _consecutive(draw)[1]
        words, answer = _about_video(draw, digits)
        return {"question": f"{' '.join(DIGITS[digit] for digit in digits)}, {' '.join(words)}", "answer": answer}
    utterance = " ".join(draw.choice((_question, _remark))(draw))
    said = draw.choice(draw.choice(((utterance,), WORDS, OTHER_NAMES)))
    return {"question": f"repeat: {said}", "answer": said}


def utterances(world: World, draw: Random) -> Record:
    """`speech`: anything that one person says here; `transcription`."""
    words = draw.choice((_question, _remark))(draw)
    return {"speech": world.utterance(draw, words), "transcription": " ".join(words)}


def words(world: World, draw: Random) -> Record:
    """`speech`: one word alone; `transcription`."""
    word = draw.choice(WORDS)
    return {"speech": world.utterance(draw, (word,)), "transcription": word}


def sounds(world: World, draw: Random) -> Record:
    """`speech`: no speech; `transcription`: what it is (`noise`, `tones`, `three beeps`)."""
    kind = draw.choice(("noise", "tones", "beeps"))
    count = draw.randint(1, MOST_BEEPS) if kind == "beeps" else 0
    return {"speech": world.sound(draw, kind, count), "transcription": f"{DIGITS[count]} {kind}" if count else kind}


def picture_questions(world: World, draw: Random) -> Record:
    """`image`, `question` and `asked` about its number, `answer`."""
    digit = draw.randrange(10)
    words, answer = _about_digit(draw, digit)
    return {"image": world.picture(draw, digit), **_spoken(world, draw, words), "answer": answer}


def video_questions(world: World, draw: Random) -> Record:
    """`video` of 3 to 5 frames, `question` and `asked` about it, `answer`."""
    digits = _consecutive(draw)[1]
    words, answer = _about_video(draw, digits)
    return {"video": world.video(draw, digits), **_spoken(world, draw, words), "answer": answer}


def sound_questions(world: World, draw: Random) -> Record:
    """`sound` of one to five beeps, `question` and `asked` how many, `answer`."""
    count = draw.randint(1, MOST_BEEPS)
    return {"sound": world.sound(draw, "beeps", count), **_spoken(world, draw, ("how many",)), "answer": DIGITS[count]}


def sum_questions(world: World, draw: Random) -> Record:
    """`question` and `asked`: a sum; `answer`."""
    words, answer = _sum(draw)
    return {**_spoken(world, draw, words), "answer": answer}


def remarks(world: World, draw: Random) -> Record:
    """`speech` of one person that is no question to the listener, `seen` meanwhile (a picture or nothing), `heard`: its
    words."""
    words = _remark(draw)
    return {"seen": _seen(world, draw), "speech": world.utterance(draw, words), "heard": " ".join(words), **UNADDRESSED}


def crowds(world: World, draw: Random) -> Record:
    """`speech` of two people at once, questions or not, `seen` meanwhile, `heard`: `two voices`."""
    said = [draw.choice((_question, _remark))(draw) for _ in range(2)]
    return {"seen": _seen(world, draw), "speech": world.together(draw, *said), "heard": "two voices", **UNADDRESSED}


def noises(world: World, draw: Random) -> Record:
    """`speech`: noise or tones alone, `seen` meanwhile, `heard`: `noise` or `tones`."""
    kind = draw.choice(("noise", "tones"))
    return {"seen": _seen(world, draw), "speech": world.sound(draw, kind), "heard": kind, **UNADDRESSED}


def replies(world: World, draw: Random) -> Record:
    """`image`, `question` and `asked` about its number with one word for an answer, `answer`, and `reply`: the same
    spoken, always in the listener's own voice."""
    digit = draw.randrange(10)
    while True:
        words, answer = _about_digit(draw, digit)
        if answer in DIGITS:
            break
    spoken = _spoken(world, draw, words)
    return {"image": world.picture(draw, digit), **spoken, "answer": answer, "reply": world.own_voice(draw, answer)}


def exchanges(world: World, draw: Random) -> Record:
    """`messages`: two turns as a live conversation remembers them, of which the second is learnt. The first is a
    question about a picture that is no longer there, its answer perhaps interrupted; the second shows a picture, and
    then something is asked or not addressed to the listener. `unaddressed`: the number of its reply, if so."""
    before, now = draw.randrange(10), draw.randrange(10)
    words, answer = _about_digit(draw, before)
    if draw.random() < 0.5:
        said = answer.split()
        answer = " ".join(said[: draw.randint(1, len(said))])
    first = world.utterance(draw, words) if draw.random() < 0.7 else " ".join(words)
    second: str | Media
    if unaddressed := draw.random() < 0.25:
        heard = draw.choice((remarks, crowds, noises))(world, draw)
        second, reply = heard["speech"], heard["heard"]
    else:
        words, reply = _about_digit(draw, now)
        second = world.utterance(draw, words) if draw.random() < 0.7 else " ".join(words)
    messages = [
        {"role": "user", "content": [first]},
        {"role": "assistant", "content": [answer], "train": False},
        {"role": "user", "content": [world.picture(draw, now), second]},
        {"role": "assistant", "content": [reply]},
    ]
    return {"messages": messages, "unaddressed": [3] if unaddressed else []}


BUILDERS: tuple[Callable[[World, Random], Record], ...] = (
    *(written, words, utterances, sounds),
    *(picture_questions, video_questions, sound_questions, sum_questions, replies),
    *(remarks, crowds, noises, exchanges),
)
"""Each is a corpus `digits/NAME` by its function's name."""
