"""Speech as tokenizers need it: mono, at their rate, no longer than allowed; NumPy and SciPy alone.

Shapes: T samples, C channels.
"""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
import numpy.typing as npt

from mio import DataError
from mio.plugins.speech.options import FRAME_RATE, SpeechOptions

Floats = npt.NDArray[np.float32]


def checked(media: Any) -> tuple[npt.NDArray[Any], int]:
    """`media` as samples `[T]` or `[T, C]` and rate. Raises `DataError` for anything else, or for no samples."""
    if not isinstance(media, (tuple, list)) or len(media) != 2:
        raise DataError("speech must be a pair of samples and rate")
    samples, rate = np.asarray(media[0]), media[1]
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi" or not samples.size:
        raise DataError(f"speech must be float or integer samples [T] or [T, C], not {samples.dtype} {samples.shape}")
    if int(rate) != rate or not 1000 <= rate <= 768_000:
        raise DataError(f"the rate of speech must be 1000 to 768000 samples a second, not {rate}")
    return samples, int(rate)


def fitted(media: Any, options: SpeechOptions, target: int) -> tuple[npt.NDArray[Any], int]:
    """`checked`, and cut to `max_seconds` where the options say so.

    Raises `DataError` for an item that gives more frames at `target` hertz than a span may have, and is not to be cut.
    """
    samples, rate = checked(media)
    if frame_count(len(samples), rate, target) > options.frames.maximum:
        if options.too_long != "truncate":
            raise DataError(
                f"speech of {len(samples) / rate:.2f} s is longer than {options.max_seconds:g} s; raise `max_seconds` "
                "of the plugin, set `too_long: truncate`, or filter such records with `max_seconds`"
            )
        samples = samples[: options.frames.maximum * rate // FRAME_RATE]
    return samples, rate


def frame_count(length: int, rate: int, target: int) -> int:
    """Started frames of `length` samples once they are resampled to `target` hertz."""
    resampled = -(-length * target // rate)
    return -(-resampled * FRAME_RATE // target)


def mono(media: Any, target: int) -> Floats:
    """Samples float32 `[T]` at `target` hertz: channels averaged, integers scaled to [-1, 1], resampled.

    Raises `DataError` as `checked` does, and for samples that are no finite numbers.
    """
    samples, rate = checked(media)
    if samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    samples = samples.astype(np.float32)
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if not np.isfinite(samples).all():
        raise DataError("speech holds samples that are no finite numbers")
    if rate != target:
        from scipy.signal import resample_poly

        common = gcd(rate, target)
        samples = resample_poly(samples, target // common, rate // common)
    return np.asarray(samples, np.float32)
