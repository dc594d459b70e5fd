"""The spoken clips of the digits world: `zero` to `nine` and `plus` in synthetic voices, and variations of them."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mio import DataError

FOLDER = Path(__file__).with_name("clips")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Words of the digits; a word's place is its digit. The clips say `plus` too."""


@dataclass(frozen=True, eq=False)
class Clip:
    """One spoken word."""

    word: str
    voice: str
    """Name of the synthesiser's voice; a voice belongs to one split alone."""
    take: int
    """Rendition by the same voice, at another speed and pitch."""
    samples: npt.NDArray[np.float32]
    """Mono `[T]` in [-1, 1], read-only."""
    rate: int = 8000
    """Samples per second."""

    @property
    def key(self) -> str:
        """Name of the clip, unique over both splits."""
        return f"{self.voice}/{self.take}/{self.word}"


@cache
def clips(split: str) -> tuple[Clip, ...]:
    """All clips of `train` (36 voices, 3 takes) or `test` (6 other voices, 4 takes), by voice, take and word.

    Read once per process. Raises `DataError` for another split or an incomplete installation.
    """
    import soundfile

    check_split(split)
    try:
        index = json.loads((FOLDER / "index.json").read_text())
        all_clips = []
        for voice in index["voices"]:
            if voice["split"] != split:
                continue
            samples, rate = soundfile.read(FOLDER / voice["file"], dtype="float32")
            samples.flags.writeable = False
            for word, take, start, length in voice["clips"]:
                all_clips.append(Clip(word, voice["name"], take, samples[start : start + length], rate))
    except (OSError, soundfile.SoundFileError) as error:
        raise DataError(f"cannot read the spoken digits in {FOLDER}: {error}; install mio again") from error
    return tuple(all_clips)


@cache
def question_clips(split: str) -> tuple[Clip, ...]:
    """The further words of questions (`which number`, `how many`, ...) of a split, by voice, take and word; fewer takes
    than digits have, at their speed and pitch.

    Read once per process. Raises `DataError` for another split or an incomplete installation.
    """
    import soundfile

    check_split(split)
    try:
        index = [
            entry for entry in json.loads((FOLDER / "words.json").read_text())["clips"] if entry[0].startswith(split)
        ]
        files = {file: soundfile.read(FOLDER / file, dtype="float32") for file in dict.fromkeys(e[0] for e in index)}
    except (OSError, soundfile.SoundFileError) as error:
        raise DataError(f"cannot read the spoken words in {FOLDER}: {error}; install mio again") from error
    for samples, _ in files.values():
        samples.flags.writeable = False
    return tuple(
        Clip(word, voice, take, files[file][0][start : start + length], files[file][1])
        for file, voice, word, take, start, length in index
    )


def check_split(split: str) -> None:
    """Raises `DataError` for another split than `train` and `test`."""
    if split not in ("train", "test"):
        raise DataError(f"the spoken digits have the splits `train` and `test`, not `{split}`")


def vary(clip: Clip, seed: int) -> npt.NDArray[np.float32]:
    """Another rendition of `clip`, a function of clip and seed: float32 `[T']` in [-1, 1] at the clip's rate.

    Time runs up to 10 % faster or slower (pitch with it) and up to 10 % unevenly within the word; the spectrum tilts a
    little; level and background noise (30 to 50 dB below the peak) change.
    """
    from scipy.ndimage import map_coordinates

    draw = np.random.default_rng((seed, zlib.crc32(clip.key.encode())))
    length = round(len(clip.samples) / draw.uniform(0.9, 1.1))
    time = np.linspace(0, 1, length)
    # the derivative, 1 + bend * cos, stays positive: time never runs backwards
    time += draw.uniform(-0.1, 0.1) / (2 * np.pi) * np.sin(2 * np.pi * time)
    samples = map_coordinates(
        clip.samples.astype(np.float64), [time * (len(clip.samples) - 1)], order=3, mode="nearest"
    )
    samples = np.convolve([1.0, draw.uniform(-0.3, 0.3)], samples)[:length]
    samples *= draw.uniform(0.4, 0.9) / max(np.abs(samples).max(), 1e-9)
    samples += draw.normal(0, 10 ** (-draw.uniform(30, 50) / 20) * np.abs(samples).max(), length)
    return np.asarray(np.clip(samples, -1, 1), np.float32)


def in_another_voice(clip: Clip, variant: int) -> npt.NDArray[np.float32]:
    """What `clip` says in a voice that is nobody's: float32 `[T']` in [-1, 1] at the clip's rate.

    The vocal tract is up to 12 % longer or shorter (the pitch goes with it, and the speed), and the long-term spectrum
    has up to three hills and valleys of up to 2.5 decibels. A function of the clip's voice and take and of `variant`:
    all words of a take stay in one voice.
    """
    from scipy.signal import resample

    draw = np.random.default_rng((variant, zlib.crc32(f"{clip.voice}/{clip.take}".encode())))
    length = round(len(clip.samples) * np.exp(draw.uniform(-0.12, 0.12)))
    spectrum = np.fft.rfft(resample(clip.samples, length))
    octaves = np.log2(np.maximum(np.linspace(0, clip.rate / 2, len(spectrum)), 60) / 60)
    waves = np.sin(np.outer(draw.uniform(0.5, 2.5, 3), octaves) + draw.uniform(0, 2 * np.pi, (3, 1)))
    decibels = draw.uniform(0, 2.5, 3) @ waves
    samples = np.fft.irfft(spectrum * 10 ** (decibels / 20), length)
    return np.asarray(samples * (np.abs(clip.samples).max() / max(np.abs(samples).max(), 1e-9)), np.float32)


def in_room(samples: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float32]:
    """The samples as they are, with background noise 30 to 50 dB below their peak, a function of the seed."""
    draw = np.random.default_rng(seed)
    noise = draw.normal(0, 10 ** (-draw.uniform(30, 50) / 20) * np.abs(samples).max(), len(samples))
    return np.asarray(np.clip(samples + noise, -1, 1), np.float32)
