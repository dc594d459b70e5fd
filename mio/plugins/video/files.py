"""Video files as a few frames, at even distances or one of each scene, read in one pass and bounded memory."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from mio import DataError
from mio.plugins.video.decoding import SUFFIXES, Decoding
from mio.plugins.video.sampling import Picture, Timeline, evenly, evenly_in_time, fill
from mio.plugins.video.scenes import SIDE, Scenes

__all__ = ["SUFFIXES", "read"]

_KEPT = 64
"""Frames kept while reading, and as many of scenes, at least; twice as many as are asked for if that is more."""


def read(path: Path, *, frames: int = 8, max_side: int = 512, fewest: int = 1, scenes: bool = False) -> list[Picture]:
    """At most `frames` frames of a video file in order: uint8 `[H, W, 3]`, longer side at most `max_side`.

    They are as a player shows them: turned or mirrored as the file says, of square pixels, white where transparent.
    They are those nearest to points at even distances in time, first and last included. With `scenes` they are the
    middle frames of its scenes: of even ones where there are more than `frames`, and with frames at even distances
    between them where there are fewer than `fewest`. Sound is not read.

    A file is decoded once, and in its order. Of a long one only key frames are, after the first minutes (see
    `decoding.DENSE_PIXELS`), unless they are too far apart. Raises `DataError` for a file that is damaged, holds no
    picture, is no video, or takes too long to decode.
    """
    import av

    try:
        return _chosen(path, frames, max_side, fewest, scenes)
    # of frames that were decoded and cannot be shown as they should
    except (av.FFmpegError, ValueError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _chosen(path: Path, frames: int, max_side: int, fewest: int, scenes: bool) -> list[Picture]:
    decoding = Decoding(path)
    timeline, found = _sample(decoding, frames, max_side, scenes)
    if decoding.skipped and max(timeline.widest, decoding.end - timeline.times[-1]) > decoding.end / frames:
        timeline, found = _sample(Decoding(path, keys=False), frames, max_side, scenes)
    if not timeline.times:
        raise DataError(f"{path}: holds no frame that can be decoded")
    if found is None:
        return [timeline.pictures[index] for index in evenly_in_time(timeline.times, frames)]
    chosen = {found.times[index]: found.pictures[index] for index in evenly(len(found.times), frames)}
    for index in fill(list(chosen), timeline.times, min(fewest, frames)):
        chosen[timeline.times[index]] = timeline.pictures[index]
    return [chosen[time] for time in sorted(chosen)]


def _sample(decoding: Decoding, frames: int, max_side: int, scenes: bool) -> tuple[Timeline, Scenes | None]:
    timeline = Timeline(max(_KEPT, 2 * frames))
    found = Scenes(max(_KEPT, 2 * frames)) if scenes else None
    last = None
    for last in decoding:
        time, frame = last
        picture = partial(decoding.display.picture, frame, max_side)
        timeline.offer(time, picture)
        if found:
            found.offer(time, np.ascontiguousarray(decoding.display.picture(frame, SIDE)[..., ::-1]), picture)
    if last:
        timeline.offer(last[0], partial(decoding.display.picture, last[1], max_side), last=True)
    if found:
        found.close()
    return timeline, found
