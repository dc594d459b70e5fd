"""Choice of a video's frames by time, not by number, so that a variable frame rate does not matter."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


def evenly(count: int, chosen: int) -> list[int]:
    """Indices of at most `chosen` of `count` items at even distances, ascending, first and last included."""
    if count <= chosen:
        return list(range(count))
    if chosen == 1:
        return [count // 2]
    return [round(index * (count - 1) / (chosen - 1)) for index in range(chosen)]


def nearest(times: Sequence[float], time: float) -> int:
    """Index of the ascending `times` that is nearest to `time`; of two as near, the earlier."""
    after = bisect_left(times, time)
    if after == 0:
        return 0
    if after == len(times) or time - times[after - 1] <= times[after] - time:
        return after - 1
    return after


def evenly_in_time(times: Sequence[float], chosen: int) -> list[int]:
    """Indices of at most `chosen` of the ascending `times`, each near one of so many points at even distances.

    All differ, and they ascend; first and last are included where more than one is chosen.
    """
    count = len(times)
    if count <= chosen:
        return list(range(count))
    if chosen == 1:
        return [nearest(times, (times[0] + times[-1]) / 2)]
    return _nearest_of_all(times, [(times[-1] - times[0]) * number / (chosen - 1) for number in range(chosen)])


def by_rate(times: Sequence[float], rate: float, fewest: int, most: int) -> list[int]:
    """Indices of the ascending `times` that are `rate` of every second, from the first on: `fewest` at even distances
    of a short stretch, and `most` of them at even distances of a long one (`_get_rawvideo_dec` of
    github.com/VITA-MLLM/VITA, which repeats frames of a short stretch)."""
    # the tiny addition keeps 2.9999 s at 3 frames of 1 a second
    count = int((times[-1] - times[0]) * rate + 1e-3) + 1
    if count < fewest or len(times) <= fewest:
        return evenly_in_time(times, fewest)
    chosen = min(count, most, len(times))
    end = (count - 1) / rate
    return _nearest_of_all(times, [end * number / max(1, chosen - 1) for number in range(chosen)])


def _nearest_of_all(times: Sequence[float], wanted: Sequence[float]) -> list[int]:
    """Indices near so many ascending points, counted from the first of `times`; all differ, and they ascend."""
    indices: list[int] = []
    for number, point in enumerate(wanted):
        first = indices[-1] + 1 if indices else 0
        indices.append(min(max(nearest(times, times[0] + point), first), len(times) - len(wanted) + number))
    return indices


def fill(taken: Sequence[float], times: Sequence[float], wanted: int) -> list[int]:
    """Indices of `times` that bring `taken` to `wanted`, each the farthest from all before it."""
    there, added = list(taken), []
    for _ in range(min(wanted - len(taken), len(times))):
        distances = [min((abs(time - other) for other in there), default=1.0) for time in times]
        farthest = max(range(len(times)), key=distances.__getitem__)
        if not distances[farthest]:
            break
        added.append(farthest)
        there.append(times[farthest])
    return sorted(added)


class Timeline:
    """At most `capacity` about evenly spaced pictures of a stream of unknown length.

    A picture is kept if it comes at least `gap` seconds after the one before. When there are too many, `gap` becomes
    twice their mean distance, and pictures that are too near are dropped.
    """

    def __init__(self, capacity: int) -> None:
        self.times: list[float] = []
        self.pictures: list[Picture] = []
        self._capacity = max(3, capacity)
        self._gap = 0.0

    def offer(self, time: float, picture: Callable[[], Picture], last: bool = False) -> None:
        """Keeps the result of `picture` if it is wanted, and always if it is the `last`. `time` ascends."""
        if self.times and (time <= self.times[-1] or (not last and time - self.times[-1] < self._gap)):
            return
        self.times.append(time)
        self.pictures.append(picture())
        if len(self.times) > self._capacity:
            self._thin()

    def _thin(self) -> None:
        # a little less than twice, so that rounding does not drop pictures that are just far enough
        self._gap = (2 - 1e-6) * (self.times[-1] - self.times[0]) / (len(self.times) - 1)
        kept: list[int] = []
        for index, time in enumerate(self.times):
            if not kept or time - self.times[kept[-1]] >= self._gap:
                kept.append(index)
        self.times = [self.times[index] for index in kept]
        self.pictures = [self.pictures[index] for index in kept]

    @property
    def widest(self) -> float:
        """Longest time between two neighbours in seconds."""
        return max((b - a for a, b in pairwise(self.times)), default=0.0)
