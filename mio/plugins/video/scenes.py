"""One frame of each scene, found by PySceneDetect's content detector (https://www.scenedetect.com) while decoding."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from mio import UserError
from mio.plugins.video.sampling import Picture, Timeline, nearest

SIDE = 256
"""Longer side in pixels of the frames that are compared, about what PySceneDetect itself shrinks videos to."""

SHORTEST = 0.6
"""Shortest scene in seconds, PySceneDetect's default."""

_MIDDLE = 8
"""Frames kept of the current scene; the one nearest its middle is chosen."""


def detector() -> Any:
    """PySceneDetect's `ContentDetector` with its own threshold. Raises `UserError` where it is not installed.

    The mode `SUPPRESS` reports each cut at once, not after the frames that follow it.
    """
    try:
        from scenedetect.detector import FlashFilter
        from scenedetect.detectors import ContentDetector
    except ImportError as error:
        raise UserError(
            f"plugins.video: `frames: scenes` needs PySceneDetect ({error}); `pip install 'mio[video]'`"
        ) from error
    return ContentDetector(min_scene_len=SHORTEST, filter_mode=FlashFilter.Mode.SUPPRESS)


class Scenes:
    """The middle frames of at most `capacity` scenes.

    Every `stride`-th scene is kept; beyond `capacity`, every other one is dropped and the stride doubles.
    """

    def __init__(self, capacity: int) -> None:
        self.times: list[float] = []
        self.pictures: list[Picture] = []
        self._capacity = capacity
        self._detector = detector()
        self._count, self._stride = 0, 1
        self._scene = Timeline(_MIDDLE)
        self._end = 0.0

    def offer(self, time: float, small: Picture, picture: Callable[[], Picture]) -> None:
        """The next frame: seconds, the frame as BGR `[h, w, 3]` in the size to compare, and what makes the picture."""
        from scenedetect.common import FrameTimecode, Timecode

        moment = FrameTimecode(Timecode(round(time * 1_000_000), Fraction(1, 1_000_000)), fps=25.0)
        if self._detector.process_frame(moment, small):
            self.close()
        if self._count % self._stride == 0:
            self._scene.offer(time, picture)
        self._end = time

    def close(self) -> None:
        """Ends the current scene."""
        if self._scene.times:
            middle = nearest(self._scene.times, (self._scene.times[0] + self._end) / 2)
            self.times.append(self._scene.times[middle])
            self.pictures.append(self._scene.pictures[middle])
            if len(self.times) > self._capacity:
                self.times, self.pictures = self.times[::2], self.pictures[::2]
                self._stride *= 2
        self._count += 1
        self._scene = Timeline(_MIDDLE)
