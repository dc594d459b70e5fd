"""Sound files as streams that are decoded block by block: by libsndfile, or by FFmpeg through PyAV.

Shapes: T samples, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from mio.core.contract.values import File
from mio.core.errors import DataError
from mio.media import mpeg
from mio.media.containers import Nameless, demuxed, ffmpeg_reason
from mio.media.flac import flac_length
from mio.media.structure import UNENDED, caf_frames, missing, pages, sphere_end, wave64_end, wave_data

Floats = npt.NDArray[np.float32]

MAX_CHANNELS = 8
"""Most channels that are decoded: with the duration they bound a file's memory."""
MAX_RATE = 768_000
"""Most samples per second that are decoded, for the same reason."""
FORMATS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "asf", "aac", "amr", "amrnb", "amrwb", "flac"),
    *("ogg", "wav", "aiff", "au", "caf", "w64", "avi", "flv", "mpegts", "mpeg", "ac3", "eac3", "wv", "tta", "ape"),
)
"""FFmpeg's formats, for files that libsndfile does not read. MP3 is recognised by `mpeg.py`."""

_LIBSNDFILE = (b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"dns.", b"riff", b"caff", b"NIST")
_CODECS = {b"\x01vorbis": "soundfile", b"OpusHead": "soundfile", b"\x7fFLAC": "soundfile"}
_COMPRESSED = ("OGG", "FLAC", "MPEG")
"""libsndfile's formats whose samples are not of one size."""
_MPEG_CODECS = (0x50, 0x55)
"""Of WAV files: MP2 and MP3."""
_LEADING = 8
"""Packets at the beginning of a broadcast that may depend on earlier ones."""
_BLOCK = 1 << 16
_LARGEST = 1 << 30
"""Largest file, in bytes, that is read into memory because its header lacks its length."""
_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}


@dataclass(frozen=True)
class Stream:
    """Sound that is being decoded."""

    rate: int
    channels: int
    blocks: Iterator[Floats]
    """`[T, C]`, in order. Raises `ValueError` for damage."""
    length: int | None = None
    """Samples, if the file has the bytes for them."""
    exact: bool = False
    """Whether decoding gives `length` samples, unless it finds damage."""


def streams(path: File, file: BinaryIO, size: int, seconds: float, count: bool) -> Iterator[Stream]:
    """The file's streams in order: one, except in chained Ogg files. All have the first one's rate and channels. To
    `count` samples, those of FLAC need not be decoded."""
    kind, begin, end = _kind(file, size)
    if count and (known := flac_length(file, size)):
        yield _checked(path, Stream(known.rate, known.channels, iter(()), known.samples, exact=True), None)
        return
    if kind != "ogg" and (gone := missing(file, size)):
        raise ValueError(gone)
    if kind == "mpeg":
        yield from _mpeg(path, file, begin, end, seconds)
        return
    parts = _links(file, size) if kind == "ogg" else [(0, size, kind)]
    first: Stream | None = None
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


