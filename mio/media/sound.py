"""Sound files as samples. What is decoded counts, never what a header says of the length.

Shapes: T samples, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from mio.core.errors import DataError
from mio.core.files import regular_file
from mio.media import mpeg
from mio.media.containers import Nameless, demuxed, opened, told
from mio.media.structure import UNENDED, caf_frames, missing, pages, sphere_end, wave64_end, wave_data

Floats = npt.NDArray[np.float32]

MAX_CHANNELS = 8
"""Most channels that are decoded: with the duration it bounds the memory that a file may ask for."""
MAX_RATE = 768_000
"""Most samples per second that are decoded, for the same reason."""
LOUDEST = 100.0
"""Largest sample that is one of [-1, 1] after all: decoders overshoot, and 40 dB are more than any of them."""

FORMATS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "asf", "aac", "amr", "amrnb", "amrwb", "flac"),
    *("ogg", "wav", "aiff", "au", "caf", "w64", "avi", "flv", "mpegts", "mpeg", "ac3", "eac3", "wv", "tta", "ape"),
)
"""FFmpeg's formats that are read where libsndfile does not read a file. MP3 is one that is looked for by hand."""

_LIBSNDFILE = (b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"dns.", b"riff", b"caff", b"NIST")
_CODECS = {b"\x01vorbis": "soundfile", b"OpusHead": "soundfile", b"\x7fFLAC": "soundfile"}
_MPEG_CODECS = (0x50, 0x55)
"""Of WAV files: MP2 and MP3."""
_LEADING = 8
"""Packets at the beginning of a broadcast that may be parts of others."""
_BLOCK = 1 << 16
_LARGEST = 1 << 30
"""Bytes of a file whose header does not say how long it is: it is taken into memory."""
_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}


@dataclass(frozen=True)
class Sound:
    """What was read of a sound file."""

    samples: Floats
    """`[T]` of one channel, `[T, C]` of more, in [-1, 1] but for what decoders overshoot."""
    rate: int
    """Hertz."""
    more: bool
    """Whether the file goes on. If not, it was decoded to its end, and held what it says it holds."""
    seconds: float | None
    """How long the file is, where that is known without decoding more of it."""


@dataclass(frozen=True)
class _Stream:
    """Sound that is being decoded."""

    rate: int
    channels: int
    blocks: Iterator[Floats]
    """`[T, C]`, one after the other. Raises `ValueError` for what is damaged."""
    length: int | None = None
    """Samples, where as many bytes as these need are there."""


def read_sound(path: Path, seconds: float) -> Sound:
    """The first `seconds` of a sound file, or of the sound of a video.

    Raises `DataError` for a file that is damaged, cut off, empty, no sound, or has more than 8 channels. Of a file that
    goes on behind `seconds`, what comes there is not looked at, beyond what a header must say.
    """
    kept: list[Floats] = []
    found = _decode(path, seconds, kept.append)
    samples = np.concatenate(kept)[: found.longest]
    if not np.isfinite(samples).all():
        raise DataError(f"{path}: damaged sound file: holds samples that are no numbers")
    if (loudest := float(np.abs(samples).max())) > LOUDEST:
        raise DataError(f"{path}: {too_loud(loudest)}")
    more = found.decoded > found.longest
    length = found.length if more else found.decoded
    return Sound(samples[:, 0] if samples.shape[1] == 1 else samples, found.rate, more, length and length / found.rate)


def too_loud(loudest: float) -> str:
    """What is wrong with samples that are no fractions of full scale."""
    return f"holds samples of {loudest:g}, which are not of the range from -1 to 1; scale them, or store integers"


def sound_seconds(path: Path, most: float) -> float:
    """Seconds of sound in a file, decoded and counted; of one with more than `most`, some number above it.

    Raises `DataError` as `read_sound` does. The lengths of some thousand files are remembered.
    """
    found = regular_file(path)
    return _counted(path, found.st_size, found.st_mtime_ns, most)


@lru_cache(maxsize=4096)
def _counted(path: Path, size: int, changed: int, most: float) -> float:  # noqa: ARG001
    found = _decode(path, most, None)
    return (found.length or found.decoded) / found.rate


@dataclass(frozen=True)
class _Decoded:
    rate: int
    decoded: int
    """Samples."""
    longest: int
    """Samples that were wanted; one or more beyond are decoded of a file that has them."""
    length: int | None
    """Samples of the file, where they are known without being decoded."""


