"""How sure a figure is: 95 % confidence intervals over items that are drawn independently.

| figure | interval |
| --- | --- |
| right or wrong | Wilson's score interval (1927; Brown, Cai and DasGupta, Statistical Science 16, 2001) |
| mean of numbers between two bounds | Wilson's for the effective number of items (`mean_interval`) |
| mean of numbers above or below a bound | score interval of a variance proportional to the distance from the bound |
| mean of numbers without bounds | Student's t |
| sum a / sum b | the same as a mean's, of linearised items (delta method) |
| one number overall | jackknife without one of 20 blocks (Shao and Tu, "The Jackknife and Bootstrap", 1995, 2.3) |

An interval is None where the items do not say: a single number, or equal numbers on a scale without an end. What these
intervals and the tests of `mio.core.evaluation.paired` hold is simulated by `benchmarks/intervals.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

Interval = tuple[float, float]
Numbers = npt.NDArray[np.float64]

LEVEL = 0.95
BLOCKS = 20
"""That a jackknife leaves out in turn."""
_EQUAL = 1e-12
"""Standard deviation, as a share of the numbers' size, below which they are equal."""
_Z = float(ndtri((1 + LEVEL) / 2))


def student(freedom: int) -> float:
    """Quantile of Student's t for a two-sided interval."""
    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def interval_of(values: Sequence[Any] | Numbers, least: float = 0.0, most: float = 1.0) -> Interval | None:
    """Of the mean of numbers, or, of pairs (a, b), of sum a / sum b.

    Args:
        values: a truth value, number or pair per item.
        least, most: what a number may be, inf allowed.
    """
    array = np.asarray(values, np.float64)
    if array.ndim == 2:
        return ratio_interval(array[:, 0], array[:, 1])
    return mean_interval(array, least, most)


def wilson(right: float, count: float, quantile: float = _Z) -> Interval:
    """Wilson's score interval of the share of `right` among `count` > 0 items."""
    share, spread = right / count, quantile**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    # at the ends the bound is exact, which rounding misses
    return (0.0 if right <= 0 else max(0.0, middle - half)), (1.0 if right >= count else min(1.0, middle + half))


def mean_interval(values: Sequence[float] | Numbers, least: float = 0.0, most: float = 1.0) -> Interval | None:
    """Of the mean of numbers `[n]`.

    Student's interval leaves the scale, and near its ends holds the truth too rarely (0.92 of the time for marks with a
    mean of 0.967 at n = 200). Between two bounds this one is Wilson's for n / d items instead, where d (the design
    effect of Kish, "Survey Sampling", 1965) is the numbers' variance over the greatest that their mean allows: 1 for
    right or wrong, less for marks between; with Student's quantile, as d is estimated. Far from the ends it is
    Student's. Equal numbers say nothing of their variance: d is 1 then.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        return None
    if (least, most) == (0, 1) and ((values == 0) | (values == 1)).all():
        return wilson(float(values.sum()), len(values))
    return _interval(float(values.mean()), _variance(values), len(values), least, most)


def ratio_interval(numerators: Sequence[float] | Numbers, denominators: Sequence[float] | Numbers) -> Interval | None:
    """Of sum a / sum b, both at least 0, over items (a, b), such as errors and words: words of one item are not
    independent.

    Where no item has an error, the upper end is what Wilson's says of the share of items that have one, as if these
    were wrong throughout.
    """
    numerators, denominators = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if not denominators.sum() > 0:
        return None
    ratio, linear = linearised(numerators, denominators)
    variance = _variance(linear)
    if not variance and ratio <= 1:
        return wilson(ratio * len(linear), len(linear))
    return _interval(ratio, variance, len(linear), 0.0, math.inf)


def linearised(numerators: Numbers, denominators: Numbers) -> tuple[float, Numbers]:
    """sum a / sum b, and numbers `[n]` of which it is the mean and whose standard error is its own (delta method)."""
    ratio = float(numerators.sum() / denominators.sum())
    return ratio, ratio + (numerators - ratio * denominators) / denominators.mean()


def _variance(values: Numbers) -> float:
    """Of the population that n > 1 numbers were drawn from; 0 where they are equal."""
    if len(values) < 2:
        return 0.0
    deviation = float(values.std(ddof=1))
    return deviation**2 if deviation > _EQUAL * float(np.abs(values).max()) else 0.0


def _interval(mean: float, variance: float, count: int, least: float, most: float) -> Interval | None:
    """Of a mean of `count` numbers of a variance: all |mean - mu| <= t sqrt(variance at mu / count)."""
    least, most = (least if mean >= least else -math.inf), (most if mean <= most else math.inf)
    if math.isfinite(most - least):
        return _between(mean, variance, count, least, most)
    if not variance:
        return None
    error = student(count - 1) ** 2 * variance / count
    bound = least if math.isfinite(least) else most
    distance = abs(mean - bound)
    if not math.isfinite(bound):
        return mean - math.sqrt(error), mean + math.sqrt(error)
    spread = error / distance  # variance at mu: variance * |mu - bound| / distance
    half = math.sqrt(error + spread**2 / 4)
    low, high = max(0.0, distance + spread / 2 - half), distance + spread / 2 + half
    return (bound + low, bound + high) if bound == least else (bound - high, bound - low)


def _between(mean: float, variance: float, count: int, least: float, most: float) -> Interval:
    width = most - least
    share = (mean - least) / width if width else 0.0
    if variance and 0 < share < 1:
        effective = count * share * (1 - share) * width**2 / variance
        low, high = wilson(share * effective, effective, student(count - 1))
    else:
        low, high = wilson(share * count, count)
    return least + width * low, least + width * high


def replicates(count: int, figure: Callable[[Sequence[int]], float]) -> Numbers:
    """A figure over all items but one of 20 blocks, for each: `[20]`, or `[count]` for fewer items; none of one item.

    Blocks are drawn at random, by the number of items alone: the figures of two runs over the same items are paired.

    Args:
        figure: of the items of these numbers, which are in order.
    """
    if count < 2:
        return np.empty(0)
    drawn = np.random.default_rng(0).permutation(count)
    return np.array([
        figure(np.setdiff1d(np.arange(count), block).tolist()) for block in np.array_split(drawn, min(BLOCKS, count))
    ])  # fmt: skip


def jackknife(whole: float, without: Numbers, least: float = -math.inf, most: float = math.inf) -> Interval | None:
    """Of one figure over all items, from its `replicates`, within what it may be.

    It is for figures that change smoothly with their items, and does not correct what a figure is biased by at this
    number of items (as FID is).
    """
    error = jackknife_error(without)
    if not error:
        return None
    half = student(len(without) - 1) * error
    return float(max(least, whole - half)), float(min(most, whole + half))


def jackknife_error(without: Numbers) -> float:
    """Standard error of the figure that these are `replicates` of; 0 where they do not say."""
    if len(without) < 2:
        return 0.0
    return math.sqrt(_variance(without) * (len(without) - 1) ** 2 / len(without))
