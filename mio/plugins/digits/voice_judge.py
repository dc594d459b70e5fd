"""Judge of the digits world's voices: how much does a recording sound like each of them?

A recording of a word is compared with the real recordings of the same word, by what vocal tract and voicing leave in
it: the mean cepstrum of its louder frames, less the word's own, projected by a linear discriminant analysis that learns
from the real recordings of the training voices how voices differ, and how recordings of one voice do. It learns nothing
from voices that are held out, and nothing has seen a codec or a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from mio.plugins.digits.speech_judge import log_mel
from mio.plugins.digits.voices import Clip, clips

if TYPE_CHECKING:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

CEPSTRUM = 18
"""Cepstral coefficients of a recording: the envelope of its spectrum, without the harmonics of its pitch."""
DIMENSIONS = 16
"""Of the space in which voices are compared."""
QUIET, SILENT = 6.0, 9.0
"""Frames this far below the loudest (logarithm of power) are left out; bands this far below the loudest are silent."""
HOP = 80
"""Samples between frames: 10 ms."""

Floats = npt.NDArray[np.float64]


class Spoken(NamedTuple):
    """A recording to be judged."""

    samples: npt.NDArray[np.float32]
    """`[T]`, or `[T, C]`."""
    rate: int
    word: str
    """What it says."""
    left_out: str = ""
    """Key of the clip that it is not compared with: the very recording that it is meant to be."""


def likeness(recordings: Sequence[Spoken]) -> list[Mapping[str, float]]:
    """How much each recording sounds like each voice of both splits, by name: the mean cosine, from -1 to 1, with the
    voice's recordings of the same word. Raises `DataError` for anything but sound."""
    space = _space()
    alike: list[Mapping[str, float]] = []
    for spoken in recordings:
        point = space.point(_cepstrum(spoken.samples, spoken.rate), spoken.word)
        cosines: dict[str, list[float]] = {}
        for clip, known in space.known[spoken.word]:
            if clip.key != spoken.left_out:
                cosines.setdefault(clip.voice, []).append(float(point @ known))
        alike.append({voice: float(np.mean(those)) for voice, those in cosines.items()})
    return alike


class _Space:
    """Where voices are compared."""

    def __init__(self, means: dict[str, Floats], analysis: LinearDiscriminantAnalysis) -> None:
        self._means, self._analysis = means, analysis
        self.known: dict[str, list[tuple[Clip, Floats]]] = {}
        """All real recordings, by word."""
        for clip in (*clips("train"), *clips("test")):
            point = self.point(_cepstrum(clip.samples, clip.rate), clip.word)
            self.known.setdefault(clip.word, []).append((clip, point))

    def point(self, cepstrum: Floats, word: str) -> Floats:
        """`[DIMENSIONS]`, of length 1."""
        point = self._analysis.transform((cepstrum - self._means[word])[None])[0]
        return np.asarray(point / max(float(np.linalg.norm(point)), 1e-9))


@cache
def _space() -> _Space:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    spoken = clips("train")
    cepstra = np.stack([_cepstrum(clip.samples, clip.rate) for clip in spoken])
    words = np.array([clip.word for clip in spoken])
    means = {word: cepstra[words == word].mean(axis=0) for word in dict.fromkeys(words.tolist())}
    rest = cepstra - np.stack([means[clip.word] for clip in spoken])
    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.1, n_components=DIMENSIONS)
    return _Space(means, analysis.fit(rest, [clip.voice for clip in spoken]))


def _cepstrum(samples: npt.NDArray[np.float32], rate: int) -> Floats:
    """`[CEPSTRUM]`: the mean over the louder frames; level does not matter."""
    from scipy.fft import dct

    mel = log_mel(samples, rate, HOP)
    loud = mel.max(axis=1) > mel.max() - QUIET
    mel = np.maximum(mel, mel.max() - SILENT)[loud]
    return np.asarray(dct(mel - mel.mean(), axis=1, norm="ortho")[:, :CEPSTRUM].mean(axis=0), np.float64)