def _decode(path: Path, seconds: float, take: Callable[[Floats], Any] | None) -> _Decoded:
    """Gives what is decoded to `take`, until it is more than `seconds`; without one, decodes only to count."""
    decoded, length = 0, None
    with opened(path) as (file, size):
        try:
            for stream in _streams(path, file, size, seconds):
                longest = math.ceil(min(seconds * stream.rate, 2**62))
                length = stream.length
                if length and length > longest and take is None:
                    decoded = length
                    break
                for block in stream.blocks:
                    if take:
                        take(block)
                    decoded += len(block)
                    if decoded > longest:
                        break
                if decoded > longest:
                    break
        except ValueError as error:
            raise DataError(f"{path}: damaged sound file: {error}") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {told(error)}") from None
    if not decoded:
        raise DataError(f"{path}: holds no samples")
    return _Decoded(stream.rate, decoded, longest, length)


def _streams(path: Path, file: BinaryIO, size: int, seconds: float) -> Iterator[_Stream]:
    """The file's streams, to be joined: one, but for chained Ogg files. All have the first one's rate and channels."""
    kind, begin, end = _kind(file, size)
    if kind != "ogg" and (gone := missing(file, size)):
        raise ValueError(gone)
    if kind == "mpeg":
        yield from _mpeg(path, file, begin, end, seconds)
        return
    parts = _links(file, size) if kind == "ogg" else [(0, size, kind)]
    first: _Stream | None = None
    for begin, end, decoder in parts:
        whole = (begin, end) == (0, size)
        part: BinaryIO = file if whole else BytesIO(_at(file, begin, end - begin))
        part.seek(0)
        stream = _by_libsndfile(part, end - begin) if decoder == "soundfile" else None
        if stream is None:
            with demuxed(path, Nameless(part, end - begin), FORMATS) as container:
                stream = _by_pyav(path, container)
                yield _checked(path, stream, first)
        else:
            yield _checked(path, stream, first)
        first = first or stream


