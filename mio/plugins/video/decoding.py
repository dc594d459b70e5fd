"""Frames of a video file in order, decoded by PyAV within a budget of pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mio import DataError

FORMATS = {".mp4": "mp4", ".mov": "mov", ".avi": "avi", ".webm": "webm", ".mkv": "matroska", ".gif": "gif"}
"""FFmpeg's container by file name ending. It is never guessed from the content: a playlist could name other files."""

MAX_PIXELS = 36_000_000
"""Largest width times height of a frame that is decoded: a little more than 8K."""

DENSE_PIXELS = 4_000_000_000
"""Pixels of a file that are decoded frame by frame: two minutes of 1280 x 720 at 30 frames per second. Key frames alone
follow, and after each further budget of this size they are taken at twice the distance."""

MOST_PIXELS = 40_000_000_000
"""Pixels that are decoded of one file at most: a minute or two of work."""

_FRAME_PIXELS = 20_000
"""What a frame counts at least, since small ones cost time too."""


class Decoding:
    """The frames of the first video stream of `path`: iterating gives pairs of seconds, which ascend, and frame.

    Args:
        path: a file with one of the endings of `FORMATS`.
        keys: whether only key frames are read once `DENSE_PIXELS` are decoded.
    """

    def __init__(self, path: Path, keys: bool = True) -> None:
        self.path = path
        self.keys = keys
        self.skipped = False
        """Whether frames were left out."""
        self.end = 0.0
        """Seconds of the last packet of the stream, read or not."""

    def __iter__(self) -> Iterator[tuple[float, Any]]:
        """Raises `DataError` for a file that is damaged, holds no picture, is no video, or takes too long to decode."""
        import av

        path, count = self.path, 0
        if path.suffix.lower() not in FORMATS:
            raise DataError(f"{path}: not a video format that can be read ({', '.join(FORMATS)})")
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        try:
            # `max_pixels` is FFmpeg's own guard, before a frame is allocated
            with av.open(
                str(path),
                format=FORMATS[path.suffix.lower()],
                metadata_errors="replace",
                options={"max_pixels": str(MAX_PIXELS)},
            ) as container:
                for found in self._frames(container):
                    count += 1
                    yield found
        except (av.FFmpegError, ArithmeticError, UnicodeError, ValueError) as error:
            where = f"after {count} frames" if count else "at its start"
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{path}: damaged video {where}: {reason}") from error

    def _frames(self, container: Any) -> Iterator[tuple[float, Any]]:
        from av.stream import Disposition

        # the picture of an album is a video stream to FFmpeg
        streams = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
        if not streams:
            raise DataError(f"{self.path}: holds no video stream")
        stream = streams[0]
        if stream.codec_context is None:
            raise DataError(f"{self.path}: its video stream is of an unknown codec")
        self._check(stream.width, stream.height)
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        step = float(1 / (stream.average_rate or 25))
        decoded, time = 0, -step
        for packet in container.demux(stream):
            if packet.pts is not None:
                self.end = max(self.end, float(packet.pts * packet.time_base))
            if self.keys and decoded >= DENSE_PIXELS and packet.size:
                stream.codec_context.skip_frame = "NONKEY"
                distance = 2.0 ** (decoded // DENSE_PIXELS - 1)
                if not packet.is_keyframe or self._near(packet, time, distance):
                    self.skipped = True
                    continue
            for frame in packet.decode():
                self._check(frame.width, frame.height)
                decoded += max(frame.width * frame.height, _FRAME_PIXELS)
                if decoded > MOST_PIXELS:
                    raise DataError(
                        f"{self.path}: takes too long to decode (more than {MOST_PIXELS:,} pixels); cut it into "
                        "shorter videos, or encode it with a key frame every few seconds"
                    )
                # frames come in the order in which they are shown; a time that contradicts it is damaged
                time = frame.time if frame.time is not None and frame.time > time else time + step
                yield time, frame

    def _near(self, packet: Any, time: float, distance: float) -> bool:
        return packet.pts is not None and 0 <= float(packet.pts * packet.time_base) - time < distance

    def _check(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            raise DataError(f"{self.path}: {width} x {height} pixels are too many (at most {MAX_PIXELS:,})")
