"""A corpus of the digits world: record i is a function of corpus, split, seed and i.

A builder takes the split's `World` and a `random.Random` and returns a record; its docstring names the record's fields.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from mio import Record, number, read_options
from mio.plugins.digits import scans
from mio.plugins.digits.voices import DIGITS
from mio.plugins.digits.world import World

LENGTH = {"train": 20_000, "test": 2_000}

HELD_OUT = 5
"""One of so many combinations is held out where a corpus has few enough that training would see them all."""

Builder = Callable[[World, Random], Record]


@dataclass(frozen=True)
class CorpusOptions:
    """Options of every corpus."""

    length: int | None = number(None, 0, 10**9)
    """Records; by default 20,000 for training and 2,000 that are held out."""
    seed: int = number(0, 0, 2**63 - 1)
    noise: float = number(scans.NOISE, 0, 255)
    """Standard deviation of what is added to the ink of scans that training shows, in grey levels of 255. More of it
    teaches to read scans that were never seen by few codes; what is drawn learns it too."""


class Corpus:
    """A `mio` source of `length` records made by `build`."""

    def __init__(self, name: str, build: Builder, split: str, options: Mapping[str, Any]) -> None:
        chosen = read_options(CorpusOptions, options, f"corpus `digits/{name}`")
        self._name, self._build, self._world = name, build, World(split, chosen.noise)
        self._length, self._seed = LENGTH[split] if chosen.length is None else chosen.length, chosen.seed

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self._length:
            raise IndexError(f"record {index} of {self._length}")
        return self._build(self._world, Random(f"{self._name}/{self._world.split}/{self._seed}/{index}"))


def of_split(world: World, combination: str) -> bool:
    """Whether a combination (a question's words, a chart's bars) is one of the split's: a hash of it decides."""
    return (zlib.crc32(combination.encode()) % HELD_OUT == 0) == (world.split == "test")


def run(draw: Random, lengths: range) -> tuple[str, list[int]]:
    """`up` or `down`, and consecutive digits that way."""
    length = draw.choice(lengths)
    first = draw.randrange(11 - length)
    digits = list(range(first, first + length))
    return ("up", digits) if draw.random() < 0.5 else ("down", digits[::-1])


def addends(draw: Random, count: int) -> list[int]:
    """Digits whose sum is at most nine, every sum as likely as any other."""
    total = draw.randrange(10)
    cuts = sorted(draw.randint(0, total) for _ in range(count - 1))
    return [high - low for low, high in zip([0, *cuts], [*cuts, total], strict=True)]


def names(digits: list[int], between: str = " ") -> str:
    return between.join(DIGITS[digit] for digit in digits)
