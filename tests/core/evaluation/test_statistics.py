"""Intervals: published values, closed forms, and how often they hold what is true."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mio.core.evaluation.statistics import (
    interval_of,
    jackknife,
    mean_interval,
    ratio_interval,
    replicates,
    wilson,
)

INF = math.inf
VOTES, SHARES = [0, 0.3, 0.6, 0.9, 1], [0.02, 0.01, 0.01, 0.02, 0.94]


def holds(draw, truth, interval, models=1000, seed=0):
    """Share of intervals that hold the truth."""
    rng = np.random.default_rng(seed)
    found = [interval(draw(rng)) for _ in range(models)]
    return np.mean([low <= truth <= high for low, high in found])


def test_wilson_as_published():
    # Newcombe, Statistics in Medicine 17, 1998, p. 857-872, table I, method 3
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_wilson_is_scipys():
    for right, count in ((0, 1), (1, 1), (3, 7), (197, 200), (200, 200)):
        found = stats.binomtest(right, count).proportion_ci(method="wilson")
        assert wilson(right, count) == pytest.approx((found.low, found.high), abs=1e-12)
        assert interval_of([1] * right + [0] * (count - right)) == pytest.approx((found.low, found.high), abs=1e-12)


def test_without_bounds_it_is_students():
    values = np.random.default_rng(0).normal(3, 2, 25)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert interval_of(values, -INF, INF) == pytest.approx((expected.low, expected.high))


def test_far_from_the_ends_it_is_nearly_students():
    values = np.random.default_rng(0).beta(20, 20, 400)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    for bounds in ((0, 1), (0, INF), (-INF, 1), (-INF, INF)):
        assert mean_interval(values, *bounds) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_scale_and_direction_do_not_matter():
    values = np.random.default_rng(0).beta(9, 1, 50)
    low, high = mean_interval(values)
    assert mean_interval(1 - values) == pytest.approx((1 - high, 1 - low))
    assert mean_interval(10 * values - 3, -3, 7) == pytest.approx((10 * low - 3, 10 * high - 3))
    low, high = mean_interval(values, 0, INF)
    assert mean_interval(5 - values, -INF, 5) == pytest.approx((5 - high, 5 - low))


@pytest.mark.parametrize("values", [[1.0], [0.5] * 9, [1.0] * 30, [0.99, 1.0, 1.0], [0.1] * 3])
def test_between_two_bounds_there_is_always_one_inside_that_has_a_width(values):
    low, high = interval_of(values)
    assert 0 <= low < np.mean(values) <= high <= 1 or 0 <= low <= np.mean(values) < high <= 1
    assert high - low > 0.05


@pytest.mark.parametrize("bounds", [(0, INF), (-INF, 0), (-INF, INF)])
def test_equal_numbers_on_a_scale_without_an_end_say_nothing(bounds):
    assert interval_of([0.3] * 10, *bounds) is None
    assert interval_of([0.3], *bounds) is None
    assert interval_of([], *bounds) is None


def test_pairs_are_a_ratio_by_the_delta_method():
    rng = np.random.default_rng(0)
    words = rng.integers(3, 13, 4000).astype(float)
    errors = rng.binomial(words.astype(int), 0.3).astype(float)
    ratio = errors.sum() / words.sum()
    # variance of a ratio estimator: Cochran, "Sampling Techniques", 1977, 6.4
    error = math.sqrt(((errors - ratio * words) ** 2).sum() / 3999 / 4000) / words.mean()
    low, high = interval_of(list(zip(errors, words, strict=True)), 0, INF)
    assert (low, high) == pytest.approx((ratio - 1.96 * error, ratio + 1.96 * error), abs=2e-4)


def test_no_error_among_few_items_is_no_proof():
    assert ratio_interval(np.zeros(20), np.full(20, 7.0)) == pytest.approx(wilson(0, 20))
    assert ratio_interval(np.zeros(3), np.zeros(3)) is None


def test_jackknife_of_a_mean_is_students_of_its_blocks():
    values = np.random.default_rng(1).normal(size=200)
    low, high = jackknife(values.mean(), replicates(200, lambda items: values[items].mean()))
    blocks = np.array_split(np.random.default_rng(0).permutation(200), 20)
    expected = stats.ttest_1samp([values[block].mean() for block in blocks], 0).confidence_interval()
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_jackknife_of_what_does_not_change_says_nothing():
    assert jackknife(1.0, replicates(50, lambda _: 1.0)) is None
    assert jackknife(1.0, replicates(1, lambda _: 1.0)) is None
    assert jackknife(0.1, replicates(3, lambda items: float(2 in items)), least=0.0)[0] == 0


def test_wilson_holds_simulated_models_of_known_accuracy():
    rng = np.random.default_rng(0)
    for count in (200, 500):
        held = []
        for accuracy in rng.uniform(0.5, 0.99, 1000):
            low, high = wilson(rng.binomial(count, accuracy), count)
            held.append(low <= accuracy <= high)
        assert 0.93 <= np.mean(held) <= 0.97


@pytest.mark.parametrize(
    ("draw", "truth", "bounds"),
    [
        pytest.param(lambda rng: rng.beta(9, 1, 200), 0.9, (0, 1), id="marks"),
        pytest.param(lambda rng: rng.choice(VOTES, 200, p=SHARES), 0.967, (0, 1), id="votes"),
        pytest.param(lambda rng: rng.poisson(0.05, 200).astype(float), 0.05, (0, INF), id="counts"),
        pytest.param(lambda rng: rng.normal(-2, 1, 10), -2, (-INF, INF), id="normal"),
    ],
)  # fmt: skip
def test_means_hold(draw, truth, bounds):
    assert 0.93 <= holds(draw, truth, lambda values: mean_interval(values, *bounds)) <= 0.97


def test_ratios_hold():
    def draw(rng):
        words = rng.integers(3, 13, 200)
        return np.stack([rng.binomial(words, np.minimum(1, rng.gamma(0.5, 0.1, 200))), words], 1).astype(float)

    large = np.concatenate([draw(np.random.default_rng(seed)) for seed in range(2000)])
    truth = large[:, 0].sum() / large[:, 1].sum()
    assert 0.93 <= holds(draw, truth, lambda pairs: interval_of(pairs, 0, INF)) <= 0.97


def test_jackknife_holds():
    def interval(values):
        return jackknife(values.std(), replicates(len(values), lambda items: values[items].std()))

    assert 0.93 <= holds(lambda rng: rng.normal(0, 2, 200), 2.0, interval, models=600) <= 0.97
