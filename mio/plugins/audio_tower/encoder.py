"""How speech becomes embeddings: the `Encoder` of the modality `speech`. Without torch until the network is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mio import DataError, media
from mio.plugins.audio_tower.fbank import fbank
from mio.plugins.audio_tower.options import AudioTowerOptions, frame_count, hidden_count, position_count

if TYPE_CHECKING:
    from torch import Tensor, nn

VERSION = 1
"""Version of the preprocessing; part of the fingerprint."""

STRIDE = 4
"""Frames of one hidden vector: an item has a multiple of it, so that items lie end to end in one convolution."""
FEWEST_FRAMES = 7
"""Frames that make one position: the convolutions see so many."""
LONGEST = 86_400.0
"""Seconds; the modality's own plugin has a limit of its own, well below."""


class SpeechEncoder:
    """Encoder (`mio.Encoder`) of speech: log mel energies float32 `[frames, bands]`, normalised in the network."""

    def __init__(self, options: AudioTowerOptions) -> None:
        self.options = options
        content = json.dumps([VERSION, options.identity], sort_keys=True)
        self.fingerprint = f"audio-tower-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
        self._sounds = media.SoundRules(
            name="speech", frame_rate=1, max_seconds=LONGEST, truncate=False, filter_name="max_seconds"
        )

    def positions(self, media: Any) -> int:
        """Positions of a recording `(samples, rate)`, by its length alone. Raises `DataError` for one that is too short
        for one position."""
        return position_count(self._hidden(self._sounds.resampled_length(media, self.options.rate)))

    def prepare(self, media: Any) -> Mapping[str, npt.NDArray[np.generic]]:
        """`frames` float32 `[4 * (hidden + 1), bands]`: those that the convolutions see, and one of zeros that none
        sees. Raises `DataError` for anything but sound, as `positions` does, and for samples that are not finite."""
        options = self.options
        samples = self._sounds.mono(media, options.rate)
        hidden = self._hidden(len(samples))
        energies = fbank(samples, options.rate, options.window, options.shift, options.bands)
        frames = np.zeros((STRIDE * (hidden + 1), options.bands), np.float32)
        frames[:-1] = energies[: len(frames) - 1]
        return {"frames": frames}

    def dummy(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """The shortest recording, silent."""
        options = self.options
        shortest = options.window + (FEWEST_FRAMES - 1) * options.shift
        return self.prepare((np.zeros(shortest, np.float32), options.rate))

    def module(self, width: int) -> nn.Module:
        """Encoder and adapter, embeddings `[S, width]`."""
        from mio.plugins.audio_tower.tower import AudioTower

        return AudioTower(self.options, width)

    def weights(self) -> Mapping[str, Tensor]:
        """Tensors of the checkpoint by name of a parameter; none without one. Raises `UserError`, see
        `weights.py`."""
        from mio.plugins.audio_tower.weights import pretrained

        return pretrained(self.options)

    def _hidden(self, samples: int) -> int:
        options = self.options
        hidden = hidden_count(frame_count(samples, options))
        if not hidden:
            shortest = (options.window + (FEWEST_FRAMES - 1) * options.shift) / options.rate
            raise DataError(
                f"plugins.audio_tower: speech of {samples / options.rate:.3g} s is too short for one position, which "
                f"takes {shortest:.3g} s; leave it out"
            )
        return hidden
