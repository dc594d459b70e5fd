"""Options of the audio tower. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mio import UserError, number, one_of
from mio.plugins.audio_tower.statistics import MEAN, STD

FRAME_SECONDS = 0.025
SHIFT_SECONDS = 0.010
"""Length of a frame and distance between two."""

STORED = ("checkpoint",)
"""Options that say what parameters begin with: without effect once a run has weights of its own."""


@dataclass(frozen=True, kw_only=True)
class AudioTowerOptions:
    """Options of the plugin; the defaults are those of VITA."""

    checkpoint: str = ""
    """Folder or file with weights: a whole VITA, or its audio encoder alone (`final.pt`). Empty: weights are drawn."""
    rate: int = number(16_000, 1000, 384_000)
    """Samples per second that all speech is resampled to."""
    bands: int = number(80, 8, 1024)
    """Mel bands of a frame."""
    mean: Sequence[float] = number(list, -1000, 1000)
    std: Sequence[float] = number(list, 0, 1000, above=True)
    """Global mean and standard deviation of the log energies, one number or one per band. Empty: VITA's, and for
    another number of `bands` their average. Those of a checkpoint must be the same."""
    width: int = number(1024, 1, 65_536)
    layers: int = number(24, 1, 1000)
    heads: int = number(16, 1, 4096)
    ffn_width: int = number(4096, 1, 1_000_000)
    """Hidden size of the feed-forward networks."""
    concat: bool = False
    """Whether a layer joins what attention was given and gave by a linear layer, in place of a sum (`concat_after`)."""
    adapter_kernel: int = number(5, 1, 1024)
    """Positions that the adapter's convolution sees, from its own on."""
    adapter_activation: str = one_of("gelu", "gelu", "relu")

    def __post_init__(self) -> None:
        problems = []
        if self.width % self.heads:
            problems.append(f"`width` {self.width} must be a multiple of `heads` {self.heads}")
        if self.width % 2:
            problems.append(f"`width` {self.width} must be even: positions are sines and cosines")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in {0, 1, self.bands}:
                problems.append(f"`{name}` has {len(getattr(self, name))} numbers, must have 1 or {self.bands}")
        if problems:
            raise UserError("; ".join(f"plugins.audio_tower: {problem}" for problem in problems))

    @property
    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each band."""
        return self._of_bands(self.mean, MEAN), self._of_bands(self.std, STD)

    def _of_bands(self, given: Sequence[float], published: Sequence[float]) -> list[float]:
        values = list(given) or list(published)
        if len(values) != self.bands:
            values = [sum(values) / len(values)] * self.bands
        return values

    @property
    def window(self) -> int:
        """Samples of a frame."""
        return int(self.rate * FRAME_SECONDS)

    @property
    def shift(self) -> int:
        """Samples between two frames."""
        return int(self.rate * SHIFT_SECONDS)

    @property
    def convolved_bands(self) -> int:
        """Bands that are left behind the two convolutions."""
        return ((self.bands - 1) // 2 - 1) // 2

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that positions, arrays and the shapes of parameters depend on."""
        return {name: value for name, value in asdict(self).items() if name not in STORED}


def frame_count(samples: int, options: AudioTowerOptions) -> int:
    """Whole frames of so many samples: Kaldi's, with edges snipped."""
    return 0 if samples < options.window else 1 + (samples - options.window) // options.shift


def hidden_count(frames: int) -> int:
    """What two convolutions of kernel 3 and stride 2 leave of `frames`."""
    return max(0, ((frames - 1) // 2 - 1) // 2)


def position_count(hidden: int) -> int:
    """What the adapter leaves of `hidden`."""
    return -(-hidden // 2)
