from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mio.core.data.order import Order, derive_seed


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 5))
def test_every_epoch_visits_every_record_once(size, seed, epoch):
    order = Order(size, seed)
    assert sorted(order(n) for n in range(epoch * size, (epoch + 1) * size)) == list(range(size))


def test_seeking_gives_what_walking_gives():
    walked = Order(1297, 3)
    records = [walked(n) for n in range(9000)]
    for n in (8999, 0, 4321, 1023, 1024):
        assert Order(1297, 3)(n) == records[n]


@pytest.mark.parametrize("vary", ["seed", "epoch"])
def test_all_orders_of_four_records_are_about_equally_likely(vary):
    trials = 1200
    if vary == "seed":
        seen = Counter(tuple(Order(4, derive_seed(s, "x"))(n) for n in range(4)) for s in range(trials))
    else:
        order = Order(4, derive_seed(0, "x"))
        seen = Counter(tuple(order(4 * epoch + n) for n in range(4)) for epoch in range(trials))
    expected = trials / 24
    chi_square = sum((seen[key] - expected) ** 2 / expected for key in seen)
    assert len(seen) == 24
    assert chi_square < 49.7  # 99.9 % quantile of chi-square with 23 degrees of freedom


def test_neighbours_in_the_order_are_unrelated():
    order = Order(10_000, 5)
    records = np.array([order(n) for n in range(10_000)])
    assert abs(np.corrcoef(records[:-1], records[1:])[0, 1]) < 0.04  # four standard errors
    assert abs(np.corrcoef(records, np.arange(10_000))[0, 1]) < 0.04


def test_a_billion_records_take_no_memory():
    order = Order(10**9, 1)
    records = [order(10**9 * 3 + n) for n in range(5000)]
    assert len(set(records)) == 5000
    assert max(records) < 10**9


def test_seeds_depend_on_every_name():
    assert len({derive_seed(s, *names) for s in (0, 1) for names in (("a", "b"), ("ab", ""), ("b", "a"), ("a",))}) == 8
