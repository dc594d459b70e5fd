"""Patterns that words describe exactly: scales and broken chords, up or down, in a rhythm."""

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
"""Semitones above the lowest note."""
WAYS = {"up from": 1, "down to": -1}
RHYTHMS = {"eighths": 2, "quarters": 4}
"""Sixteenths of a note."""
HELD_OUT = 26
"""Of 256 patterns."""


def draw(random: np.random.Generator, split: str) -> tuple[str, Tune]:
    """Words and notes of a pattern of the split."""
    while True:
        shape, way, rhythm, metre = (
            list(table)[random.integers(len(table))] for table in (SHAPES, WAYS, RHYTHMS, METRES)
        )
        tonic = int(random.integers(LOWEST, HIGHEST - SHAPES[shape][-1] + 1))
        words = f"{shape} {way} {tonic} in {rhythm}, in {metre}"
        if held_out(words) == (split == "test"):
            return words, notes(tonic, shape, way, rhythm, metre)


def held_out(words: str) -> bool:
    return hashlib.sha256(words.encode()).digest()[0] < HELD_OUT


def notes(tonic: int, shape: str, way: str, rhythm: str, metre: str) -> Tune:
    """A note that does not fit its bar any more begins the next one; what is left of a bar are rests."""
    bars: list[list[tuple[int, int]]] = [[]]
    left, length = METRES[metre], RHYTHMS[rhythm]
    for step in SHAPES[shape][:: WAYS[way]]:
        if length > left:
            bars[-1] += rests(left)
            bars.append([])
            left = METRES[metre]
        bars[-1].append((tonic + step, length))
        left -= length
    bars[-1] += rests(left)
    return Tune(metre, tuple(map(tuple, bars)))
