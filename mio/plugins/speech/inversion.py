"""Speech of log-mel frames, while they come: phases are found on the way.

The fast Griffin-Lim algorithm (Perraudin et al., "A fast Griffin-Lim algorithm", 2013) in a buffer that moves along, as
in RTISI-LA (Zhu, Beauregard and Wyse, "Real-time signal estimation from modified short-time Fourier transform
magnitude spectra", 2007; arXiv 2309.07043 has projections of all kinds in such a buffer): at each log-mel frame a few
iterations are made over the windows that came with it and the newest before; phases of older windows stay as they are.
So samples do not depend on frames that come later, and all computations are those of one log-mel frame, whether frames
come one by one or together.

Shapes: F frames of a log-mel spectrum with M bands, N windows (`FINER` for a frame) of W samples, each H after the one
before, K frequencies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mio.plugins.speech.spectrum import FINER, Floats, Spectrum

AHEAD = 2
"""Windows behind a window that have come before its phases stay as they are."""
ITERATIONS = 8
"""At each log-mel frame; half of the windows are open at two of these."""
MOMENTUM = 1.3
LEVEL = 0.1
"""Of the samples, where a full-scale sine would have a band at 0 decibels: speech has harmonics in all bands, and the
peak of 19 of 20 recordings stays below 1."""
KNEE = 0.8
"""Samples above are pressed into what is left below 1."""

Complex = npt.NDArray[np.complex64]


class Inversion:
    """Log-mel frames of one item -> its samples, frame by frame."""

    def __init__(self, spectrum: Spectrum) -> None:
        self._spectrum = spectrum
        self._hop = spectrum.hop // FINER
        self._width = 2 * spectrum.hop
        self._squares = (spectrum.window**2).reshape(-1, self._hop)
        reach = len(self._squares) - 1  # hops by which a window goes on behind its first
        # windows whose phases stay: their sum, and that of their squared weights, where open windows still add to it
        self._sum = np.zeros((reach, self._hop), np.float32)
        self._weight = np.zeros((reach, self._hop), np.float32)
        # open windows: amplitudes, spectra, and their consistent spectra of one iteration before
        self._amplitudes = np.zeros((0, spectrum.frequencies), np.float32)
        self._spectra = np.zeros((0, spectrum.frequencies), np.complex64)
        self._before = self._spectra
        self._newest: Floats | None = None
        """The last log-mel frame `[1, M]`."""
        self._excess = (self._width - self._hop) // 2
        """Samples before the beginning that windows reach back to, and that are still to be left out."""
        self._due = 0
        """Samples of the frames so far that were not given out yet."""

    def push(self, log_mel: Floats) -> Floats:
        """Takes decibels `[F, M]` of the next frames, at least one. Returns the samples float32 `[t]` in [-1, 1] that
        are known now, of none up to as many as their frames have."""
        return np.concatenate([self._push(log_mel[index : index + 1]) for index in range(len(log_mel))])

    def finish(self) -> Floats:
        """The samples that are left, now that all frames have come."""
        if self._newest is None:
            return np.zeros(0, np.float32)
        self._open(np.repeat(self._newest, FINER // 2, axis=0))
        settled = self._settle(len(self._spectra))
        rest = self._sum / np.maximum(self._weight, 1e-3)
        return self._given(np.concatenate((settled, rest.ravel())))

    def _push(self, log_mel: Floats) -> Floats:
        before = self._newest
        self._newest, self._due = log_mel, self._due + self._spectrum.hop
        # windows are evenly spread over the time of the frames, their decibels interpolated: the second half of a
        # frame's is known with the next one
        part = (np.arange(FINER, dtype=np.float32)[:, None] + 0.5) / FINER
        whole = np.repeat(log_mel, FINER // 2, axis=0)
        self._open(whole if before is None else np.asarray(before * (1 - part) + log_mel * part, np.float32))
        return self._given(self._settle(max(0, len(self._spectra) - AHEAD)))

    def _open(self, decibels: Floats) -> None:
        """Finds phases for windows of these decibels `[n, M]` and for the open ones, which they follow."""
        amplitudes, known = self._spectrum.amplitudes(decibels), len(self._spectra)
        blank = np.zeros(amplitudes.shape, np.complex64)
        spectra = np.concatenate((self._spectra, blank))
        if self._weight.any() or known:
            reached = self._signal(spectra, self._weights(known, len(blank)))
            ahead = self._transform(reached)[known:]
            spectra[known:] = amplitudes * ahead / np.maximum(np.abs(ahead), 1e-9)
        else:
            phase = np.random.default_rng(0).random(amplitudes.shape, np.float32)
            spectra[:] = amplitudes * np.exp(2j * np.pi * phase)
        amplitudes = np.concatenate((self._amplitudes, amplitudes))
        before, weights = np.concatenate((self._before, blank)), self._weights(len(spectra))
        for _ in range(ITERATIONS):
            consistent = self._transform(self._signal(spectra, weights))
            ahead = consistent + MOMENTUM * (consistent - before)
            spectra, before = amplitudes * ahead / np.maximum(np.abs(ahead), 1e-9), consistent
        self._amplitudes, self._spectra, self._before = amplitudes, spectra, before

    def _settle(self, count: int) -> Floats:
        """Closes so many of the oldest open windows. Returns the samples `[t]` that they were the last to reach."""
        total = self._overlapped(self._spectra[:count], self._sum)
        weight = self._weights(count)
        self._sum, self._weight = total[count:], weight[count:]
        self._amplitudes, self._spectra = self._amplitudes[count:], self._spectra[count:]
        self._before = self._before[count:]
        return np.asarray((total[:count] / np.maximum(weight[:count], 1e-3)).ravel(), np.float32)

    def _given(self, samples: Floats) -> Floats:
        """What of samples to come next is given out, at its level."""
        skipped = min(self._excess, len(samples))
        self._excess -= skipped
        samples = samples[skipped:][: self._due]
        self._due -= len(samples)
        samples = samples * np.float32(LEVEL * self._spectrum.scale)
        over = np.maximum(np.abs(samples) - KNEE, 0)
        room = 1 - KNEE
        return np.asarray(
            np.sign(samples) * (np.minimum(np.abs(samples), KNEE) + room * np.tanh(over / room)), np.float32
        )

    def _signal(self, spectra: Complex, weights: Floats) -> Floats:
        """The signal `[N + W / H - 1, H]`, in hops, whose windows come closest to these spectra `[N, K]`."""
        return np.asarray(self._overlapped(spectra, self._sum) / np.maximum(weights, 1e-3), np.float32)

    def _overlapped(self, spectra: Complex, total: Floats) -> Floats:
        """The windows of spectra `[N, K]`, weighted and summed, together with what begins like `total`."""
        windows = np.fft.irfft(spectra, self._spectrum.size)[:, : self._width] * self._spectrum.window
        pieces = windows.reshape(len(windows), len(self._squares), self._hop)
        summed = np.zeros((len(pieces) + len(total), self._hop), np.float32)
        summed[: len(total)] = total
        for index in range(pieces.shape[1]):
            summed[index : index + len(pieces)] += pieces[:, index]
        return summed

    def _weights(self, count: int, blank: int = 0) -> Floats:
        """Squared weights of so many open windows, summed together with those that are closed, with room for windows
        that add nothing."""
        summed = np.zeros((count + blank + len(self._weight), self._hop), np.float32)
        summed[: len(self._weight)] = self._weight
        for index, square in enumerate(self._squares):
            summed[index : index + count] += square
        return summed

    def _transform(self, signal: Floats) -> Complex:
        """Spectra `[N, K]` of the windows of a signal in hops."""
        windows = np.lib.stride_tricks.sliding_window_view(signal.ravel(), self._width)[:: self._hop]
        return np.asarray(np.fft.rfft(windows * self._spectrum.window, self._spectrum.size), np.complex64)
