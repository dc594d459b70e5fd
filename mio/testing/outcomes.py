"""What checks are made of: results, a reason to skip one, the media inside a record, equality that knows arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mio.core.contract.values import Codes, Media

RECORDS = 5
"""Records of each source and task that are read, media of a modality that are looked at."""

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"

Check = tuple[str, Callable[[], Any]]
"""Name of a check, and what makes it: raises for a fault, and may return a line about what was looked at."""


@dataclass(frozen=True)
class Result:
    """Outcome of one check."""

    check: str
    outcome: str
    """`passed`, `failed`, or `skipped`."""
    detail: str = ""
    """What is wrong, why it was skipped, or what was looked at."""
    seconds: float = 0.0


class SkippedCheckError(Exception):
    """A check that cannot be made; the message says why."""


def items_in(value: Any) -> list[Media | Codes]:
    """The media and codes inside a record or one of its fields, in order."""
    if isinstance(value, Media | Codes):
        return [value]
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [item for one in inside for item in items_in(one)]


def media_in(value: Any) -> list[Media]:
    """The media among them."""
    return [item for item in items_in(value) if isinstance(item, Media)]


def same(first: Any, second: Any) -> bool:
    """Deep equality that knows arrays."""
    if isinstance(first, Media) and isinstance(second, Media):
        names = (first.modality, first.key, first.label) == (second.modality, second.key, second.label)
        return names and same(first.data, second.data)
    if isinstance(first, Codes) and isinstance(second, Codes):
        names = (first.modality, first.codebooks) == (second.modality, second.codebooks)
        return names and np.array_equal(first.codes, second.codes)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return np.array_equal(first, second)
    return bool(first == second)
