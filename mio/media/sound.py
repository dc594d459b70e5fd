"""Sound files as samples. Their length is what was decoded, or what their bytes prove, never what a header alone says.

Shapes: T samples, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mio.core.contract.values import File
from mio.core.errors import DataError
from mio.core.files import regular_file
from mio.media.containers import ffmpeg_reason, opened
from mio.media.sound_streams import Floats, streams

LOUDEST = 100.0
"""Largest sample that still counts as scaled to [-1, 1]: decoders overshoot, but none by 40 dB."""


@dataclass(frozen=True)
class Sound:
    """What was read of a sound file."""

    samples: Floats
    """`[T]` of one channel, `[T, C]` of more, in [-1, 1] but for what decoders overshoot."""
    rate: int
    """Hertz."""
    more: bool
    """Whether the file goes on. If not, it was decoded to its end, and its header was right."""
    seconds: float | None
    """Duration of the file, if known without decoding more of it."""


@dataclass(frozen=True)
class SoundLength:
    """What `read_sound` would give, but for the samples."""

    samples: int
    rate: int
    more: bool
    seconds: float | None


def read_sound(path: File, seconds: float) -> Sound:
    """The first `seconds` of a sound file, or of the sound of a video.

    Raises `DataError` for a file that is damaged, cut off, empty, not sound, or has more than 8 channels. The part of a
    file behind `seconds` is not decoded; only its header is checked.
    """
    kept: list[Floats] = []
    decoded = _decode(path, seconds, kept.append)
    samples = np.concatenate(kept)[: decoded.longest]
    if not np.isfinite(samples).all():
        raise DataError(f"{path}: damaged sound file: holds samples that are not numbers")
    if (loudest := float(np.abs(samples).max())) > LOUDEST:
        raise DataError(f"{path}: {too_loud(loudest)}")
    length = decoded.measured
    return Sound(samples[:, 0] if samples.shape[1] == 1 else samples, length.rate, length.more, length.seconds)


def sound_length(path: File, seconds: float) -> SoundLength:
    """How many samples `read_sound` would give of a file, from its header where that is exact: of uncompressed sound,
    whose bytes are all there, and of FLAC whose last frame says the same. Others are decoded and counted.

    Raises `DataError` for what makes the length unknown: `read_sound` may find more damage. The lengths of some
    thousand files are remembered.
    """
    return _counted(path, seconds).measured


def too_loud(loudest: float) -> str:
    """The problem of samples that are not fractions of full scale."""
    return f"holds samples of {loudest:g}, which are not of the range from -1 to 1; scale them, or store integers"


def sound_seconds(path: File, most: float) -> float:
    """Seconds of sound in a file, as `sound_length` finds them; of one with more than `most`, some number above it.

    Raises `DataError` as `sound_length` does.
    """
    decoded = _counted(path, most)
    return (decoded.length or decoded.decoded) / decoded.rate


def _counted(path: File, most: float) -> _Decoded:
    if not isinstance(path, Path):
        return _decode(path, most, None)
    status = regular_file(path)
    return _counted_file(path, status.st_size, status.st_mtime_ns, most)


@lru_cache(maxsize=4096)
def _counted_file(path: Path, size: int, changed: int, most: float) -> _Decoded:  # noqa: ARG001
    return _decode(path, most, None)


@dataclass(frozen=True)
class _Decoded:
    rate: int
    decoded: int
    """Samples."""
    longest: int
    """Samples that were asked for; of a longer file, at least one more is decoded."""
    length: int | None
    """Samples of the file, if known without decoding."""

    @property
    def measured(self) -> SoundLength:
        more = self.decoded > self.longest
        length = self.length if more else self.decoded
        return SoundLength(min(self.decoded, self.longest), self.rate, more, length and length / self.rate)


def _decode(path: File, seconds: float, take: Callable[[Floats], Any] | None) -> _Decoded:
    """Decodes until there is more than `seconds`, and passes blocks to `take`; without `take`, only counts."""
    decoded, length = 0, None
    with opened(path) as (file, size):
        try:
            for stream in streams(path, file, size, seconds, count=take is None):
                longest = math.ceil(min(seconds * stream.rate, 2**62))
                length = stream.length
                if length and take is None and (stream.exact or length > longest):
                    decoded = length
                    break
                for block in stream.blocks:
                    if take:
                        take(block)
                    decoded += len(block)
                    if decoded > longest:
                        break
                if decoded > longest:
                    break
        except ValueError as error:
            raise DataError(f"{path}: damaged sound file: {error}") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {ffmpeg_reason(error)}") from None
    if not decoded:
        raise DataError(f"{path}: holds no samples")
    return _Decoded(stream.rate, decoded, longest, length)
