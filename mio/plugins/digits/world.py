"""Draws the media of records: a picture of a digit, a spoken word, a spoken phrase, a video of counting.

Each drawing takes a `random.Random`, so that a record is a function of its number. Training media come in a bounded
number of variants, named in their keys, so that their codes are computed once; held-out media are the originals.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random

import numpy as np
import numpy.typing as npt

from mio import Media
from mio.plugins.digits import scans, voices
from mio.plugins.digits.voices import DIGITS, Clip

PICTURES = {"train": 16, "test": 1}
"""Variants of each scan, the scan itself included."""
CLIPS = {"train": 4, "test": 1}
"""Variants of each clip, the clip itself included."""
GAP = 0.06
"""Seconds of silence between the words of a phrase."""

Speaker = tuple[str, int]
"""A voice and which of its takes."""


@cache
def _varied(clip: Clip, variant: int) -> npt.NDArray[np.float32]:
    return voices.vary(clip, variant) if variant else clip.samples


class World:
    """Media of one split, `train` or `test`. Raises `DataError` for another."""

    def __init__(self, split: str) -> None:
        self.split = split
        self._scans = scans.by_digit(split)

    @property
    def _clips(self) -> dict[tuple[str, int, str], Clip]:
        return _clips(self.split)

    def picture(self, draw: Random, digit: int) -> Media:
        """A picture of a digit."""
        index, variant = draw.choice(self._scans[digit]), draw.randrange(PICTURES[self.split])
        return Media("image", scans.vary(index, variant), f"digit/{index}/v{variant}", DIGITS[digit])

    def video(self, draw: Random, digits: Sequence[int]) -> Media:
        """A video whose frames show the digits in turn."""
        frames = [self.picture(draw, digit) for digit in digits]
        key = "+".join(frame.key.removeprefix("digit/") for frame in frames)
        return Media("video", [frame.data for frame in frames], f"video/{key}", " ".join(DIGITS[d] for d in digits))

    def speaker(self, draw: Random) -> Speaker:
        """One of the split's voices."""
        return draw.choice(_speakers(self.split))

    def word(self, draw: Random, digit: int, speaker: Speaker | None = None) -> Media:
        """A digit spoken, by anyone or by the given speaker."""
        voice, take = speaker or self.speaker(draw)
        clip, variant = self._clips[voice, take, DIGITS[digit]], draw.randrange(CLIPS[self.split])
        return Media("speech", (_varied(clip, variant), clip.rate), f"spoken/{clip.key}/v{variant}", clip.word)

    def phrase(self, speaker: Speaker, words: Sequence[str]) -> Media:
        """Several words in one voice, joined with short silences."""
        clips = [self._clips[(*speaker, word)] for word in words]
        rate = clips[0].rate
        silence = np.zeros(round(GAP * rate), np.float32)
        pieces = [piece for clip in clips for piece in (silence, clip.samples)][1:]
        key = f"spoken/{speaker[0]}/{speaker[1]}/{'-'.join(words)}"
        return Media("speech", (np.concatenate(pieces), rate), key, " ".join(words))


@cache
def _clips(split: str) -> dict[tuple[str, int, str], Clip]:
    return {(clip.voice, clip.take, clip.word): clip for clip in voices.clips(split)}


@cache
def _speakers(split: str) -> tuple[Speaker, ...]:
    return tuple(dict.fromkeys((clip.voice, clip.take) for clip in voices.clips(split)))
