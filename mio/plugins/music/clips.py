"""Music clips: from files, cut to the length that is allowed, mono at the codec's rate; and a filter by duration.

Shapes: T samples, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, gcd
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mio import Codes, DataError, Media, Record, number, read_options
from mio.plugins.music import FRAME_RATE, MusicOptions

Floats = npt.NDArray[np.float32]

RATE = 32_000
"""Samples per second of the codec."""
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
MAX_CHANNELS = 8
"""Most channels that are decoded: with the duration it bounds the memory that a file may ask for."""
TOO_LONG = (
    "raise `max_seconds` of the plugin, set `too_long: truncate`, or filter such records with `music_max_seconds`"
)


def read(path: Path, options: MusicOptions) -> tuple[Floats, int]:
    """Samples float32 `[T]` (mono) or `[T, C]` in [-1, 1], no more of them than are used, and the rate in hertz.

    Raises `DataError` for a file that is damaged, empty, no sound, has more than 8 channels, or, unless it is to be
    cut, lasts longer than `max_seconds`; the header tells before anything is decoded.
    """
    import soundfile

    with _opened(path) as file:
        if file.channels > MAX_CHANNELS:
            raise DataError(f"{path}: {file.channels} channels are too many (at most {MAX_CHANNELS})")
        longest = ceil(options.max_seconds * file.samplerate)
        if file.frames > longest and options.too_long == "error":
            seconds = file.frames / file.samplerate
            raise DataError(f"{path}: lasts {seconds:.2f} s, longer than {options.max_seconds:g} s; {TOO_LONG}")
        due = min(longest, file.frames)
        try:
            samples = file.read(due, dtype="float32")
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise DataError(f"{path}: damaged sound file: {error}") from error
        # some decoders give what they could and report nothing
        if len(samples) < due:
            raise DataError(f"{path}: damaged sound file: {len(samples)} of {due} samples could be read")
        if not due:
            raise DataError(f"{path}: holds no samples")
        return samples, file.samplerate


def _opened(path: Path) -> Any:
    import soundfile

    try:
        return soundfile.SoundFile(path)
    # a suffix that soundfile takes for headerless samples is a TypeError
    except (soundfile.SoundFileError, TypeError) as error:
        reason = "no such file" if not path.is_file() else str(getattr(error, "error_string", error)).strip()
        raise DataError(f"{path}: not a sound file that can be read: {reason}") from error


def fitted(media: Any, options: MusicOptions) -> tuple[npt.NDArray[Any], int]:
    """`media` as samples `[T]` or `[T, C]` and rate, cut to `max_seconds` where the options say so.

    Raises `DataError` for anything else, for no samples, or for more of them than may be.
    """
    if not isinstance(media, (tuple, list)) or len(media) != 2:
        raise DataError("music must be a pair of samples and rate")
    samples, rate = np.asarray(media[0]), media[1]
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi" or not samples.size:
        raise DataError(f"music must be float or integer samples [T] or [T, C], not {samples.dtype} {samples.shape}")
    if int(rate) != rate or not 1000 <= rate <= 768_000:
        raise DataError(f"the rate of music must be 1000 to 768000 samples a second, not {rate}")
    rate = int(rate)
    if frame_count(len(samples), rate) > options.frames.maximum:
        if options.too_long == "error":
            seconds = len(samples) / rate
            raise DataError(f"music of {seconds:.2f} s is longer than {options.max_seconds:g} s; {TOO_LONG}")
        samples = samples[: options.frames.maximum * rate // FRAME_RATE]
    return samples, rate


def frame_count(length: int, rate: int) -> int:
    """Started frames of `length` samples once they are resampled."""
    resampled = -(-length * RATE // rate)
    return -(-resampled * FRAME_RATE // RATE)


def mono(samples: npt.NDArray[Any], rate: int) -> Floats:
    """Samples float32 `[T]` at 32 kHz: channels averaged, integers scaled to [-1, 1], resampled.

    Raises `DataError` for samples that are no finite numbers.
    """
    if samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    samples = samples.astype(np.float32)
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if not np.isfinite(samples).all():
        raise DataError("music holds samples that are no finite numbers")
    if rate != RATE:
        from scipy.signal import resample_poly

        common = gcd(rate, RATE)
        samples = resample_poly(samples, RATE // common, rate // common)
    return np.asarray(samples, np.float32)


def write(samples: Floats, rate: int, stem: Path) -> Path:
    """Writes `[T]` in [-1, 1] to `stem` plus `.wav` as 16-bit PCM; returns the path."""
    import soundfile

    path = stem.with_name(stem.name + ".wav")
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def _seconds(value: Any) -> Iterator[float]:
    """Duration of each clip inside a record's field."""
    if isinstance(value, Codes) and value.modality == "music":
        yield value.codes.shape[1] / FRAME_RATE
    elif isinstance(value, Media):
        if value.modality == "music" and isinstance(value.data, Path):
            with _opened(value.data) as file:
                yield file.frames / file.samplerate
        elif value.modality == "music":
            samples, rate = value.data
            yield len(samples) / rate
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _seconds(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _seconds(inner)


@dataclass(frozen=True)
class MaxSecondsOptions:
    """Options of the filter `music_max_seconds`."""

    seconds: float = number(5.0, 0, 1e9)


def max_seconds(record: Record, options: Mapping[str, Any], default: float) -> str:
    """Drops records with a clip longer than `seconds` (default: the plugin's `max_seconds`)."""
    given = {"seconds": default, **options}
    longest = read_options(MaxSecondsOptions, given, "filter `music_max_seconds`").seconds
    return f"music longer than {longest:g} s" if any(length > longest for length in _seconds(record)) else ""
