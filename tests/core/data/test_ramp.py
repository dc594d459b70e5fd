"""What is due to groups whose shares change, beside sums over small steps and a whole ramp done by hand."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest

from mio.core.data.ramp import Ramp, mean_shares
from mio.core.recipe.data_schema import MixtureConfig, RampPoint


def made(*points):
    """Of (moment, ratios of groups `a`, `b`, ...), the first at 0."""
    named = [(at, dict(zip("abcdef", map(float, ratios), strict=False))) for at, ratios in points]
    return MixtureConfig(ratios=named[0][1], ramp=[RampPoint(at, ratios) for at, ratios in named[1:]])


def test_a_ramp_by_hand():
    """From 3:1 to 1:3 at half of 100 ticks; then 1:3."""
    ramp = Ramp(made((0, (3, 1)), (0.5, (1, 3))), "ab", 100)
    dues = [[Fraction(due, ramp.scale) for due in ramp.dues(tick)] for tick in (0, 25, 50, 100, 200)]
    first = [0, 25 * Fraction(5, 8), 25, 37.5, 62.5]  # the mean share of the first quarter is that at its middle
    assert dues == [[due, tick - due] for due, tick in zip(first, (0, 25, 50, 100, 200), strict=True)]
    assert mean_shares(made((0, (3, 1)), (0.5, (1, 3))), "ab") == [0.375, 0.625]


def test_only_the_ratios_of_one_point_count():
    """The scale of a point says nothing: shares move in straight lines, not ratios."""
    assert mean_shares(made((0, (1, 1)), (1, (100, 300))), "ab") == mean_shares(made((0, (7, 7)), (1, (1, 3))), "ab")


def test_a_point_names_what_changes():
    """Of a ramp that is written out, the beginning again and then one group's ratio."""
    whole = made((0, (2, 6, 0)), (0.5, (2, 6, 0)), (0.5, (2, 24, 0)), (1, (2, 24, 5)))
    ramp = [RampPoint(0.5), RampPoint(0.5, {"b": 24}), RampPoint(1.0, {"c": 5})]
    short = MixtureConfig(ratios={"a": 2, "b": 6, "c": 0}, ramp=ramp)
    assert short.points() == whole.points()
    assert Ramp(short, "abc", 100).dues(77) == Ramp(whole, "abc", 100).dues(77)
    assert mean_shares(short, "abc") == mean_shares(whole, "abc")
    assert short.read("c")


def test_two_points_of_one_moment_are_a_jump():
    ramp = Ramp(made((0, (1, 0)), (0.9, (1, 0)), (0.9, (0, 1))), "ab", 1000)
    assert [[due / ramp.scale for due in ramp.dues(tick)] for tick in (900, 1000)] == [[900, 0], [900, 100]]


def test_a_mixture_that_stays_is_due_its_share():
    ramp = Ramp(made((0, (2, 6)), (0.3, (1, 3)), (1, (10, 30))), "ab", 977)
    assert ramp.dues(977) == [977 * ramp.scale // 4, 977 * ramp.scale * 3 // 4]


def random_points(draw, groups):
    moments = sorted(draw.choice([0.1, 0.25, 0.5, 0.625, 1, round(draw.uniform(0.01, 0.99), 3)]) for _ in range(3))
    tables = [[draw.choice([0, 1, 3, 0.7, 12.5]) for _ in range(groups)] for _ in range(4)]
    for table in tables:
        table[0] = table[0] or 1
    return list(zip([0, *moments], tables, strict=True))


@pytest.mark.parametrize("seed", range(8))
def test_what_is_due_is_the_integral_of_the_shares_and_adds_up(seed):
    points, length = random_points(random.Random(seed), 3), 400
    ramp = Ramp(made(*points), "abc", length)
    middles = (np.arange(length * 250) + 0.5) / (length * 250)
    moments = np.array([at for at, _ in points]) + np.arange(4) * 1e-12  # np.interp takes no jumps
    tables = np.array([table for _, table in points], dtype=float)
    tables /= tables.sum(1, keepdims=True)
    sums = np.stack([np.interp(middles, moments, table).cumsum() / 250 for table in tables.T])
    for tick in (1, 57, 200, 399, 400):
        assert sum(ramp.dues(tick)) == tick * ramp.scale
        assert [due / ramp.scale for due in ramp.dues(tick)] == pytest.approx(sums[:, tick * 250 - 1], abs=0.01)


@pytest.mark.parametrize("seed", range(8))
def test_when_something_is_due_is_known_ahead(seed):
    ramp = Ramp(made(*random_points(random.Random(seed), 3)), "abc", 400)
    for group in range(3):
        for tick in (3, 90, 200, 399, 700):
            due = ramp.dues(tick)[group]
            before = ramp.dues(tick - 1)[group]
            if due > before:  # else there is no one moment
                assert ramp.reach(group, due / ramp.scale) == pytest.approx(tick, abs=1e-3)
                assert ramp.first(group, due) == tick
                assert ramp.first(group, before + 1) <= tick
        never = ramp.dues(10**6)[group] + 10**6 * ramp.scale
        assert (ramp.first(group, never) == math.inf) is (ramp.dues(10**6)[group] == ramp.dues(2 * 10**6)[group])
