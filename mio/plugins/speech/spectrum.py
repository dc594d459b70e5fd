"""Speech as frames of log-mel energies; NumPy alone. `inversion.py` has the way back.

Shapes: T samples, F frames of 20 ms, M mel bands, N windows of the inverse, K frequencies of a Fourier transform.
"""

from __future__ import annotations

from functools import cache
from math import ceil

import numpy as np
import numpy.typing as npt

from mio.plugins.speech.options import FRAME_RATE

Floats = npt.NDArray[np.float32]

FLOOR = -60.0
"""Decibels below the loudest band of the item; anything quieter is silence."""
QUIETEST = -70.0
"""Decibels of full scale; an item whose loudest band is below is silence throughout, not faint speech made loud."""
LOWEST = 60.0
"""Hertz; no voice is below, mains hum is."""
FINER = 4
"""Windows of the inverse per frame: at 20 ms neighbours overlap too little for their phases to be found."""


class Spectrum:
    """Log-mel analysis at one sample rate: 40 ms windows every 20 ms, 40 bands (80 above 8 kHz)."""

    def __init__(self, rate: int) -> None:
        self.hop = rate // FRAME_RATE
        self.bands = 40 if rate <= 8000 else 80
        self.window = np.hanning(2 * self.hop + 1)[:-1].astype(np.float32)
        self.size = 2 ** ceil(np.log2(2 * self.hop))
        """Of the Fourier transform."""
        self.frequencies = self.size // 2 + 1
        self.scale = float(self.window.sum()) / 2
        """Amplitude of a full-scale sine in the spectrum of a window."""
        self._bank = _filterbank(rate, self.size, self.bands)  # [K, M]
        # a frequency gets the mean of the bands that cover it, weighted as they cover it
        cover = self._bank.sum(axis=1, keepdims=True)
        self._unbank = (self._bank / np.maximum(cover, 1e-6)).T  # [M, K]
        # power of a full-scale sine is 0 dB, whatever the window
        self._bank = self._bank * (4 / self.window.sum() ** 2)

    def frames(self, length: int) -> int:
        """Frames of `length` samples: every started 20 ms counts."""
        return -(-length // self.hop)

    def log_mel(self, samples: Floats) -> Floats:
        """Samples `[T]` -> decibels `[F, M]` relative to the item's loudest band, in [FLOOR, 0]."""
        count, margin = self.frames(len(samples)), self.hop // 2
        padded = np.pad(samples, (margin, count * self.hop - len(samples) + self.hop - margin))
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * self.hop)[:: self.hop]
        power = np.abs(np.fft.rfft(windows * self.window, self.size)) ** 2 @ self._bank
        decibels = 10 * np.log10(power + 1e-12)
        return np.asarray(np.maximum(decibels - max(float(decibels.max()), QUIETEST), FLOOR), np.float32)

    def amplitudes(self, decibels: Floats) -> Floats:
        """Decibels `[N, M]` -> amplitudes `[N, K]` of the frequencies."""
        return np.asarray(np.sqrt(10 ** (decibels / 10) @ self._unbank), np.float32)


@cache
def _filterbank(rate: int, size: int, bands: int) -> Floats:
    """Triangular filters `[size // 2 + 1, bands]` of unit sum, evenly spaced on the mel scale (O'Shaughnessy, 1987)."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    low = 2595 * np.log10(1 + LOWEST / 700)
    edges = 700 * (10 ** (np.linspace(low, top, bands + 2) / 2595) - 1)
    frequency = np.arange(size // 2 + 1)[:, None] * rate / size
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    bank = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(bank / bank.sum(axis=0), np.float32)
