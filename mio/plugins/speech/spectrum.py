"""Speech as frames of log-mel energies, and back by phase reconstruction; NumPy alone.

Shapes: T samples, F frames of 20 ms, M mel bands, N frames of the inverse, K frequencies of a Fourier transform.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from typing import Any

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
PEAK = 0.8
"""Largest sample of speech that is made from a spectrum."""
FINER = 4
"""Frames of the inverse per frame: at 20 ms neighbours overlap too little for their phases to be found."""
ITERATIONS = 32
MOMENTUM = 0.99


class Spectrum:
    """Log-mel analysis and its inverse at one sample rate: 40 ms windows every 20 ms, 40 bands (80 above 8 kHz)."""

    def __init__(self, rate: int) -> None:
        self.hop = rate // FRAME_RATE
        self.bands = 40 if rate <= 8000 else 80
        self._window = np.hanning(2 * self.hop + 1)[:-1].astype(np.float32)
        self._size = 2 ** ceil(np.log2(2 * self.hop))
        self._bank = _filterbank(rate, self._size, self.bands)  # [K, M]
        # a frequency gets the mean of the bands that cover it, weighted as they cover it
        cover = self._bank.sum(axis=1, keepdims=True)
        self._unbank = (self._bank / np.maximum(cover, 1e-6)).T  # [M, K]
        # power of a full-scale sine is 0 dB, whatever the window
        self._bank = self._bank * (4 / self._window.sum() ** 2)

    def frames(self, length: int) -> int:
        """Frames of `length` samples: every started 20 ms counts."""
        return -(-length // self.hop)

    def log_mel(self, samples: Floats) -> Floats:
        """Samples `[T]` -> decibels `[F, M]` relative to the item's loudest band, in [FLOOR, 0]."""
        count, margin = self.frames(len(samples)), self.hop // 2
        padded = np.pad(samples, (margin, count * self.hop - len(samples) + self.hop - margin))
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * self.hop)[:: self.hop]
        power = np.abs(np.fft.rfft(windows * self._window, self._size)) ** 2 @ self._bank
        decibels = 10 * np.log10(power + 1e-12)
        return np.asarray(np.maximum(decibels - max(float(decibels.max()), QUIETEST), FLOOR), np.float32)

    def samples(self, log_mel: Floats) -> Floats:
        """Decibels `[F, M]` -> samples `[F * hop]` at a peak of 0.8; the same input gives the same samples.

        Phases by the fast Griffin-Lim algorithm (Perraudin et al., "A fast Griffin-Lim algorithm", 2013).
        """
        hop, width = self.hop // FINER, 2 * self.hop
        count, length, margin = FINER * len(log_mel), self.hop * len(log_mel), (width - hop) // 2
        magnitude = self._magnitude(log_mel, count)
        overlap = np.maximum(_overlap_add(np.tile(self._window**2, (count, 1)), hop), 1e-3)

        def signal(spectrum: npt.NDArray[Any]) -> npt.NDArray[Any]:
            windows = np.fft.irfft(spectrum, self._size)[:, :width] * self._window
            return np.asarray(_overlap_add(windows, hop) / overlap)

        def transform(signal: npt.NDArray[Any]) -> npt.NDArray[Any]:
            windows = np.lib.stride_tricks.sliding_window_view(signal, width)[::hop]
            return np.fft.rfft(windows * self._window, self._size)

        phase = np.random.default_rng(0).random(magnitude.shape, dtype=np.float32)
        spectrum: npt.NDArray[Any] = magnitude * np.exp(2j * np.pi * phase)
        before = np.zeros_like(spectrum)
        for _ in range(ITERATIONS):
            consistent = transform(signal(spectrum))
            ahead = consistent + MOMENTUM * (consistent - before)
            spectrum, before = magnitude * ahead / np.maximum(np.abs(ahead), 1e-9), consistent
        sound = signal(spectrum)[margin : margin + length]
        # speech has a band near 0 dB; what has none is silence, and is not made loud
        if float(log_mel.max()) > FLOOR / 2:
            sound = sound * (PEAK / max(float(np.abs(sound).max()), 1e-9))
        return np.asarray(np.clip(sound, -1, 1), np.float32)

    def _magnitude(self, log_mel: Floats, count: int) -> Floats:
        """Amplitudes `[N, K]` at `count` frames evenly spread over those of `log_mel`, interpolated in decibels."""
        place = np.clip((np.arange(count) + 0.5) / FINER - 0.5, 0, len(log_mel) - 1)
        left = place.astype(int)
        right = np.minimum(left + 1, len(log_mel) - 1)
        part = (place - left)[:, None]
        decibels = log_mel[left] * (1 - part) + log_mel[right] * part
        return np.asarray(np.sqrt(10 ** (decibels / 10) @ self._unbank), np.float32)


def _overlap_add(windows: npt.NDArray[Any], hop: int) -> npt.NDArray[Any]:
    """Windows `[N, W]`, each `hop` after the one before, summed to `[(N - 1) * hop + W]`; W is a multiple of `hop`."""
    count, width = windows.shape
    pieces = windows.reshape(count, width // hop, hop)
    total = np.zeros((count + width // hop - 1, hop), windows.dtype)
    for index in range(width // hop):
        total[index : index + count] += pieces[:, index]
    return total.ravel()


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
