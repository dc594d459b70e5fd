"""Paired tests and differences: published values, scipy's, and false alarms of models that are equally good."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mio.core.evaluation.paired import holm, numbers, overall, ratios, right_or_wrong, tango
from mio.core.evaluation.statistics import replicates


def test_mcnemar_and_tango_as_published():
    # the R package contingencytables, tests of `McNemar_asymptotic_test_paired_2x2` and
    # `Tango_asymptotic_score_CI_paired_2x2`, after Fagerland, Lydersen and Laake, "Statistical Analysis of Contingency
    # Tables", 2017, table 8.3 (Cavo et al. 2012): 59, 6 / 16, 80
    found = right_or_wrong(6, 16, 161)
    assert found.difference == pytest.approx(-0.0621, abs=5e-5)
    assert found.p == pytest.approx(0.033006, abs=5e-7)
    assert found.interval == pytest.approx((-0.1240, -0.0054), abs=5e-5)


def test_tangos_ends_are_where_the_score_is_196():
    gained, lost, count = 1, 7, 21
    for difference, sign in zip(tango(gained, lost, count), (1, -1), strict=True):
        # the constrained likelihood, maximised by a grid instead of its closed form
        shares = np.linspace(1e-9, 1, 2_000_001)
        other = shares + difference
        possible = (other > 0) & (shares + other < 1)
        shares, other = shares[possible], other[possible]
        rest = np.log(1 - shares - other)
        likelihood = gained * np.log(other) + lost * np.log(shares) + (count - gained - lost) * rest
        best = np.argmax(likelihood)
        variance = count * (shares[best] + other[best] - difference**2)
        score = (gained - lost - count * difference) / math.sqrt(variance)
        assert score == pytest.approx(sign * 1.959964, abs=1e-4)


def test_the_interval_leaves_out_zero_just_where_the_test_refuses():
    for gained in range(30):
        for lost in range(30):
            found = right_or_wrong(gained, lost, 100)
            assert (found.p < 0.05) == (not found.interval[0] <= 0 <= found.interval[1])


def test_equal_answers_are_no_proof_of_equal_models():
    found = right_or_wrong(0, 0, 200)
    assert (found.difference, found.p) == (0, 1)
    assert found.interval == pytest.approx((-0.0188, 0.0188), abs=1e-4)
    values = np.full(200, 0.5)
    assert numbers(values, values).interval == pytest.approx(found.interval)
    assert numbers(values, values, 0, math.inf).interval is None


def test_numbers_are_compared_by_students_t():
    rng = np.random.default_rng(0)
    first, second = rng.beta(4, 2, 60), rng.beta(5, 2, 60)
    found, expected = numbers(first, second), stats.ttest_rel(second, first)
    interval = expected.confidence_interval()
    assert found.difference == pytest.approx(second.mean() - first.mean())
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx((interval.low, interval.high))


def test_right_or_wrong_is_counted():
    first, second = np.array([1.0, 1, 0, 0, 1]), np.array([1.0, 0, 1, 1, 1])
    assert numbers(first, second) == right_or_wrong(2, 1, 5)


def test_all_items_differ_alike():
    found = numbers(np.full(4, 0.25), np.full(4, 0.5))
    assert (found.difference, found.interval, found.p) == (0.25, None, 2 / 2**4)


def test_ratios_of_equal_denominators_are_means():
    rng = np.random.default_rng(0)
    first, second = rng.poisson(2, 80).astype(float), rng.poisson(3, 80).astype(float)
    fives = np.full(80, 5.0)
    found = ratios(np.stack([first, fives], 1), np.stack([second, fives], 1))
    expected = stats.ttest_rel(second / 5, first / 5)
    assert (found.difference, found.p) == pytest.approx((second.mean() / 5 - first.mean() / 5, expected.pvalue))


def test_figures_overall_are_compared_by_blocks():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, 100), rng.normal(0.5, 1, 100)
    blocks = np.array_split(np.random.default_rng(0).permutation(100), 20)
    expected = stats.ttest_1samp([(second - first)[block].mean() for block in blocks], 0)
    without = [replicates(100, lambda items, x=x: x[items].mean()) for x in (first, second)]
    found = overall(first.mean(), second.mean(), *without, math.inf)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert overall(1.0, 1.0, *[replicates(100, lambda _: 1.0)] * 2, math.inf).interval is None


def test_holm_steps_down():
    # by hand: 5 p1, 4 p2, 3 p3, 2 p4 and p5, each at least the one before
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.5, 0.001]) == pytest.approx([0.5, 0.002])
    assert holm([]) == []


@pytest.mark.parametrize("count", [200, 500])
@pytest.mark.parametrize("accuracy", [0.8, 0.9, 0.98])
@pytest.mark.parametrize("correlation", [0.0, 0.3])
def test_false_alarms_of_equally_good_models(count, accuracy, correlation):
    """Exactly: the number of items that differ is binomial, and which model is right at each is a coin."""
    differing = 2 * accuracy * (1 - accuracy) * (1 - correlation)
    alarms = 0.0
    for differ in range(count + 1):
        chance = stats.binom.pmf(differ, count, differing)
        if chance > 1e-7:
            gained = np.arange(differ + 1)
            refused = [
                right_or_wrong(int(one), int(differ - one), count).p <= 0.05 for one in gained[: differ // 2 + 1]
            ]
            rejected = np.array(refused + refused[: (differ + 1) // 2][::-1])
            alarms += chance * stats.binom.pmf(gained, differ, 0.5)[rejected].sum()
    assert 0.04 <= alarms <= 0.06


def test_false_alarms_of_marks_and_of_error_rates():
    rng = np.random.default_rng(0)
    marks = errors = 0
    for _ in range(1000):
        easy = rng.beta(0.9, 0.1, 200)
        marks += numbers(*(np.clip(easy + rng.normal(0, 0.1, 200), 0, 1) for _ in "AB")).p <= 0.05
        words = rng.integers(3, 13, 200)
        rate = rng.beta(0.5, 5, 200)
        errors += ratios(*(np.stack([rng.binomial(words, rate), words], 1).astype(float) for _ in "AB")).p <= 0.05
    assert 40 <= marks <= 60
    assert 40 <= errors <= 60
