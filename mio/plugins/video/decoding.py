"""Frames of a video file in order, decoded by PyAV within a budget of pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mio import DataError, MemoryFile, media
from mio.plugins.video.display import Display, tag_of

FORMATS = (
    *("mov", "matroska", "avi", "gif", "apng", "mpegts", "flv", "asf", "mpeg", "mpegvideo", "ogg", "mxf", "dv", "ivf"),
    "nut",
)
"""FFmpeg's containers that are read, recognised by content. None of them names other files to read, as playlists do."""

SUFFIXES = (
    *(".mp4", ".mov", ".avi", ".webm", ".mkv", ".gif", ".m4v", ".3gp", ".3g2", ".qt", ".ts", ".mts", ".m2ts", ".flv"),
    *(".f4v", ".wmv", ".asf", ".mpg", ".mpeg", ".mpe", ".m2v", ".vob", ".ogv", ".ogm", ".mxf", ".dv", ".apng", ".divx"),
)
"""Endings of files that count as videos by default."""

MAX_PIXELS = 36_000_000
"""Largest width times height of a frame: a little more than 8K."""

DENSE_PIXELS = 4_000_000_000
"""Pixels of a file that are decoded frame by frame: two minutes of 1280 x 720 at 30 frames per second. Key frames alone
follow; after each further budget of this size their distance doubles."""

MOST_PIXELS = 40_000_000_000
"""Most pixels decoded per file: a minute or two of work."""

_FRAME_PIXELS = 20_000
"""Fewest pixels that a frame counts, since small ones cost time too."""


class Decoding:
    """The frames of the video stream of `path`: iterating gives pairs of ascending seconds and frame.

    Args:
        path: a file of one of `FORMATS`, or an animated WebP.
        keys: whether only key frames are read once `DENSE_PIXELS` are decoded.
    """

    def __init__(self, path: Path | MemoryFile, keys: bool = True) -> None:
        self.path = path
        self.keys = keys
        self.display = Display()
        """How its frames are shown; known from the first frame on."""
        self.skipped = False
        """Whether frames were left out."""
        self.end = 0.0
        """Seconds of the last packet of the stream, read or not."""

    def __iter__(self) -> Iterator[tuple[float, Any]]:
        """Raises `DataError` for a file that is damaged, holds no picture, is not a video, or takes too long."""
        import av

        path, count = self.path, 0
        try:
            for pair in self._pictures() if _is_webp(path) else self._read():
                count += 1
                yield pair
        except (av.FFmpegError, ArithmeticError, UnicodeError, ValueError) as error:
            where = f"after {count} frames" if count else "at its start"
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{path}: damaged video {where}: {reason}") from error

    def _read(self) -> Iterator[tuple[float, Any]]:
        # `max_pixels` is FFmpeg's own guard, before a frame is allocated
        with media.container(self.path, FORMATS, {"max_pixels": str(MAX_PIXELS)}) as container:
            yield from self._frames(container)

    def _frames(self, container: Any) -> Iterator[tuple[float, Any]]:
        stream = _chosen(container.streams.video)
        if stream is None:
            raise DataError(f"{self.path}: holds no video stream")
        if stream.codec_context is None:
            raise DataError(f"{self.path}: its video stream is of an unknown codec")
        self._check(stream.width, stream.height)
        # with more threads FFmpeg forgets which frames were damaged; data workers run in parallel anyway
        stream.thread_type = "NONE"
        decoder = _decoder(stream)
        decoder.options = {"max_pixels": str(MAX_PIXELS)}
        self.display = Display.of(stream)
        step = float(1 / (stream.average_rate or 25))
        decoded, time = 0, -math.inf
        for packet in container.demux(stream):
            if packet.pts is not None:
                self.end = max(self.end, float(packet.pts * packet.time_base))
            if self.keys and decoded >= DENSE_PIXELS and packet.size:
                decoder.skip_frame = "NONKEY"
                distance = 2.0 ** (decoded // DENSE_PIXELS - 1)
                if not packet.is_keyframe or self._near(packet, time, distance):
                    self.skipped = True
                    continue
            # the last packet is empty but needed: it has the time base of the remaining frames
            for frame in decoder.decode(packet):
                self._check(frame.width, frame.height)
                # the decoder marks frames with concealed gaps; between key frames alone there always are some
                if frame.is_corrupt and not self.skipped:
                    raise ValueError("what follows cannot be decoded")
                decoded += max(frame.width * frame.height, _FRAME_PIXELS)
                if decoded > MOST_PIXELS:
                    raise DataError(
                        f"{self.path}: takes too long to decode (more than {MOST_PIXELS:,} pixels); cut it into "
                        "shorter videos, or encode it with a key frame every few seconds"
                    )
                # frames come in display order; a time that contradicts it is damaged
                if frame.time is not None and frame.time > time:
                    time = frame.time
                else:
                    time = max(time, -step) + step
                yield time, frame

    def _pictures(self) -> Iterator[tuple[float, Any]]:
        """Frames of an animated WebP file, which FFmpeg cannot read."""
        import av
        from PIL import Image

        with media.opened(self.path) as (file, _):
            try:
                image = Image.open(file, formats=("WEBP",))
                self._check(*image.size)
                time = 0.0
                for number in range(getattr(image, "n_frames", 1)):
                    if (number + 1) * image.width * image.height > MOST_PIXELS:
                        raise DataError(f"{self.path}: takes too long to decode; cut it into shorter videos")
                    image.seek(number)
                    frame = av.VideoFrame.from_ndarray(np.asarray(image.convert("RGBA")), format="rgba")
                    yield time, frame
                    time += max(image.info.get("duration", 0), 1) / 1000
            except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
                raise ValueError(str(error)) from None

    def _near(self, packet: Any, time: float, distance: float) -> bool:
        return packet.pts is not None and 0 <= float(packet.pts * packet.time_base) - time < distance

    def _check(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            raise DataError(f"{self.path}: {width} x {height} pixels are too many (at most {MAX_PIXELS:,})")


def _is_webp(path: Path | MemoryFile) -> bool:
    with media.opened(path) as (file, _):
        head = file.read(12)
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"


def _chosen(streams: Sequence[Any]) -> Any:
    """The video stream that a player shows: not a cover or thumbnails, the one marked as default or else the first."""
    from av.stream import Disposition

    pictures = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    moving = [stream for stream in streams if not stream.disposition & pictures]
    known = [stream for stream in moving if stream.codec_context is not None] or moving
    marked = [stream for stream in known if stream.disposition & Disposition.default]
    return next(iter(marked or known), None)


def _decoder(stream: Any) -> Any:
    """The decoder of a stream. For VP8 and VP9, only libvpx decodes transparency."""
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name, "")
    if name and tag_of(stream, "alpha_mode") == "1":
        from av.codec import CodecContext

        decoder = CodecContext.create(name, "r")
        decoder.extradata = stream.codec_context.extradata
        return decoder
    return stream.codec_context
