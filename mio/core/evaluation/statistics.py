"""Intervals of figures: between which bounds the figure of endlessly many such items lies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

Interval = tuple[float, float]
"""Lower and upper bound, of 95 %."""

_Z = float(stats.norm.ppf(0.975))
_BLOCKS = 20


def wilson(right: int, count: int) -> Interval:
    """Wilson's score interval of a proportion (doi:10.1080/01621459.1927.10502953)."""
    share, spread = right / count, _Z * _Z / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(values: Sequence[float], least: float = -math.inf, most: float = math.inf) -> Interval | None:
    """Student's t interval of a mean, inside the bounds of a value. None of fewer than two values."""
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(stats.sem(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return max(least, mean - half), min(most, mean + half)


def ratio_interval(numerators: Sequence[float], denominators: Sequence[float]) -> Interval | None:
    """Interval of the ratio of two sums over the same items, by the delta method. None of fewer than two items."""
    count, total = len(numerators), float(np.sum(denominators))
    if count < 2 or not total:
        return None
    ratio = float(np.sum(numerators)) / total
    rests = np.asarray(numerators) - ratio * np.asarray(denominators)
    half = float(stats.t.ppf(0.975, count - 1)) * math.sqrt(count / (count - 1) * float(np.sum(rests**2))) / total
    return max(0.0, ratio - half), ratio + half


def jackknife(count: int, figure: Callable[[Sequence[int]], float]) -> Interval | None:
    """Interval of `figure(items)`, of which blocks of items are left out in turn. None of fewer than two items."""
    blocks = min(_BLOCKS, count)
    if blocks < 2:
        return None
    whole = figure(range(count))
    parts = [figure([item for item in range(count) if item % blocks != block]) for block in range(blocks)]
    error = math.sqrt((blocks - 1) / blocks * sum((part - sum(parts) / blocks) ** 2 for part in parts))
    half = float(stats.t.ppf(0.975, blocks - 1)) * error
    return whole - half, whole + half
