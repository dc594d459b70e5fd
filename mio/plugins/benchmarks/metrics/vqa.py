"""Accuracy of answers to questions about pictures, as the VQA evaluation has it (GT-Vision-Lab/VQA,
`PythonEvaluationTools/vqaEvaluation/vqaEval.py`).

An answer counts by how many of the people who were asked gave it: 1 for three others, averaged over which of them is
left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_NEEDED = 3
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_FULL_STOP = re.compile(r"(?!<=\d)(\.)(?!\d)")
_MOST_FULL_STOPS = 32
"""The evaluation passes `re.UNICODE`, which is 32, where `sub` expects how many to replace."""
_COMMA = re.compile(r"(\d)(\,)(\d)")
_TO_TEN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_TO_TEN)}
_ARTICLES = ("a", "an", "the")

_SPELLED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's I'd've I'm I've isn't it'd it'd've it'll ma'am mightn't mightn't've might've
    mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've
    somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've
    something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't
    we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll
    who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've
    you'll you're you've
"""


def _contractions() -> dict[str, str]:
    """What the evaluation takes for each contraction: without one of its apostrophes or without any."""
    spellings = {}
    for word in _SPELLED.split():
        ends = [place for place, character in enumerate(word) if character == "'"]
        left_out = [ends] if len(ends) == 1 else [[place] for place in ends]
        for places in left_out:
            spellings["".join(character for place, character in enumerate(word) if place not in places)] = word
    return {**spellings, "somebody'd": "somebodyd"}  # as it says


CONTRACTIONS = _contractions()


def accuracy(answer: str, given: Sequence[str]) -> float:
    """How right an answer is, from 0 to 1, by the answers that people gave.

    Where all of them gave the same one, they are compared as they are; otherwise after `normalised`.
    """
    answer, *given = (text.replace("\n", " ").replace("\t", " ").strip() for text in (answer, *given))
    if len(set(given)) > 1:
        answer, *given = map(normalised, (answer, *given))
    same = [other == answer for other in given]
    return sum(min(1.0, (sum(same) - own) / _NEEDED) for own in same) / len(same)


def best(given: Sequence[str]) -> float:
    """The highest accuracy that any answer can have."""
    return max(accuracy(answer, given) for answer in given)


def normalised(text: str) -> str:
    """Without punctuation and articles, numbers to ten as digits, in lower case, contractions with apostrophes."""
    return _with_apostrophes(_without_punctuation(text))


def _without_punctuation(text: str) -> str:
    """A mark becomes a space where it stands inside a word, and nothing beside a space or in a text with a number that
    has a comma."""
    stripped = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if beside_space or _COMMA.search(text) else " ")
    return _FULL_STOP.sub("", stripped, count=_MOST_FULL_STOPS)


def _with_apostrophes(text: str) -> str:
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
