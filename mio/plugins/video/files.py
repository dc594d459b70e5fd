"""A few frames of a video file, evenly spaced or one per scene, read in one pass and bounded memory."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from mio import DataError, MemoryFile
from mio.plugins.video.decoding import SUFFIXES, Decoding
from mio.plugins.video.sampling import Picture, Timeline, by_rate, evenly, evenly_in_time, fill
from mio.plugins.video.scenes import SIDE, Scenes

__all__ = ["SUFFIXES", "read"]

_KEPT = 64
"""Fewest frames, and scenes, kept while reading; twice the wanted number if that is more."""


def read(
    path: Path | MemoryFile,
    *,
    frames: int = 8,
    max_side: int = 512,
    fewest: int = 1,
    scenes: bool = False,
    rate: float = 0.0,
) -> list[Picture]:
    """At most `frames` frames of a video file in order: uint8 `[H, W, 3]`, longer side at most `max_side`.

    They look as in a player: rotated and mirrored as the file says, with square pixels, transparency on white. They are
    those nearest to evenly spaced times, first and last included. With `scenes` they are the middle frames of its
    scenes: of evenly chosen ones if there are more than `frames`, filled up with evenly spaced frames if there are
    fewer than `fewest`. With `rate`, so many of each second, see `sampling.by_rate`. Sound is not read.

    A file is decoded once, in order. After the first minutes of a long one (see `decoding.DENSE_PIXELS`) only key
    frames are decoded, unless they are too far apart. Raises `DataError` for a file that is damaged, holds no picture,
    is not a video, or takes too long to decode.
    """
    import av

    try:
        return _chosen(path, frames, max_side, fewest, scenes, rate)
    # from frames that cannot be converted
    except (av.FFmpegError, ValueError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _chosen(
    path: Path | MemoryFile, frames: int, max_side: int, fewest: int, scenes: bool, rate: float
) -> list[Picture]:
    decoding = Decoding(path)
    timeline, middles = _sample(decoding, frames, max_side, scenes)
    if decoding.skipped and max(timeline.widest, decoding.end - timeline.times[-1]) > decoding.end / frames:
        timeline, middles = _sample(Decoding(path, keys=False), frames, max_side, scenes)
    if not timeline.times:
        raise DataError(f"{path}: holds no frame that can be decoded")
    if rate:
        return [timeline.pictures[index] for index in by_rate(timeline.times, rate, fewest, frames)]
    if middles is None:
        return [timeline.pictures[index] for index in evenly_in_time(timeline.times, frames)]
    chosen = {middles.times[index]: middles.pictures[index] for index in evenly(len(middles.times), frames)}
    for index in fill(list(chosen), timeline.times, min(fewest, frames)):
        chosen[timeline.times[index]] = timeline.pictures[index]
    return [chosen[time] for time in sorted(chosen)]


def _sample(decoding: Decoding, frames: int, max_side: int, scenes: bool) -> tuple[Timeline, Scenes | None]:
    timeline = Timeline(max(_KEPT, 2 * frames))
    scene_frames = Scenes(max(_KEPT, 2 * frames)) if scenes else None
    last = None
    for last in decoding:
        time, frame = last
        picture = partial(decoding.display.picture, frame, max_side)
        timeline.offer(time, picture)
        if scene_frames:
            scene_frames.offer(time, np.ascontiguousarray(decoding.display.picture(frame, SIDE)[..., ::-1]), picture)
    if last:
        timeline.offer(last[0], partial(decoding.display.picture, last[1], max_side), last=True)
    if scene_frames:
        scene_frames.close()
    return timeline, scene_frames
