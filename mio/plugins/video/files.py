"""Video files as a few frames at even distances, read in one pass and bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mio import DataError

FORMATS = {".mp4": "mp4", ".mov": "mov", ".avi": "avi", ".webm": "webm", ".mkv": "matroska", ".gif": "gif"}
"""FFmpeg's container by file name ending. It is never guessed from the content: a playlist could name other files."""

KEPT = 8
"""Frames kept while reading, at most, for each frame asked for."""

MAX_PIXELS = 64_000_000
"""Largest width times height of a frame that is decoded."""


def evenly(count: int, chosen: int) -> list[int]:
    """Indices of at most `chosen` of `count` items at even distances, ascending, first and last included."""
    if count <= chosen:
        return list(range(count))
    if chosen == 1:
        return [count // 2]
    return [round(index * (count - 1) / (chosen - 1)) for index in range(chosen)]


def read(path: Path, *, frames: int = 8, max_side: int = 512) -> list[npt.NDArray[np.uint8]]:
    """At most `frames` frames of a video file at even distances: uint8 `[H, W, 3]`, longer side at most `max_side`.

    Containers often do not tell their number of frames. So every `stride`-th frame is kept, and when more than `KEPT`
    times as many as asked for are, every other one is let go and the stride doubles; short videos are sampled exactly,
    long ones to within a stride. Sound is not read. Raises `DataError` for a file that is damaged, holds no picture, or
    is no video.
    """
    import av

    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path}: not a video format that can be read ({', '.join(FORMATS)})")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    kept: list[npt.NDArray[np.uint8]] = []
    stride, count = 1, 0
    try:
        with av.open(str(path), format=FORMATS[path.suffix.lower()]) as container:
            if not container.streams.video:
                raise DataError(f"{path}: holds no video stream")
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                raise DataError(
                    f"{path}: {stream.width} x {stream.height} pixels are too many (at most {MAX_PIXELS:,})"
                )
            for frame in container.decode(stream):
                if count % stride == 0:
                    shrink = min(1.0, max_side / max(frame.width, frame.height))
                    width, height = max(1, round(frame.width * shrink)), max(1, round(frame.height * shrink))
                    kept.append(np.asarray(frame.to_ndarray(width=width, height=height, format="rgb24"), np.uint8))
                    if len(kept) > KEPT * frames:
                        kept = kept[::2]
                        stride *= 2
                count += 1
    except av.FFmpegError as error:
        where = f"after {count} frames" if count else "at its start"
        raise DataError(f"{path}: damaged video {where}: {error.strerror}") from error
    if not kept:
        raise DataError(f"{path}: holds no frame that can be decoded")
    return [kept[index] for index in evenly(len(kept), frames)]
