"""Shares that change are met as exactly as constant ones, whatever lengths are and wherever documents come from."""

import random
from fractions import Fraction

import pytest
from test_ramp import made, random_points

from mio.core.data.mixture import StreamShare
from mio.core.data.ramp import Ramp
from mio.core.data.ramped_mixture import RampedMixture, RampedRows


def farthest(ramp, rows, groups, counts):
    return max(abs(Fraction(due, ramp.scale) - counts[i]) for i, due in enumerate(ramp.dues(rows)[:groups]))


@pytest.mark.parametrize("seed", range(20))
def test_rows_keep_the_bound_of_the_chairman_assignment(seed):
    draw = random.Random(seed)
    groups, length = draw.randint(2, 6), draw.choice([1, 20, 300])
    ramp = Ramp(made(*random_points(draw, groups)), "abcdef"[:groups], length)
    schedule, bound = RampedRows(ramp, groups), 1 - Fraction(1, 2 * groups - 2)
    for row in range(1, length + 100):
        schedule.counts[schedule.pick()] += 1
        assert farthest(ramp, row, groups, schedule.counts) <= bound


def test_rows_of_one_group_and_of_a_group_that_goes():
    alone = RampedRows(Ramp(made((0, (1,)), (1, (5,))), "a", 10), 1)
    assert alone.pick() == 0
    schedule = RampedRows(Ramp(made((0, (1, 1)), (0.5, (0, 1))), "ab", 40), 2)
    picked = []
    for _ in range(60):
        picked.append(schedule.pick())
        schedule.counts[picked[-1]] += 1
    assert picked.count(0) == 5  # the integral: 20 rows x 1/4
    assert 0 not in picked[20:]


def by_fair_queueing(draw, groups, context, rows):
    """Whole rows given out by `due` alone, the last document cut where the row ends: (ramp, counts, row) after each."""
    ramp = Ramp(made(*random_points(draw, groups)), "abcdef"[:groups], rows * context)
    mixture = RampedMixture([StreamShare("abcdef"[i], "s", "", 1.0) for i in range(groups)], ramp, context)
    longest = [draw.choice([1, 10, context]) for _ in range(groups)]
    following = [draw.randint(1, most) for most in longest]
    dues = [0] * groups
    for row in range(rows + 10):
        mixture.aim(row, dues)
        space = context
        while space:
            stream = mixture.due(mixture.root, following.__getitem__)
            given = min(space, following[stream])
            mixture.give(stream, given)
            space -= given
            following[stream] = following[stream] - given or draw.randint(1, longest[stream])
        dues = [due * context for due in ramp.dues((row + 1) * context)]  # all rows are full
        yield ramp, dues, mixture.counts


@pytest.mark.parametrize("seed", range(20))
def test_fair_queueing_keeps_every_share_within_the_longest_document(seed):
    draw = random.Random(seed)
    context = draw.choice([20, 100])
    for ramp, dues, counts in by_fair_queueing(draw, draw.randint(2, 5), context, draw.choice([8, 60])):
        off = [abs(count - Fraction(due, ramp.scale * context)) for count, due in zip(counts, dues, strict=True)]
        assert max(off) <= context
