"""Sound that is given out while its codes come.

Shapes: Q codebooks, f frames, t samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mio.core.contract.values import CodeArray

Floats = npt.NDArray[np.float32]


class SampleDecoder(Protocol):
    """Makes samples of frames that come one after the other; of one span."""

    def push(self, codes: CodeArray) -> Floats:
        """Samples `[t]` that are known with the codes `[Q, f]` of the next frames; none or more."""

    def finish(self) -> Floats:
        """The samples that are left."""


class SampleStream:
    """A `SpanDecoder` of sound.

    Args:
        rate: of its samples, in hertz.
        checked: gives the codes of some frames as the decoder takes them, and raises for any that are none.
    """

    def __init__(self, decoder: SampleDecoder, rate: int, checked: Callable[[CodeArray], CodeArray]) -> None:
        self._decoder, self._rate, self._checked = decoder, rate, checked

    def push(self, codes: CodeArray) -> tuple[Floats, int] | None:
        return self._media(self._decoder.push(self._checked(codes)))

    def finish(self) -> tuple[Floats, int] | None:
        return self._media(self._decoder.finish())

    def whole(self, codes: CodeArray) -> tuple[Floats, int]:
        """Samples of all codes of the span."""
        return np.concatenate((self._decoder.push(self._checked(codes)), self._decoder.finish())), self._rate

    def _media(self, samples: Floats) -> tuple[Floats, int] | None:
        return (samples, self._rate) if len(samples) else None
