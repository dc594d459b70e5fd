"""Sound as the tokenizer of a modality needs it: mono, at its rate, within its longest duration.

Shapes: T samples, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mio.core.contract.checker import read_options
from mio.core.contract.ranges import number
from mio.core.contract.values import Codes, File, Record
from mio.core.errors import DataError
from mio.media import contents
from mio.media.sound import (
    LOUDEST,
    Sound,
    SoundLength,
    read_sound,
    sound_length,
    sound_seconds,
    too_loud,
)
from mio.media.sound_streams import MAX_RATE, Floats

_LEAST_RATE = 1000


@dataclass(frozen=True, kw_only=True)
class FilterOptions:
    """Options of the filter of records."""

    seconds: float = number(15.0, 0, 86_400, above=True)


@dataclass(frozen=True, kw_only=True)
class SoundRules:
    """What one modality of sound takes. Its media are pairs of samples (`[T]` or `[T, C]`, floats in [-1, 1] or signed
    integers) and rate in hertz."""

    name: str
    """Of the modality, for messages too."""
    frame_rate: int
    """Frames per second of its tokenizers."""
    max_seconds: float
    truncate: bool
    """Whether longer items are cut; otherwise they are an error."""
    filter_name: str
    """Name of `filter` in recipes."""

    @property
    def most_frames(self) -> int:
        """Frames that an item may have."""
        # the tiny addition keeps 0.58 s, in binary a little less, at 29 frames
        return int(self.frame_rate * self.max_seconds + 1e-6)

    def read(self, path: File) -> tuple[Floats, int]:
        """Samples float32 `[T]` or `[T, C]` of a file, up to the longest duration, and the rate in hertz.

        Raises `DataError` as `read_sound` does, and for a file that is too long and must not be cut.
        """
        sound = read_sound(path, self.max_seconds)
        self._refuse_longer(path, sound)
        return sound.samples, sound.rate

    def probe(self, path: File) -> tuple[Floats, int]:
        """As `read`, from the file's header where that is exact (see `sound_length`): of the samples only their number
        is right, and they take no memory. For `DataModule.probe`."""
        length = sound_length(path, self.max_seconds)
        self._refuse_longer(path, length)
        return np.broadcast_to(np.float32(0), (length.samples,)), length.rate

    def _refuse_longer(self, path: File, sound: Sound | SoundLength) -> None:
        if sound.more and not self.truncate:
            lasts = "" if sound.seconds is None else f"{sound.seconds:.2f} s, "
            raise DataError(f"{path}: lasts {lasts}longer than {self.max_seconds:g} s; {self._advice}")

    def frames(self, media: Any, target: int) -> int:
        """Started frames of an item once it is resampled to `target` hertz. Raises `DataError` as `mono` does."""
        samples, rate = self._fitted(media, target)
        return self._frame_count(len(samples), rate, target)

    def resampled_length(self, media: Any, target: int) -> int:
        """Samples that `mono` gives of an item, without resampling it. Raises `DataError` as `mono` does."""
        samples, rate = self._fitted(media, target)
        return -(-len(samples) * target // rate)

    def mono(self, media: Any, target: int) -> Floats:
        """Samples float32 `[T]` at `target` hertz: cut if the rules say so, channels averaged, integers scaled to
        [-1, 1], resampled without a shift.

        Raises `DataError` for anything but sound, for items that are too long, and for samples that are not finite or
        out of scale.
        """
        samples, rate = self._fitted(media, target)
        if samples.dtype.kind == "i":
            samples = samples / -float(np.iinfo(samples.dtype).min)
        if not np.isfinite(samples).all():
            raise DataError(f"{self.name} holds samples that are not finite")
        if (loudest := float(np.abs(samples).max())) > LOUDEST:
            raise DataError(f"{self.name} {too_loud(loudest)}")
        samples = samples.astype(np.float32)
        if samples.ndim == 2:
            samples = samples.mean(axis=1)
        if rate != target:
            from scipy.signal import resample_poly

            common = gcd(rate, target)
            samples = resample_poly(samples, target // common, rate // common)
        return np.asarray(samples, np.float32)

    def write(self, media: tuple[Floats, int], stem: Path) -> Path:
        """Writes samples `[T]` in [-1, 1] to `stem` plus `.wav` as 16-bit PCM; returns the path."""
        import soundfile

        path = stem.with_name(stem.name + ".wav")
        soundfile.write(path, *media, subtype="PCM_16")
        return path

    def checked_codes(self, codes: Any, codebooks: int, size: int) -> npt.NDArray[np.int64]:
        """Codes int64 `[q, F]` of the first q codebooks of `size` codes. Raises `DataError` for more than `codebooks`,
        for no frames, and for codes outside their codebook."""
        codes = np.asarray(codes)
        if codes.ndim != 2 or not 1 <= codes.shape[0] <= codebooks or not codes.shape[1]:
            raise DataError(f"{self.name} has codes [1..{codebooks}, frames], these are {list(codes.shape)}")
        if codes.min() < 0 or codes.max() >= size:
            raise DataError(f"{self.name} codes must lie in 0..{size - 1}, these reach {codes.min()}..{codes.max()}")
        return np.asarray(codes, np.int64)

    def filter(self, record: Record, options: Mapping[str, Any]) -> str:
        """Drops records with an item whose decoded duration exceeds `seconds` (default `max_seconds`)."""
        chosen = {"seconds": self.max_seconds, **options}
        longest = read_options(FilterOptions, chosen, f"filter `{self.filter_name}`").seconds
        if any(seconds > longest for seconds in self._seconds(record, longest)):
            return f"{self.name} longer than {longest:g} s"
        return ""

    def _seconds(self, record: Record, longest: float) -> Iterator[float]:
        """Duration of each item of a record; of a file with more than `longest`, some number above it."""
        for item in contents(record):
            if item.modality != self.name:
                continue
            if isinstance(item, Codes):
                yield item.codes.shape[1] / self.frame_rate
            elif isinstance(item.data, File):
                yield sound_seconds(item.data, longest)
            else:
                samples, rate = self._checked(item.data)
                yield len(samples) / rate

    @property
    def _advice(self) -> str:
        return (
            f"raise `max_seconds` of the plugin, set `too_long: truncate`, or filter such records with "
            f"`{self.filter_name}`"
        )

    def _checked(self, media: Any) -> tuple[npt.NDArray[Any], int]:
        if not isinstance(media, (tuple, list)) or len(media) != 2:
            raise DataError(f"{self.name} must be a pair of samples and rate")
        samples, rate = np.asarray(media[0]), media[1]
        if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi" or not samples.size:
            raise DataError(
                f"{self.name} must be float or integer samples [T] or [T, C], not {samples.dtype} {samples.shape}"
            )
        if not isinstance(rate, int | float | np.number) or not _LEAST_RATE <= rate <= MAX_RATE or int(rate) != rate:
            raise DataError(f"the rate of {self.name} must be {_LEAST_RATE} to {MAX_RATE} samples a second, not {rate}")
        return samples, int(rate)

    def _fitted(self, media: Any, target: int) -> tuple[npt.NDArray[Any], int]:
        samples, rate = self._checked(media)
        if self._frame_count(len(samples), rate, target) > self.most_frames:
            if not self.truncate:
                raise DataError(
                    f"{self.name} of {len(samples) / rate:.2f} s is longer than {self.max_seconds:g} s; {self._advice}"
                )
            samples = samples[: self.most_frames * rate // self.frame_rate]
        return samples, rate

    def _frame_count(self, length: int, rate: int, target: int) -> int:
        resampled = -(-length * target // rate)
        return -(-resampled * self.frame_rate // target)
