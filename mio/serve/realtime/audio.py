"""Sound of a realtime connection: what comes in, and where something is said in it; what goes out.

T samples. Sound is PCM of 16 bits, one channel, 24 kHz; times are seconds since the connection's first sample.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mio.core.contract.sessions import Segmenter, Utterance
from mio.core.errors import UserError
from mio.serve.errors import ApiError
from mio.serve.sound import PCM_RATE, SoundWriter

Samples = npt.NDArray[np.float32]

_KEPT = 2.0
"""Seconds of what was heard last that are kept while nothing is said."""


@dataclass(frozen=True)
class Began:
    """Something is being said."""

    start: float


@dataclass(frozen=True)
class Ended:
    """What was said is over."""

    utterance: Utterance
    """Its times are those of the connection."""


Heard = Began | Ended


def pcm_of(encoded: str, param: str) -> bytes:
    """Bytes of samples. Raises `ApiError`."""
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f"`{param}`: it is not valid base64", param, "invalid_value") from error
    if len(content) % 2:
        raise ApiError(400, f"`{param}`: samples of 16 bits have two bytes each, these are {len(content)}", param,
                       "invalid_value")  # fmt: skip
    return content


def samples_of(pcm: bytes | bytearray) -> Samples:
    """Samples `[T]` in [-1, 1]."""
    return np.frombuffer(bytes(pcm), "<i2").astype(np.float32) / np.float32(32768)


def seconds_of(pcm: bytes | bytearray) -> float:
    return len(pcm) / 2 / PCM_RATE


class InputBuffer:
    """Sound that comes in until it is committed: by the client, or by voice activity.

    Args:
        most: seconds that it holds.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._make: Callable[[], Segmenter] | None = None
        self._segmenter: Segmenter | None = None
        self._pcm = bytearray()
        self._past = 0.0
        """Seconds of the connection before the segmenter's stream, or the buffer, began."""
        self._heard = 0.0
        """Seconds since then."""
        self._onset: float | None = None
        """Where what is being said began, as far as was told."""

    @property
    def now(self) -> float:
        return self._past + self._heard

    def listen(self, make: Callable[[], Segmenter] | None) -> None:
        """Finds what is said by the segmenters that `make` makes; None: the client commits. What is in the buffer then
        is left out if it was to be found by another."""
        if self._segmenter is not None:
            self.clear()
        self._make = make
        self._segmenter = make() if make is not None else None
        if self._segmenter is not None:
            self._restart()

    def append(self, pcm: bytes) -> list[Heard]:
        """Takes sound; what is found in it. Raises `ApiError` where the buffer is full, and takes nothing then."""
        if self._segmenter is None and seconds_of(self._pcm) + seconds_of(pcm) > self._most:
            raise ApiError(
                400, f"the input audio buffer holds {self._most:g} s; commit it, or clear it", "audio", "buffer_full"
            )
        self._pcm += pcm
        self._heard += seconds_of(pcm)
        if self._segmenter is None:
            return []
        del self._pcm[: max(0, len(self._pcm) - 2 * round(_KEPT * PCM_RATE))]
        found = self._segmenter.push((samples_of(pcm), PCM_RATE))
        return self._events(found, getattr(self._segmenter, "onset", None))

    def commit(self) -> list[Heard]:
        """What is in the buffer is over, and the buffer empty. Raises `ApiError` if it was empty before."""
        if self._segmenter is not None:
            found = self._events(self._segmenter.close(), None)
            self._restart()
        else:
            found = [Ended(Utterance((samples_of(self._pcm), PCM_RATE), self._past, self.now))] if self._pcm else []
            self._restart()
        if not any(isinstance(one, Ended) for one in found):
            raise ApiError(
                400, "the input audio buffer holds nothing to commit; append sound first", None,
                "input_audio_buffer_commit_empty",
            )  # fmt: skip
        return found

    def recent(self) -> Ended:
        """What was heard last, when nobody has said anything."""
        return Ended(Utterance((samples_of(self._pcm), PCM_RATE), self.now - seconds_of(self._pcm), self.now))

    def clear(self) -> None:
        """What is in the buffer is left out."""
        if self._make is not None:
            self._segmenter = self._make()
        self._restart()

    def _restart(self) -> None:
        self._past, self._heard, self._onset = self.now, 0.0, None
        self._pcm = bytearray()

    def _events(self, found: Any, onset: float | None) -> list[Heard]:
        heard: list[Heard] = []
        for one in found:
            if self._onset is None:
                heard.append(Began(self._past + one.start))
            self._onset = None
            heard.append(Ended(Utterance(one.data, self._past + one.start, self._past + one.end, one.ignored)))
        if onset is not None and self._onset is None:
            heard.append(Began(self._past + onset))
        self._onset = onset
        return heard


def segmenter_fails(make: Callable[[], Segmenter]) -> str:
    """Why the segmenters that `make` makes cannot hear the sound of a connection; empty if they can. One finds out
    when it hears something, whether it has the packages that it needs."""
    try:
        make().push((np.zeros(PCM_RATE // 10, np.float32), PCM_RATE))
    except UserError as error:
        return str(error)
    return ""


class OutputSound:
    """Encodes the sound of a part of an answer, which comes in pieces."""

    def __init__(self) -> None:
        self._writer = SoundWriter("pcm")
        self._rate = 0

    def push(self, content: tuple[Any, int]) -> str:
        """Base64 of what is ready with a piece; may be empty."""
        samples, rate = content
        before = b""
        if self._rate and rate != self._rate:
            before = self._writer.finish()
            self._writer = SoundWriter("pcm")
        self._rate = int(rate)
        return _encoded(before + self._writer.push(np.asarray(samples), self._rate))

    def finish(self) -> str:
        """Base64 of what is left."""
        return _encoded(self._writer.finish()) if self._rate else ""


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
