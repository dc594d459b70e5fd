"""Patterns that words describe exactly: scales and broken chords, up and down, in a rhythm."""

from __future__ import annotations

import hashlib

import numpy as np

from mio_music.tunes import HIGHEST, LOWEST, METRES, Tune, rests

SHAPES = {
    "a major scale": (0, 2, 4, 5, 7, 9, 11, 12),
    "a major chord": (0, 4, 7, 12),
    "a minor chord": (0, 3, 7, 12),
    "five notes of major": (0, 2, 4, 5, 7),
}
"""Semitones above the first note."""
WAYS = {"up": (1,), "down": (-1,), "up and down": (1, -1)}
RHYTHMS = {"eighths": (2,), "quarters": (4,)}
"""Sixteenths of the notes in turn."""
HELD_OUT = 26
"""Of 256 patterns."""


def draw(random: np.random.Generator, split: str) -> tuple[str, Tune]:
    """Words and notes of a pattern of the split."""
    while True:
        shape, way, rhythm, metre = (
            list(table)[random.integers(len(table))] for table in (SHAPES, WAYS, RHYTHMS, METRES)
        )
        tonic = int(random.integers(LOWEST, HIGHEST - SHAPES[shape][-1] + 1))
        words = f"{shape} from {tonic} {way} in {rhythm}, in {metre}"
        if held_out(words) == (split == "test"):
            tune = notes(tonic, shape, way, rhythm, metre)
            if tune is not None:
                return words, tune


def held_out(words: str) -> bool:
    return hashlib.sha256(words.encode()).digest()[0] < HELD_OUT


def notes(tonic: int, shape: str, way: str, rhythm: str, metre: str) -> Tune | None:
    """A note that does not fit its bar any more begins the next one; what is left of a bar are rests."""
    pitches: list[int] = []
    for direction in WAYS[way]:
        steps = [tonic + step for step in SHAPES[shape][::direction]]
        pitches += steps[1:] if pitches else steps
    bars: list[list[tuple[int, int]]] = [[]]
    left = METRES[metre]
    for number, pitch in enumerate(pitches):
        length = RHYTHMS[rhythm][number % len(RHYTHMS[rhythm])]
        if length > left:
            bars[-1] += rests(left)
            bars.append([])
            left = METRES[metre]
        bars[-1].append((pitch, length))
        left -= length
    bars[-1] += rests(left)
    return Tune(metre, tuple(map(tuple, bars)))
