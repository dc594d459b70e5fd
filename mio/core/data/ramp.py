"""A mixture that changes within a stage: what is due to each group, in exact fractions. No torch.

Shares of groups go in straight lines from one point of the stage to the next. What is due to a group is the integral of
its share: a polynomial between two points, so it is known in closed form, for the future too. That is what keeps the
bounds of constant shares (see `mio.core.data.ramped_mixture`).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from fractions import Fraction

from mio.core.recipe.data_schema import MixtureConfig


class Ramp:
    """The integral of each group's share over a stage of `length` ticks, which are positions or rows.

    After the end the last shares go on.
    """

    def __init__(self, mixture: MixtureConfig, groups: Sequence[str], length: int) -> None:
        points = [(Fraction(str(point.at)) * length, _shares(point.ratios, groups)) for point in mixture.points()]
        due = [Fraction(0)] * len(groups)
        starts, pieces = [], []  # of each piece, and per group its due and share there and its slope
        for (start, first), (end, last) in zip(points, [*points[1:], (None, points[-1][1])], strict=True):
            slopes = [
                (b - a) / (end - start) if end and end > start else Fraction(0)
                for a, b in zip(first, last, strict=True)
            ]
            if end is None or end > start:
                starts.append(start)
                pieces.append(list(zip(due, first, slopes, strict=True)))
            if end is not None:
                due = [d + (a + b) / 2 * (end - start) for d, a, b in zip(due, first, last, strict=True)]
        coefficients = [
            [(d - p * x + q * x * x / 2, p - q * x, q / 2) for d, p, q in piece]
            for x, piece in zip(starts, pieces, strict=True)
        ]
        self.scale = math.lcm(*(c.denominator for piece in coefficients for three in piece for c in three))
        """What is due is counted in parts of this size, in whole numbers."""
        self._from = [math.ceil(start) for start in starts]
        self._polynomials = [[[int(c * self.scale) for c in three] for three in piece] for piece in coefficients]
        self._starts = [float(start) for start in starts]
        self._pieces = [[[float(value) for value in piece[group]] for piece in pieces] for group in range(len(groups))]
        self._dues = [[due for due, _, _ in own] for own in self._pieces]

    def dues(self, tick: int) -> list[int]:
        """What is due to each group by a tick, in ticks x `scale`."""
        polynomials = self._polynomials[bisect_right(self._from, tick) - 1]
        return [a + tick * (b + tick * c) for a, b, c in polynomials]

    def reach(self, group: int, due: float) -> float:
        """The tick at which that much is due to a group; infinite if it never is."""
        piece = bisect_left(self._dues[group], due) - 1
        if piece < 0:
            return due
        before, share, slope = self._pieces[group][piece]
        missing = due - before
        root = share + math.sqrt(max(0.0, share * share + 2 * slope * missing))
        return self._starts[piece] + 2 * missing / root if root else math.inf

    def first(self, group: int, due: int) -> float:
        """The first whole tick by which that much x `scale` is due to a group; infinite if it never is."""
        tick = self.reach(group, due / self.scale)
        if tick == math.inf:
            return tick
        tick = max(0, math.ceil(tick))  # a float may be off
        while tick and self.dues(tick - 1)[group] >= due:
            tick -= 1
        while self.dues(tick)[group] < due:
            tick += 1
        return tick


def _shares(ratios: Mapping[str, float], groups: Sequence[str]) -> list[Fraction]:
    # a float's shortest decimal is the ratio that a person wrote
    exact = [Fraction(str(ratios.get(group, 0))) for group in groups]
    return [ratio / sum(exact) for ratio in exact]


def mean_shares(mixture: MixtureConfig, groups: Sequence[str]) -> list[float]:
    """Share of each group over a whole stage."""
    ramp = Ramp(mixture, groups, 1)
    return [due / ramp.scale for due in ramp.dues(1)]
