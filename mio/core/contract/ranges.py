"""Which values a key may have, declared beside the key: checks and documentation read it there. Free of torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

from mio.core.errors import nearest
from mio.core.terminal import plain

ALLOWED = "allowed"
"""Key of a dataclass field's metadata that holds its `Range`, `Choice` or `Form`."""
KEYS = "keys"
"""Key of the metadata of a field that is a mapping: the dataclass whose keys it may have, or a mapping by name of such.
"""


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`. Of a list or mapping it holds for every item."""

    least: float
    most: float
    above: bool = False
    """Whether `least` itself is left out."""
    below: bool = False
    """Whether `most` itself is left out."""

    def problem(self, value: Any) -> str:
        """What is wrong with a value, to follow its name; empty if nothing is."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return ""  # `Checker` reports a wrong type
        low = value > self.least if self.above else value >= self.least
        high = value < self.most if self.below else value <= self.most
        if low and high and math.isfinite(value):
            return ""
        bound = f"from {self}"
        if not low and not math.isnan(value):
            bound = f"{'above' if self.above else 'at least'} {number_text(self.least)}"
        elif not high and not math.isnan(value):
            bound = f"{'below' if self.below else 'at most'} {number_text(self.most)}"
        return f"is {number_text(value)}; it must be {bound}"

    def __str__(self) -> str:
        first = f"above {number_text(self.least)}" if self.above else number_text(self.least)
        return f"{first} to {'below ' if self.below else ''}{number_text(self.most)}"


@dataclass(frozen=True)
class Choice:
    """One of several words."""

    words: tuple[str, ...]

    def problem(self, value: Any) -> str:
        """As `Range.problem`."""
        if not isinstance(value, str) or value in self.words:
            return ""
        return f"is `{plain(value):.80}`, not one of {self}{nearest(value, self.words)}"

    def __str__(self) -> str:
        return ", ".join(f"`{word}`" if word else "empty" for word in self.words)


@dataclass(frozen=True)
class Form:
    """Text of one form, or none."""

    pattern: str
    """Regular expression of the whole text."""
    what: str
    """What such a text is, with an example."""

    def problem(self, value: Any) -> str:
        """As `Range.problem`."""
        if not isinstance(value, str) or not value or re.fullmatch(self.pattern, value):
            return ""
        return f"is `{plain(value):.80}`, which is not {self}"

    def __str__(self) -> str:
        return self.what


Allowed = Range | Choice | Form


def number(default: Any, least: float, most: float, *, above: bool = False, below: bool = False) -> Any:
    """A dataclass field that holds numbers of a range; `default` may be a function that makes it."""
    return _field(default, Range(least, most, above, below))


def range_of(kind: type, name: str) -> Range:
    """Which numbers the field `name` of a dataclass may hold. Raises `KeyError` if it has no range, or is not there."""
    allowed = {one.name: one.metadata for one in fields(kind)}[name][ALLOWED]
    assert isinstance(allowed, Range)
    return allowed


def one_of(default: str, *words: str) -> Any:
    """A dataclass field that holds one of several words."""
    return _field(default, Choice(words))


def formed(form: Form) -> Any:
    """A dataclass field that holds text of a form, or none, which is the default."""
    return _field("", form)


def _field(default: Any, allowed: Allowed) -> Any:
    keyword = "default_factory" if callable(default) else "default"
    return field(**{keyword: default}, metadata={ALLOWED: allowed})


def number_text(value: float) -> str:
    """A number as a person writes it."""
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**12 else f"{float(value):.3g}" if abs(value) < 10**300 else "huge"
    if value == int(value) if math.isfinite(value) else False:
        return f"{value:,.0f}" if abs(value) < 1e12 else f"{value:g}"
    return f"{value:g}"
