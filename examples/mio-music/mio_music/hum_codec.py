"""A codec of hums: each frame of 50 ms is the nearest of some spectra that were learnt from hums (k-means).

Nothing in it knows notes: a frame is the loudness of bands that are spaced like pitch, two to a semitone, and the
codebook is fitted on the training hums alone, without their tunes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

import mio
from mio_music.humming import RATE

FRAME_RATE = 20
WINDOW, SIZE = RATE // 12, 4096
"""Samples of a frame's window, and of its Fourier transform."""
LOWEST_HERTZ, BANDS, PER_OCTAVE = 180.0, 96, 24
FLOOR = -30.0
"""Decibels below the hum's loudest band under which there is silence."""
MOST_FRAMES = 20_000
"""That the codebook is learnt from."""

RULES = mio.media.SoundRules(
    name="hum", frame_rate=FRAME_RATE, max_seconds=8.0, truncate=False, filter_name="hum_max_seconds"
)


class HumTokenizer:
    """Tokenizer (`mio.Tokenizer`, `mio.Trainable`): sound `(samples, rate)` -> codes `[1, F]`."""

    FILE = "spectra.safetensors"

    def __init__(self, size: int) -> None:
        self.size = size
        self.spectra: np.ndarray | None = None  # [size, BANDS]
        self.fingerprint = ""

    def frames(self, media) -> int:
        return RULES.frames(media, RATE)

    def encode(self, media: Sequence) -> list[np.ndarray]:
        return [self._nearest(bands(RULES.mono(item, RATE)))[None] for item in media]

    def _nearest(self, frames: np.ndarray) -> np.ndarray:
        if self.spectra is None:
            raise mio.UserError("the tokenizer of `hum` has no weights yet: train it, or load a run that did")
        distance = 0.5 * (self.spectra**2).sum(1) - frames @ self.spectra.T
        return distance.argmin(1).astype(np.int64)

    def fit(self, items: Sequence[mio.Media], seed: int) -> Mapping[str, float]:
        from sklearn.cluster import KMeans

        frames, left = [], MOST_FRAMES
        for index in np.random.default_rng(seed).permutation(len(items)):
            frames.append(bands(RULES.mono(items[index].data, RATE)))
            left -= len(frames[-1])
            if left < 0:
                break
        together = np.concatenate(frames)
        if len(together) < 2 * self.size:
            raise mio.DataError(
                f"the tokenizer of `hum` is trained on {len(together)} frames, too few for {self.size} codes"
            )
        with mio.networks.one_thread():
            means = KMeans(self.size, n_init=1, max_iter=25, random_state=seed).fit(together)
        self._take(means.cluster_centers_.astype(np.float32))
        rest = together - self.spectra[self._nearest(together)]
        return {"frames": float(len(together)), "error_db": float(np.sqrt((rest**2).mean()))}

    def save_weights(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        save_file({"spectra": self.spectra}, folder / self.FILE)

    def load(self, folder: Path) -> None:
        from safetensors.numpy import load_file

        self._take(load_file(folder / self.FILE)["spectra"])

    def _take(self, spectra: np.ndarray) -> None:
        self.spectra = spectra
        self.fingerprint = f"hum-1-{hashlib.sha256(spectra.tobytes()).hexdigest()[:16]}"


def bands(samples: np.ndarray) -> np.ndarray:
    """Samples `[T]` -> float32 `[F, BANDS]`: decibels above `FLOOR`, relative to the loudest band of all frames."""
    hop = RATE // FRAME_RATE
    count, margin = -(-len(samples) // hop), (WINDOW - hop) // 2
    padded = np.pad(samples, (margin, count * hop - len(samples) + WINDOW - hop - margin))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::hop] * np.hanning(WINDOW).astype(np.float32)
    decibels = 20 * np.log10(np.abs(np.fft.rfft(windows, SIZE)) @ _bank() + 1e-9)
    return np.maximum(decibels - max(decibels.max(), -40.0) - FLOOR, 0).astype(np.float32)


@cache
def _bank() -> np.ndarray:
    """Triangles `[SIZE // 2 + 1, BANDS]` of unit sum, one quarter tone apart."""
    edges = LOWEST_HERTZ * 2 ** (np.arange(-1, BANDS + 1) / PER_OCTAVE)
    hertz = np.arange(SIZE // 2 + 1)[:, None] * RATE / SIZE
    rising, falling = (hertz - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - hertz) / np.diff(edges)[1:]
    bank = np.maximum(0, np.minimum(rising, falling))
    return (bank / np.maximum(bank.sum(0), 1e-9)).astype(np.float32)
