"""Whether one model does better than another at the same items: differences, their 95 % intervals, and paired tests.

| figure | test | interval of the difference |
| --- | --- | --- |
| right or wrong | McNemar's (1947), not corrected for continuity | Tango's (Statistics in Medicine 17, 1998) |
| mean of numbers | Student's t of differences | Student's |
| sum a / sum b | the same, of linearised items (delta method) | the same |
| one number overall | the same, of a jackknife's replicates | the same |

Tango's score interval holds the differences that McNemar's test does not refuse. The exact test would give 1 to 4 % of
false alarms where 5 % are asked for, its mid-p version (Fagerland, Lydersen and Laake, BMC Medical Research Methodology
13:91, 2013) fewer than 4 % where fewer than ten items differ; this one gives 4 to 5.4 % from four such items on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtr

from mio.core.evaluation.statistics import LEVEL, Interval, Numbers, jackknife_error, linearised, student

_Z = float(ndtri((1 + LEVEL) / 2))


@dataclass(frozen=True)
class Difference:
    """Of a second model from a first one."""

    difference: float
    """The second one's figure less the first one's."""
    interval: Interval | None
    """None where the items do not say."""
    p: float
    """How probable a difference at least this large is between models that are equally good."""


def right_or_wrong(gained: int, lost: int, count: int) -> Difference:
    """Of shares of right answers to `count` > 0 items, of which the second model alone has `gained` right, the first
    alone `lost`."""
    differ = gained + lost
    p = 2 * float(ndtr(-abs(gained - lost) / math.sqrt(differ))) if differ else 1.0
    return Difference((gained - lost) / count, tango(gained, lost, count), p)


def tango(gained: int, lost: int, count: int) -> Interval:
    """Score interval of the difference of two paired shares."""
    found = (gained - lost) / count

    def score(difference: float) -> float:
        variance = _null_variance(gained, lost, count, difference)
        apart = gained - lost - count * difference
        return apart / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, apart) if apart else 0.0

    def end(limit: float) -> float:
        outside = math.copysign(_Z, limit)
        if found == limit:
            return limit
        return float(brentq(lambda d: max(-1e9, min(1e9, score(d))) + outside, found, limit, xtol=1e-12))

    return end(-1.0), end(1.0)


def _null_variance(gained: int, lost: int, count: int, difference: float) -> float:
    """Of gained - lost, where the difference of shares is this one: at the likeliest share of items that only the first
    model has right (Tango 1998, equations 5 and 6)."""
    a = 2 * count
    b = -gained - lost + (2 * count - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    return count * (2 * share + difference * (1 - difference))


def numbers(first: Numbers, second: Numbers, least: float = 0.0, most: float = 1.0) -> Difference:
    """Of means of numbers `[n]`; of right or wrong, as `right_or_wrong`."""
    if {least, most} == {0.0, 1.0} and np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all():
        return right_or_wrong(int((second > first).sum()), int((first > second).sum()), len(first))
    return _mean(second - first, most - least)


def ratios(first: Numbers, second: Numbers) -> Difference:
    """Of sums a / sums b, of pairs (a, b) `[n, 2]`."""
    of_first, own = linearised(first[:, 0], first[:, 1])
    of_second, others = linearised(second[:, 0], second[:, 1])
    differences = others - own
    # where no item differs, those that do elsewhere are taken to be wrong throughout (see `ratio_interval`)
    found = _mean(differences, math.inf if differences.any() else 1.0)
    return Difference(of_second - of_first, found.interval, found.p)


def _mean(differences: Numbers, width: float) -> Difference:
    """Of a mean of differences, which are at most `width`."""
    count, mean = len(differences), float(differences.mean())
    if not differences.any():  # as Tango's interval of shares that never differ
        most = _Z**2 / (count + _Z**2) * width
        return Difference(0.0, (-most, most) if math.isfinite(width) else None, 1.0)
    deviation = float(differences.std(ddof=1)) if count > 1 else 0.0
    if deviation <= 1e-12 * abs(mean):  # all differ alike, and of 2^n ways to exchange answers two do so
        return Difference(mean, None, min(1.0, 2.0 ** (1 - count)))
    return _student(mean, deviation / math.sqrt(count), count - 1, width)


def _student(difference: float, error: float, freedom: int, width: float) -> Difference:
    half = student(freedom) * error
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return Difference(difference, (max(-width, difference - half), min(width, difference + half)), p)


def overall(first: float, second: float, without_first: Numbers, without_second: Numbers, width: float) -> Difference:
    """Of figures over all items, by `replicates` of both without the same blocks of items."""
    difference = second - first
    error = jackknife_error(without_second - without_first)
    if not error:
        return Difference(difference, None, 1.0)
    return _student(difference, error, len(without_first) - 1, width)


def holm(probabilities: Sequence[float]) -> list[float]:
    """Each p as it counts among several tests, so that the chance of any false alarm stays what is asked for (Holm,
    Scandinavian Journal of Statistics 6, 1979)."""
    order = sorted(range(len(probabilities)), key=lambda place: probabilities[place])
    adjusted, so_far = [1.0] * len(order), 0.0
    for rank, place in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - rank) * probabilities[place]))
        adjusted[place] = so_far
    return adjusted