def _checked(path: File, stream: Stream, first: Stream | None) -> Stream:
    if not 1 <= stream.channels <= MAX_CHANNELS:
        raise DataError(f"{path}: {stream.channels} channels are too many (at most {MAX_CHANNELS})")
    if not 1 <= stream.rate <= MAX_RATE:
        raise DataError(f"{path}: {stream.rate} samples per second are too many (at most {MAX_RATE})")
    if first and (stream.rate, stream.channels) != (first.rate, first.channels):
        raise DataError(
            f"{path}: is several recordings in a row, and they differ: {first.channels} channels at "
            f"{first.rate} Hz, then {stream.channels} at {stream.rate} Hz; split it"
        )
    return stream


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _kind(file: BinaryIO, size: int) -> tuple[str, int, int]:
    """The reader (`ogg`, `mpeg`, `soundfile` or `av`), and where the content begins and ends."""
    start = 0
    while tag := mpeg.id3_size(_at(file, start, 10)):
        start += tag
    head = _at(file, start, 1 << 17)
    if head[:4] == b"OggS":
        return "ogg", start, size
    if head[8:12] == b"WAVE" and (waves := wave_data(file, size)) and waves.codec in _MPEG_CODECS:
        return "mpeg", waves.begin, size if waves.length is None else waves.begin + waves.length
    if head[:4] in _LIBSNDFILE and head[8:11] != b"AVI":
        return "soundfile", start, size
    if head[4:8] in (b"ftyp", b"moov", b"mdat") or head[:4] in (b"fLaC", b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75"):
        return "av", start, size
    return ("mpeg" if mpeg.begin(head) is not None else "av"), start, size


def _links(file: BinaryIO, size: int) -> list[tuple[int, int, str]]:
    """Begin, end and decoder of each recording in an Ogg file."""
    links: list[tuple[int, int, str]] = []
    running: set[int] = set()
    for page in pages(file, size):
        if page.first and not running:
            decoder = next((name for begins, name in _CODECS.items() if page.content.startswith(begins)), "av")
            links.append((page.begin, page.end, decoder))
        elif links:
            begin, _, decoder = links[-1]
            # libsndfile does not expect a picture beside the sound
            links[-1] = (begin, page.end, "av" if page.first else decoder)
        if page.first:
            running.add(page.serial)
        if page.last:
            running.discard(page.serial)
    if running:
        raise ValueError(UNENDED)
    return links


def _by_libsndfile(file: BinaryIO, size: int) -> Stream | None:
    """Decoded by libsndfile; None if it does not know the format or the codec."""
    import soundfile

    header = _at(file, 0, 12)
    waves = wave_data(file, size) if header[8:12] == b"WAVE" else None
    if waves and waves.length is None:
        file = _completed(file, size, waves.begin, header[:4])
    # here libsndfile reads anything behind the samples as more samples
    end = wave64_end(file, size) if header[:4] == b"riff" else sphere_end(file) if header[:4] == b"NIST" else None
    promised = caf_frames(file, size) if header[:4] == b"caff" else None
    try:
        sound = soundfile.SoundFile(Nameless(file, size if end is None else min(end, size)))
    except (soundfile.SoundFileError, RuntimeError, TypeError):
        return None

    def blocks() -> Iterator[Floats]:
        count = 0
        with sound:
            while True:
                try:
                    block = sound.read(_BLOCK, dtype="float32", always_2d=True)
                except (soundfile.SoundFileError, RuntimeError) as error:
                    raise ValueError(str(error)) from None
                count += len(block)
                if len(block):
                    yield block
                if len(block) < _BLOCK:
                    break
            # some decoders return what they could and report no error
            due = max(sound.frames, promised or 0)
            if count < due:
                raise ValueError(f"{count} of {due} samples could be read")

    counted = sound.subtype.startswith("PCM") or sound.subtype in ("FLOAT", "DOUBLE", "ULAW", "ALAW")
    exact = counted and sound.format not in _COMPRESSED
    return Stream(sound.samplerate, sound.channels, blocks(), sound.frames if counted else None, exact)


def _completed(file: BinaryIO, size: int, begin: int, kind: bytes) -> BinaryIO:
    """A WAV file whose recorder left its length open, with the length filled in."""
    if size > _LARGEST:
        raise ValueError("its header lacks its length, and it is too large to find out; write it again")
    content = bytearray(_at(file, 0, size))
    order: Literal["big", "little"] = "big" if kind == b"RIFX" else "little"
    content[:8] = (kind if kind == b"RIFX" else b"RIFF") + (size - 8).to_bytes(4, order)
    content[begin - 4 : begin] = (size - begin).to_bytes(4, order)
    place = content.find(b"ds64", 12, begin)
    if place >= 0 and kind not in (b"RIFF", b"RIFX"):
        content[place : place + 4] = b"JUNK"
    return BytesIO(content)


def _mpeg(path: File, file: BinaryIO, begin: int, end: int, seconds: float) -> Iterator[Stream]:
    # no stream takes more than 56 KB a second
    content = _at(file, begin, math.ceil(min(seconds * 60_000 + (1 << 20), end - begin)))
    frames = mpeg.frames(content, begin + len(content) >= end, seconds)
    if frames is None:
        raise ValueError("its header says MPEG audio, but its content is not")
    if frames:
        with demuxed(path, BytesIO(frames), ("mp3",)) as container:
            yield _checked(path, _by_pyav(path, container), None)


def _by_pyav(path: File, container: Any) -> Stream:
    """Decoded by FFmpeg. Raises `DataError` if there is no sound in the file."""
    streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if not streams:
        raise DataError(f"{path}: holds no sound that can be decoded")
    stream = next((one for one in streams if one.disposition & one.disposition.default), streams[0])
    # in other containers the header may describe more than the file holds
    promised = _flac_length(stream.codec_context.extradata) if container.format.name == "flac" else None
    if stream.codec_context.name == "flac":
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
    stream.thread_type = "NONE"  # with more, FFmpeg loses which frames were damaged
    frames = _frames(container, stream)
    # the decoder may give another rate and other channels than the container says
    first = next(frames, None)
    if first is None:
        return Stream(stream.rate or 1, stream.channels or 1, iter(()))
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
        if promised and count < promised:
            raise ValueError(f"{count} of {promised} samples could be read")

    return Stream(rate, channels, blocks())


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """The frames of a stream. Raises `ValueError` where they cannot be decoded."""
    import av

    seconds = 0.0
    # broadcasts are recorded from some moment on: packets that depend on earlier ones are not damage
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
        raise ValueError(f"after {seconds:.2f} s: {ffmpeg_reason(error)}") from None


def _flac_length(information: bytes | None) -> int | None:
    """Samples by a FLAC stream's own header; None if it lacks them."""
    if not information or len(information) < 18:
        return None
    length = int.from_bytes(information[13:18], "big") & (2**36 - 1)
    return length if 0 < length < 2**36 - 1 else None


def _floats(frame: Any) -> Floats:
    """Samples of an audio frame, `[T, C]`."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    scale = _FULL_SCALE.get(frame.format.packed.name)
    if scale is None:
        with np.errstate(over="ignore", invalid="ignore"):  # infinities are refused later
            return np.asarray(values, np.float32)
    return np.asarray((values - (128.0 if values.dtype == np.uint8 else 0)) / scale, np.float32)
