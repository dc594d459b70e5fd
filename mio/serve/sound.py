"""Sound as bytes of a format, whole or while it comes.

T samples, C channels.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from mio.api.forms import to_pcm

PCM_RATE = 24_000
"""Hertz of sound without a header, which clients of OpenAI's take for granted."""

MEDIA_TYPES = {
    "wav": "audio/wav",
    "pcm": "audio/pcm",
    "pcm16": "audio/pcm",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
}
"""By the format's name in OpenAI's API."""

_ENCODERS = {
    # container, codec, rates
    "mp3": ("mp3", "libmp3lame", (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)),
    "opus": ("ogg", "libopus", (8000, 12000, 16000, 24000, 48000)),
    "aac": ("adts", "aac", (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)),
    "flac": ("flac", "flac", ()),
}
HEADER = 44
"""Bytes of the header of a WAV."""
_UNKNOWN = 0xFFFFFFFF
"""Size in the header of a WAV whose end is not known yet."""


class SoundWriter:
    """Encodes sound that comes in pieces. What `push` and `finish` give, one after the other, is a file. Its rate and
    channels are those of the first piece, to which others are resampled."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._rate = self._channels = 0
        self._file = io.BytesIO()
        self._given = 0
        self._container: Any = None
        self._stream: Any = None
        self._resampler: Any = None
        self._matched: tuple[int, int] = (0, 0)
        """Rate and channels of the pieces that are made to fit,"""
        self._matching: Any = None
        """by this."""

    def push(self, samples: npt.NDArray[Any], rate: int) -> bytes:
        """Bytes that are ready with these samples, `[T]` or `[T, C]`, floats in [-1, 1] or integers."""
        pcm = to_pcm(_few_channels(samples))
        channels = pcm.shape[1] if pcm.ndim == 2 else 1
        if not self._rate:
            self._open(rate, channels)
        if self._matching is not None and self._matched != (rate, channels):
            self._end_matching()
        if (rate, channels) == (self._rate, self._channels):
            self._write(pcm)
            return self._new()
        import av

        if self._matching is None:
            self._matched = rate, channels
            self._matching = av.AudioResampler("s16", _layout(self._channels), self._rate)
        self._write_frames(self._matching.resample(_frame(pcm, rate, channels)))
        return self._new()

    def finish(self) -> bytes:
        """The bytes that are left. Nothing of sound that never came."""
        if self._matching is not None:
            self._end_matching()
        if self._resampler is not None:
            self._encode(self._resampler.resample(None))
        if self._container is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        return self._new()

    def _end_matching(self) -> None:
        self._write_frames(self._matching.resample(None))
        self._matching = None

    def _write_frames(self, frames: Any) -> None:
        for frame in frames:
            self._write(frame.to_ndarray().reshape(-1, self._channels))

    def _open(self, rate: int, channels: int) -> None:
        self._rate, self._channels = rate, channels
        if self._kind == "wav":
            self._file.write(wav_header(rate, channels))
            return
        import av

        layout = _layout(channels)
        if self._kind in ("pcm", "pcm16"):
            self._resampler = av.AudioResampler("s16", "mono", PCM_RATE)
            return
        container, codec, rates = _ENCODERS[self._kind]
        chosen = min((one for one in rates if one >= rate), default=max(rates)) if rates else rate
        # a page of Ogg for each piece of sound, and no seeking back for headers that were given already
        options = {"page_duration": "20000"} if container == "ogg" else {}
        self._container = av.open(_Forward(self._file), "w", format=container, options=options)
        self._stream = self._container.add_stream(codec, rate=chosen, layout=layout)
        self._resampler = av.AudioResampler(
            self._stream.format.name, layout, chosen, frame_size=self._stream.codec_context.frame_size or None
        )

    def _write(self, pcm: npt.NDArray[np.int16]) -> None:
        if self._resampler is None:
            self._file.write(pcm.tobytes())
            return
        self._encode(self._resampler.resample(_frame(pcm, self._rate, self._channels)))

    def _encode(self, frames: Any) -> None:
        for frame in frames:
            if self._container is None:
                self._file.write(frame.to_ndarray().tobytes())
            else:
                frame.pts = None
                self._container.mux(self._stream.encode(frame))

    def _new(self) -> bytes:
        self._file.seek(self._given)
        new = self._file.read()
        self._given += len(new)
        return new


def _layout(channels: int) -> str:
    return "stereo" if channels == 2 else "mono"


def _frame(pcm: npt.NDArray[np.int16], rate: int, channels: int) -> Any:
    import av

    frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout=_layout(channels))
    frame.sample_rate = rate
    return frame


class _Forward:
    """A file that is written in one go: containers then need no look back."""

    def __init__(self, file: io.BytesIO) -> None:
        self._file = file

    def write(self, content: Any) -> int:
        return self._file.write(content)


def whole(samples: npt.NDArray[Any], rate: int, kind: str) -> bytes:
    """Sound as a file of this format."""
    if kind == "wav":
        pcm = to_pcm(_few_channels(samples))
        return wav_header(rate, pcm.shape[1] if pcm.ndim == 2 else 1, pcm.nbytes) + pcm.tobytes()
    writer = SoundWriter(kind)
    return writer.push(samples, rate) + writer.finish()


def wav_header(rate: int, channels: int, size: int = -1) -> bytes:
    """Header of a WAV of 16 bits, with so many bytes of samples; -1: as many as will come."""
    riff, data = (_UNKNOWN, _UNKNOWN) if size < 0 else (36 + size, size)
    block = 2 * channels
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", riff, b"WAVE", b"fmt ", 16, 1, channels, rate, rate * block, block, 16,
        b"data", data,
    )  # fmt: skip


def with_size(content: bytes) -> bytes:
    """A WAV that was written while it came, with the sizes in its header that are known now."""
    return (
        content[:4]
        + struct.pack("<I", len(content) - 8)
        + content[8:40]
        + (struct.pack("<I", len(content) - HEADER) + content[HEADER:])
    )


def _few_channels(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Samples of one or two channels: more are mixed into one."""
    samples = np.asarray(samples)
    if samples.ndim == 1 or samples.shape[1] == 2:
        return samples
    if samples.shape[1] == 1:
        return samples[:, 0]
    mixed: npt.NDArray[Any] = samples.mean(axis=1).astype(samples.dtype)
    return mixed