def _checked(path: Path, stream: _Stream, first: _Stream | None) -> _Stream:
    if not 1 <= stream.channels <= MAX_CHANNELS:
        raise DataError(f"{path}: {stream.channels} channels are too many (at most {MAX_CHANNELS})")
    if not 1 <= stream.rate <= MAX_RATE:
        raise DataError(f"{path}: {stream.rate} samples per second are too many (at most {MAX_RATE})")
    if first and (stream.rate, stream.channels) != (first.rate, first.channels):
        raise DataError(
            f"{path}: is several recordings one behind the other, and they differ: {first.channels} channels at "
            f"{first.rate} Hz, then {stream.channels} at {stream.rate} Hz; split it"
        )
    return stream


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _kind(file: BinaryIO, size: int) -> tuple[str, int, int]:
    """Who reads the file (`ogg`, `mpeg`, `soundfile` or `av`), and where its content begins and ends."""
    start = 0
    while tag := mpeg.id3_size(_at(file, start, 10)):
        start += tag
    head = _at(file, start, 1 << 17)
    if head[:4] == b"OggS":
        return "ogg", start, size
    if head[8:12] == b"WAVE" and (waves := wave_data(file, size)) and waves.codec in _MPEG_CODECS:
        return "mpeg", waves.begin, size if waves.said is None else waves.begin + waves.said
    if head[:4] in _LIBSNDFILE and head[8:11] != b"AVI":
        return "soundfile", start, size
    if head[4:8] in (b"ftyp", b"moov", b"mdat") or head[:4] in (b"fLaC", b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75"):
        return "av", start, size
    return ("mpeg" if mpeg.begin(head) is not None else "av"), start, size


def _links(file: BinaryIO, size: int) -> list[tuple[int, int, str]]:
    """Begin, end and decoder of each stretch of an Ogg file that is a recording of its own."""
    links: list[tuple[int, int, str]] = []
    running: set[int] = set()
    for page in pages(file, size):
        if page.first and not running:
            decoder = next((name for begins, name in _CODECS.items() if page.content.startswith(begins)), "av")
            links.append((page.begin, page.end, decoder))
        elif links:
            begin, _, decoder = links[-1]
            # a picture beside the sound is nothing that libsndfile expects
            links[-1] = (begin, page.end, "av" if page.first else decoder)
        if page.first:
            running.add(page.serial)
        if page.last:
            running.discard(page.serial)
    if running:
        raise ValueError(UNENDED)
    return links


def _by_libsndfile(file: BinaryIO, size: int) -> _Stream | None:
    """By libsndfile; None if it does not know the format or its codec."""
    import soundfile

    header = _at(file, 0, 12)
    waves = wave_data(file, size) if header[8:12] == b"WAVE" else None
    if waves and waves.said is None:
        file = _completed(file, size, waves.begin, header[:4])
    # of these libsndfile takes whatever follows for samples
    end = wave64_end(file, size) if header[:4] == b"riff" else sphere_end(file) if header[:4] == b"NIST" else None
    said = caf_frames(file, size) if header[:4] == b"caff" else None
    try:
        found = soundfile.SoundFile(Nameless(file, size if end is None else min(end, size)))
    except (soundfile.SoundFileError, RuntimeError, TypeError):
        return None

    def blocks() -> Iterator[Floats]:
        count = 0
        with found:
            while True:
                try:
                    block = found.read(_BLOCK, dtype="float32", always_2d=True)
                except (soundfile.SoundFileError, RuntimeError) as error:
                    raise ValueError(str(error)) from None
                count += len(block)
                if len(block):
                    yield block
                if len(block) < _BLOCK:
                    break
            # some decoders give what they could and report nothing
            due = max(found.frames, said or 0)
            if count < due:
                raise ValueError(f"{count} of {due} samples could be read")

    counted = found.subtype.startswith("PCM") or found.subtype in ("FLOAT", "DOUBLE", "ULAW", "ALAW")
    return _Stream(found.samplerate, found.channels, blocks(), found.frames if counted else None)


def _completed(file: BinaryIO, size: int, begin: int, kind: bytes) -> BinaryIO:
    """A WAV file of a recorder that did not know how long it would record, as if it had known."""
    if size > _LARGEST:
        raise ValueError("its header does not say how long it is, and it is too large to find out; write it anew")
    content = bytearray(_at(file, 0, size))
    order: Literal["big", "little"] = "big" if kind == b"RIFX" else "little"
    content[:8] = (kind if kind == b"RIFX" else b"RIFF") + (size - 8).to_bytes(4, order)
    content[begin - 4 : begin] = (size - begin).to_bytes(4, order)
    place = content.find(b"ds64", 12, begin)
    if place >= 0 and kind not in (b"RIFF", b"RIFX"):
        content[place : place + 4] = b"JUNK"
    return BytesIO(content)


def _mpeg(path: Path, file: BinaryIO, begin: int, end: int, seconds: float) -> Iterator[_Stream]:
    # no stream takes more than 56 KB a second
    content = _at(file, begin, math.ceil(min(seconds * 60_000 + (1 << 20), end - begin)))
    found = mpeg.frames(content, begin + len(content) >= end, seconds)
    if found is None:
        raise ValueError("its content is no MPEG audio, though it says so")
    if found:
        with demuxed(path, BytesIO(found), ("mp3",)) as container:
            yield _checked(path, _by_pyav(path, container), None)


def _by_pyav(path: Path, container: Any) -> _Stream:
    """By FFmpeg. Raises `DataError` if there is no sound in the file."""
    streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if not streams:
        raise DataError(f"{path}: holds no sound that can be decoded")
    stream = next((one for one in streams if one.disposition & one.disposition.default), streams[0])
    # in another container it may be a part of the recording that its header is of
    said = _flac_length(stream.codec_context.extradata) if container.format.name == "flac" else None
    if stream.codec_context.name == "flac":
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
    stream.thread_type = "NONE"  # with more, FFmpeg loses which frames were damaged
    frames = _frames(container, stream)
    # what the container says of rate and channels need not be what its decoder makes
    first = next(frames, None)
    if first is None:
        return _Stream(stream.rate or 1, stream.channels or 1, iter(()))
    rate, channels = first.sample_rate, first.layout.nb_channels

    def blocks() -> Iterator[Floats]:
        count = 0
        for frame in chain([first], frames):
            if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                raise ValueError(
                    f"it changes from {channels} channels at {rate} Hz to {frame.layout.nb_channels} at "
                    f"{frame.sample_rate} Hz; split it"
                )
            count += frame.samples
            yield _floats(frame)
        if said and count < said:
            raise ValueError(f"{count} of {said} samples could be read")

    return _Stream(rate, channels, blocks())


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """The frames of a stream. Raises `ValueError` where they cannot be decoded."""
    import av

    seconds = 0.0
    # broadcasts are recorded from some moment on: what belongs to something before it is no damage
    leading = _LEADING if container.format.name in ("mpegts", "mpeg") else 0
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                leading -= 1
                if seconds or leading < 0:
                    raise
                continue
            for frame in frames:
                if frame.is_corrupt:
                    raise ValueError(f"what follows {seconds:.2f} s cannot be decoded")
                seconds += frame.samples / max(1, frame.sample_rate)
                yield frame
    except (av.FFmpegError, ArithmeticError, UnicodeError) as error:
        raise ValueError(f"after {seconds:.2f} s: {told(error)}") from None


def _flac_length(information: bytes | None) -> int | None:
    """Samples by a FLAC stream's own header; None where it does not know, or has forgotten."""
    if not information or len(information) < 18:
        return None
    said = int.from_bytes(information[13:18], "big") & (2**36 - 1)
    return said if 0 < said < 2**36 - 1 else None


def _floats(frame: Any) -> Floats:
    """Samples of an audio frame, `[T, C]`."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    scale = _FULL_SCALE.get(frame.format.packed.name)
    if scale is None:
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused as such
            return np.asarray(values, np.float32)
    return np.asarray((values - (128.0 if values.dtype == np.uint8 else 0)) / scale, np.float32)
