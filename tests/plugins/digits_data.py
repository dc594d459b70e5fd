"""What tests of the digits world share: its recipe, its corpora, media in records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mio import Media, Template
from mio.plugins import image, speech, video
from mio.plugins.digits.corpora import BUILDERS, SOURCES
from mio.plugins.digits.voices import DIGITS

RECIPE = yaml.safe_load((Path(__file__).parents[2] / "recipes/data/digits.yaml").read_text(encoding="utf-8"))
DATA = RECIPE["data"]
RATIOS = yaml.safe_load((Path(__file__).parents[2] / "recipes/stage4.yaml").read_text(encoding="utf-8"))["mixture"][
    "ratios"
]
TUNING = {name: DATA["groups"][name] for name in RATIOS}
"""Groups of instruction tuning."""
SETS: dict[str, list[Template]] = {
    **{name: list(some) for plugin in (image, speech, video) for name, some in plugin.TEMPLATES.items()},
    **{name: [Template(**given) for given in some] for name, some in DATA["templates"].items()},
}
CORPORA = {f"digits/{build.__name__}": SOURCES[f"digits/{build.__name__}"] for build in BUILDERS}
"""Those of MIO's stages; `test_digits_talk.py` has the others."""
SOURCES_IN_USE = [source for group in DATA["groups"].values() for source in group["sources"].values()]


def media_in(value: Any) -> Iterator[Media]:
    if isinstance(value, Media):
        yield value
    elif isinstance(value, Mapping):
        yield from media_in(list(value.values()))
    elif isinstance(value, list):
        for inner in value:
            yield from media_in(inner)


def number(word: str) -> int:
    return DIGITS.index(word)


def true(equation: str) -> bool:
    """Whether `three plus four is seven`, `three, one more is four` or `3 + 4 = 7` is true, all numbers 0 to 9."""
    for digit, word in enumerate(DIGITS):
        equation = re.sub(rf"\b{word}\b", str(digit), equation)
    for words, sign in ((" plus ", "+"), (" minus ", "-"), (", 1 more", "+1"), (", 1 less", "-1"), (" is ", "==")):
        equation = equation.replace(words, sign)
    equation = equation.replace(" = ", "==").replace(" ", "")
    assert re.fullmatch(r"[0-9+\-]+==[0-9]", equation), equation
    return eval(equation)
