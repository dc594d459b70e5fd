"""Kaldi's log mel filter bank energies (`compute-fbank-feats`), in NumPy: data workers load no torch.

As `torchaudio.compliance.kaldi.fbank` computes them, without dither, which would make a record another at each reading.
Shapes: N samples, F frames of `window` samples, K frequencies of a Fourier transform, M mel bands.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

FULL_SCALE = 32768.0
"""Kaldi's samples are 16-bit integers."""
PREEMPHASIS = 0.97
LOWEST = 20.0
"""Hertz of the lowest band's lower edge; the highest band ends at half of the rate."""
FLOOR = float(np.finfo(np.float32).eps)
"""Energies below count as this."""
_POVEY = 0.85
_BLOCK = 4096
"""Frames transformed at once: bounds memory."""


def fbank(samples: Floats, rate: int, window: int, shift: int, bands: int) -> Floats:
    """Samples `[N]` in [-1, 1] to log energies float32 `[F, M]`, F = 1 + (N - window) // shift: nothing is padded.

    Per frame: its mean is taken away, each sample less 0.97 of the one before, Povey's window, power spectrum of the
    next power of two, triangular bands of equal width in mel.
    """
    scaled = samples.astype(np.float32) * np.float32(FULL_SCALE)
    frames = np.lib.stride_tricks.sliding_window_view(scaled, window)[::shift]
    energies = np.empty((len(frames), bands), np.float32)
    for first in range(0, len(frames), _BLOCK):
        energies[first : first + _BLOCK] = _energies(frames[first : first + _BLOCK], rate, bands)
    return energies


def _energies(frames: Floats, rate: int, bands: int) -> Floats:
    window = frames.shape[1]
    size = 1 << (window - 1).bit_length()
    # float64: beside a loud tone, quiet bands would be rounding errors of float32
    centred = frames.astype(np.float64)
    centred -= centred.mean(axis=1, keepdims=True)
    before = np.concatenate([centred[:, :1], centred[:, :-1]], axis=1)
    spectrum = np.fft.rfft((centred - PREEMPHASIS * before) * _window(window), size)
    power = (spectrum.real**2 + spectrum.imag**2)[:, : size // 2]
    return np.asarray(np.log(np.maximum(power @ _bank(size, rate, bands), FLOOR)), np.float32)


@cache
def _window(size: int) -> npt.NDArray[Any]:
    """Povey's window: a Hann window to the power of 0.85."""
    return np.asarray(np.hanning(size) ** _POVEY)


@cache
def _bank(size: int, rate: int, bands: int) -> npt.NDArray[Any]:
    """Weights of the frequencies in the bands, `[K, M]`, without the highest frequency, as in Kaldi."""
    edges = np.linspace(_mel(LOWEST), _mel(rate / 2), bands + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    mel = _mel(np.arange(size // 2) * rate / size)[:, None]
    rising, falling = (mel - left) / (centre - left), (right - mel) / (right - centre)
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)))


def _mel(hertz: Any) -> Any:
    return 1127.0 * np.log(1.0 + np.asarray(hertz) / 700.0)
