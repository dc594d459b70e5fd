"""Records: what is asked about tunes, and what is right.

All are drawn from a generator seeded with their number, out of the tunes of their split; an excerpt of the split `test`
occurs in no tune of `train`, in any key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

import mio
from mio_music import corpus, patterns
from mio_music.humming import hum
from mio_music.tunes import HIGHEST, LOWEST, NUMBERS, Tune, continues, to_text

COUNT = {"train": 100_000, "test": 1000}
MOST_NOTES = 5
"""Of a bar that is read, written or moved."""
MOST_HUMMED = 4
INTERVALS = (2, 5)
"""Semitones of transpositions, up and down."""


class Records:
    """A source: `make(draw, split)` makes a record of a generator, or answers None where it found nothing fit."""

    def __init__(self, make: Callable[[np.random.Generator, str], Mapping[str, Any] | None], split: str) -> None:
        self.make, self.split = make, split

    def __len__(self) -> int:
        return COUNT[self.split]

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        draw = np.random.default_rng([index, self.split == "test"])
        while True:
            if (record := self.make(draw, self.split)) is not None:
                return record


def media(tune: Tune) -> mio.Media:
    return mio.Media("score", tune, key=f"score:{to_text(tune)}", label=to_text(tune))


def excerpt(
    draw: np.random.Generator, split: str, bars: int, notes: int, *, shortest: int = 1, anywhere: bool = False
) -> Tune | None:
    """A stretch of so many bars and at most so many notes of a real tune, in its key or in one drawn at random."""
    tunes = _stretches(split, bars)
    tune = tunes[draw.integers(len(tunes))]
    part = tune.part(int(draw.integers(len(tune.bars) - bars + 1)), bars)
    if len(part.notes) > notes or not part.pitches or min(length for _, length in part.notes) < shortest:
        return None
    if split == "test" and corpus.signature(part) in corpus.known(bars):
        return None
    low, high = LOWEST - min(part.pitches), HIGHEST - max(part.pitches)
    return part.moved(int(draw.integers(low, high + 1))) if anywhere else part


@cache
def _stretches(split: str, bars: int) -> tuple[Tune, ...]:
    return tuple(tune for tune in corpus.tunes(split) if len(tune.bars) >= bars)


def written(draw: np.random.Generator, split: str) -> Mapping[str, Any] | None:
    """A tune and its text."""
    tune = excerpt(draw, split, 1, MOST_NOTES)
    return tune and {"score": media(tune), "notes": to_text(tune)}


def described(draw: np.random.Generator, split: str) -> Mapping[str, Any] | None:
    """A tune of one to four bars, and facts that its notes decide."""
    bars = int(draw.integers(1, 5))
    tune = excerpt(draw, split, bars, 8 * bars)
    if tune is None:
        return None
    first, last = tune.pitches[0], tune.pitches[-1]
    many = "one bar" if bars == 1 else f"{NUMBERS[bars]} bars"
    return {"score": media(tune), "facts": f"{tune.metre}, {many}, from {first} to {last}"}


def transposed(draw: np.random.Generator, split: str) -> Mapping[str, Any] | None:
    tune = excerpt(draw, split, 1, MOST_NOTES)
    if tune is None:
        return None
    size, way = INTERVALS[draw.integers(len(INTERVALS))], draw.choice(("up", "down"))
    moved = tune.moved(size if way == "up" else -size)
    interval = f"{way} {NUMBERS[size]} semitones"
    return None if moved.problem else {"score": media(tune), "interval": interval, "moved": media(moved)}


def continued(draw: np.random.Generator, split: str) -> Mapping[str, Any] | None:
    """Two bars that say which major scale is used, and the two that follow in the tune and stay in it."""
    tune = excerpt(draw, split, 4, 32)
    if tune is None or not continues(given := tune.part(0, 2), rest := tune.part(2, 2)):
        return None
    return {"score": media(given), "rest": media(rest)}


def hummed(draw: np.random.Generator, split: str) -> Mapping[str, Any] | None:
    tune = excerpt(draw, split, 1, MOST_HUMMED, shortest=2, anywhere=True)
    if tune is None:
        return None
    seed = int(draw.integers(2**31))
    sound = mio.Media("hum", hum(tune, seed), key=f"hum:{seed}:{to_text(tune)}")
    return {"hum": sound, "metre": tune.metre, "score": media(tune)}


def played(draw: np.random.Generator, split: str) -> Mapping[str, Any]:
    """A pattern in words, and its notes. A hash of the words says which are held out."""
    words, tune = patterns.draw(draw, split)
    return {"pattern": words, "score": media(tune)}


SOURCES = {
    "score/written": written,
    "score/described": described,
    "score/transposed": transposed,
    "score/continued": continued,
    "score/hummed": hummed,
    "score/played": played,
}
