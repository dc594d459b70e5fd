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
from mio.plugins.digits import drawings, scans, sounds, voices
from mio.plugins.digits.drawings import Look
from mio.plugins.digits.voices import DIGITS, Clip

PICTURES = {"train": 16, "test": 1}
"""Variants of each scan, the scan itself included."""
DRAWINGS = {"train": 4, "test": 1}
"""Variants of each scan that are drawn."""
CLIPS = {"train": 4, "test": 1}
"""Variants of each clip, the clip itself included."""
NOBODY = {"train": 6, "test": 1}
"""Voices made of each take, its own included."""
GAP = 0.06
"""Seconds of silence between the words of a phrase."""

OWN_VOICE = ("en-us+f2", 0)
"""In which the model speaks where it has a voice of its own."""

Speaker = tuple[str, int]
"""A voice and which of its takes."""


@cache
def _varied(clip: Clip, variant: int) -> npt.NDArray[np.float32]:
    return voices.vary(clip, variant) if variant else clip.samples


@cache
def _in_another_voice(clip: Clip, variant: int) -> npt.NDArray[np.float32]:
    return voices.in_another_voice(clip, variant) if variant else clip.samples


class World:
    """Media of one split, `train` or `test`; variants of scans have `noise` (see `scans.vary`). Raises `DataError` for
    another split."""

    def __init__(self, split: str, noise: float = scans.NOISE) -> None:
        self.split, self.noise = split, noise
        self._scans = scans.by_digit(split)

    @property
    def _clips(self) -> dict[tuple[str, int, str], Clip]:
        return _clips(self.split)

    def picture(self, draw: Random, digit: int) -> Media:
        """A picture of a digit."""
        index, variant = draw.choice(self._scans[digit]), draw.randrange(PICTURES[self.split])
        own = f"/noise{float(self.noise)!r}" if variant and self.noise != scans.NOISE else ""
        pixels = scans.vary(index, variant, self.noise)
        return Media("image", pixels, f"digit/{index}/v{variant}{own}", DIGITS[digit])

    def drawing(self, draw: Random, digit: int, look: Look) -> Media:
        """A drawing of a digit in a look."""
        return self._drawn(draw, digit, look)[0]

    def mapped(self, draw: Random, digit: int, look: Look) -> tuple[Media, Media]:
        """The segmentation map of a drawing, and the drawing."""
        image, index, variant = self._drawn(draw, digit, look)
        pixels = drawings.segmentation_map(index, variant, look)
        return Media("image", pixels, image.key.replace("drawing/", "map/", 1), image.label), image

    def _drawn(self, draw: Random, digit: int, look: Look) -> tuple[Media, int, int]:
        index, variant = draw.choice(self._scans[digit]), draw.randrange(DRAWINGS[self.split])
        pixels = drawings.drawing(index, variant, look)
        return Media("image", pixels, f"drawing/{index}/v{variant}/{look.key}", DIGITS[digit]), index, variant

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

    def alike(self, draw: Random, words: Sequence[str]) -> tuple[Speaker, list[Media]]:
        """Words spoken one by one in one voice: a speaker's, or in training one that is made of it."""
        voice, take = speaker = self.speaker(draw)
        variant = draw.randrange(NOBODY[self.split])
        clips, made = [self._clips[voice, take, word] for word in words], f"alike{variant}" if variant else "v0"
        return speaker, [
            Media("speech", (_in_another_voice(clip, variant), clip.rate), f"spoken/{clip.key}/{made}", clip.word)
            for clip in clips
        ]

    def phrase(self, speaker: Speaker, words: Sequence[str]) -> Media:
        """Several words in one voice, joined with short silences. A `talker` says those of questions too."""
        said = _vocabulary(self.split)
        clips = [said[(*speaker, word)] for word in words]
        rate = clips[0].rate
        silence = np.zeros(round(GAP * rate), np.float32)
        pieces = [piece for clip in clips for piece in (silence, clip.samples)][1:]
        key = f"spoken/{speaker[0]}/{speaker[1]}/{'-'.join(words)}"
        return Media("speech", (np.concatenate(pieces), rate), key, " ".join(words))

    def talker(self, draw: Random) -> Speaker:
        """One of the split's voices, in a take that says the words of questions too."""
        return draw.choice(_talkers(self.split))

    def utterance(self, draw: Random, words: Sequence[str], talker: Speaker | None = None) -> Media:
        """Talk of several words in one voice, with pauses of its own between and around them, in a room that is never
        quite silent. In training the voice varies too. A function of its key: voice, take, words and a seed."""
        voice, take = talker or self.talker(draw)
        said, seed = _vocabulary(self.split), draw.getrandbits(32)
        own = Random(seed)
        pieces = [_silence(own.uniform(0.03, 0.2))]
        for word in words:
            pieces += [said[voice, take, word].samples, _silence(own.uniform(0.03, 0.12))]
        pieces.append(_silence(own.uniform(0.0, 0.2)))
        clip = Clip("-".join(words), voice, take, np.concatenate(pieces), sounds.RATE)
        samples = voices.vary(clip, seed) if self.split == "train" else voices.in_room(clip.samples, seed)
        return Media("speech", (_gated(own, samples), clip.rate), f"talk/{clip.key}/{seed}", " ".join(words))

    def own_voice(self, draw: Random, word: str) -> Media:
        """A digit in the one voice that answers aloud: a training voice in both splits, the model's own."""
        clip, variant = _clips("train")[(*OWN_VOICE, word)], draw.randrange(CLIPS["train"])
        return Media("speech", (_varied(clip, variant), clip.rate), f"spoken/{clip.key}/v{variant}", clip.word)

    def together(self, draw: Random, first: Sequence[str], second: Sequence[str]) -> Media:
        """Two people who talk at once: either may be up to 4 dB louder, and at least half of the shorter talk lies
        within the longer."""
        one, other = self.talker(draw), self.talker(draw)
        while other[0] == one[0]:
            other = self.talker(draw)
        talk = [self.utterance(draw, words, who) for words, who in ((first, one), (second, other))]
        long, short = sorted(talk, key=lambda item: -len(item.data[0]))
        seed = draw.getrandbits(32)
        own = Random(seed)
        loudness = 10 ** (own.uniform(-4, 4) / 40)
        under, over = long.data[0] * loudness, short.data[0] / loudness
        start = own.randrange(len(under) - len(over) // 2)
        mixed = np.zeros(max(len(under), start + len(over)), np.float32)
        mixed[: len(under)] += under
        mixed[start : start + len(over)] += over
        mixed *= 0.9 / max(float(np.abs(mixed).max()), 0.9)
        return Media("speech", (mixed, sounds.RATE), f"together/{long.key}/{short.key}/{seed}", "two voices")

    def sound(self, draw: Random, kind: str, count: int = 0) -> Media:
        """`noise`, `tones` like music, or `count` `beeps`."""
        seed = draw.getrandbits(32)
        make = {"noise": sounds.noise, "tones": sounds.tune}
        samples = sounds.beeps(seed, count) if count else make[kind](seed)
        return Media("speech", (_gated(Random(seed), samples), sounds.RATE), f"{kind}{count or ''}/{seed}", kind)


def _silence(seconds: float) -> npt.NDArray[np.float32]:
    return np.zeros(round(seconds * sounds.RATE), np.float32)


def _gated(draw: Random, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Most recordings as they are; one of six with up to 0.2 s of digital silence before and behind, as gates and fixed
    lengths leave it."""
    if draw.random() < 5 / 6:
        return samples
    return np.concatenate([_silence(draw.uniform(0, 0.2)), samples, _silence(draw.uniform(0, 0.2))])


@cache
def _vocabulary(split: str) -> dict[tuple[str, int, str], Clip]:
    """Everything that talkers can say, by voice, take and word."""
    return _clips(split) | {(clip.voice, clip.take, clip.word): clip for clip in voices.question_clips(split)}


@cache
def _talkers(split: str) -> tuple[Speaker, ...]:
    return tuple(dict.fromkeys((clip.voice, clip.take) for clip in voices.question_clips(split)))


@cache
def _clips(split: str) -> dict[tuple[str, int, str], Clip]:
    return {(clip.voice, clip.take, clip.word): clip for clip in voices.clips(split)}


@cache
def _speakers(split: str) -> tuple[Speaker, ...]:
    return tuple(dict.fromkeys((clip.voice, clip.take) for clip in voices.clips(split)))
