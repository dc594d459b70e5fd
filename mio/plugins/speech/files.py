"""Sound files as samples, samples as WAV files, and a filter of records by duration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mio import Codes, DataError, Media, Record, number, read_options
from mio.plugins.speech.options import FRAME_RATE

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")

MAX_CHANNELS = 8
"""Most channels that are decoded: with the duration it bounds the memory that a file may ask for."""


MAX_RATE = 768_000
"""Most samples per second that are decoded, for the same reason."""


def duration(path: Path) -> float:
    """Seconds by the file's header. Raises `DataError`."""
    with _opened(path) as file:
        return float(file.frames / file.samplerate)


def read(path: Path, max_seconds: float = 15.0, truncate: bool = False) -> tuple[npt.NDArray[np.float32], int]:
    """Samples float32 `[T]` (mono) or `[T, C]` in [-1, 1], and the rate in hertz.

    Raises `DataError` for a file that is damaged, empty, no sound, has more than 8 channels, or lasts longer than
    `max_seconds`, which the header tells before anything is decoded. With `truncate` no more than that is read.
    """
    import soundfile

    with _opened(path) as file:
        if file.channels > MAX_CHANNELS:
            raise DataError(f"{path}: {file.channels} channels are too many (at most {MAX_CHANNELS})")
        if file.samplerate > MAX_RATE:
            raise DataError(f"{path}: {file.samplerate} samples per second are too many (at most {MAX_RATE})")
        longest = math.ceil(max_seconds * file.samplerate)
        if file.frames > longest and not truncate:
            raise DataError(
                f"{path}: lasts {file.frames / file.samplerate:.2f} s, longer than {max_seconds:g} s; "
                "raise `max_seconds` of the plugin, set `too_long: truncate`, or filter such records with `max_seconds`"
            )
        try:
            samples = file.read(longest, dtype="float32")
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise DataError(f"{path}: damaged sound file: {error}") from error
        # some decoders give what they could and report nothing
        due = min(longest, file.frames)
        if len(samples) < due:
            raise DataError(f"{path}: damaged sound file: {len(samples)} of {due} samples could be read")
        if not len(samples):
            raise DataError(f"{path}: holds no samples")
        if not np.isfinite(samples).all():
            raise DataError(f"{path}: damaged sound file: holds samples that are no numbers")
        return samples, file.samplerate


def write(samples: npt.NDArray[np.float32], rate: int, stem: Path) -> Path:
    """Writes `[T]` in [-1, 1] to `stem` plus `.wav` as 16-bit PCM; returns the path."""
    import soundfile

    path = stem.with_name(stem.name + ".wav")
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def _opened(path: Path) -> Any:
    import soundfile

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if not path.stat().st_size:
        raise DataError(f"{path}: not a sound file that can be read: the file is empty")
    try:
        return soundfile.SoundFile(path)
    # a suffix that soundfile takes for headerless samples is a TypeError
    except (soundfile.SoundFileError, TypeError) as error:
        reason = str(getattr(error, "error_string", error)).strip()
        raise DataError(f"{path}: not a sound file that can be read: {reason}") from error


def _seconds(value: Any) -> Iterator[float]:
    """Duration of each speech item inside a record's field."""
    if isinstance(value, Codes) and value.modality == "speech":
        yield value.codes.shape[1] / FRAME_RATE
    elif isinstance(value, Media):
        if value.modality == "speech":
            if isinstance(value.data, Path):
                yield duration(value.data)
            else:
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
    """Options of the filter `max_seconds`."""

    seconds: float = number(15.0, 0, 1e9)


def max_seconds(record: Record, options: Mapping[str, Any], default: float = 15.0) -> str:
    """Drops records with speech longer than `seconds` (default: the plugin's `max_seconds`)."""
    longest = read_options(MaxSecondsOptions, {"seconds": default, **options}, "filter `max_seconds`").seconds
    return f"speech longer than {longest:g} s" if any(length > longest for length in _seconds(record)) else ""
