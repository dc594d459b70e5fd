from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from mio.core.data.packing import Entry, Pool


def fill(pool, space, without=()):
    return [pool.remove(entry.stream, entry.n) for entry in pool.best_fit(space, without)]


@settings(max_examples=150, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), max_size=9), space=st.integers(0, 60))
def test_filling_is_as_good_as_trying_every_combination(lengths, space):
    pool = Pool(1)
    for n, length in enumerate(lengths):
        pool.add(Entry(0, n, length, False))
    sums = {sum(chosen) for size in range(len(lengths) + 1) for chosen in combinations(lengths, size)}
    taken = fill(pool, space)
    assert sum(entry.length for entry in taken) == max(s for s in sums if s <= space)
    assert sorted([*taken, *pool]) == [Entry(0, n, length, False) for n, length in enumerate(lengths)]


@settings(max_examples=100, deadline=None)
@given(
    documents=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 20)), min_size=1, max_size=40),
    actions=st.lists(st.integers(-3, 25), max_size=60),
)
def test_pool_keeps_the_order_of_age(documents, actions):
    """The reference is a plain list."""
    pool, reference = Pool(3), []
    for n, (stream, length) in enumerate(documents):
        reference.append(Entry(stream, n, length, False))
        pool.add(reference[-1])
    for action in actions:
        if action >= 0:
            for entry in fill(pool, action):
                reference.remove(entry)
        else:
            own = [entry for entry in reference if entry.stream == action + 3]
            assert pool.waiting[action + 3] == len(own)
            if own:
                assert pool.oldest(action + 3) == own[0]
                assert pool.next_length(action + 3) == own[0].length
                pool.remove(own[0].stream, own[0].n)
                reference.remove(own[0])
        assert list(pool) == reference
        assert len(pool) == len(reference)


def test_older_documents_are_preferred():
    pool = Pool(1)
    for n, length in enumerate((7, 3, 7, 4, 10, 3)):
        pool.add(Entry(0, n, length, False))
    assert [entry.n for entry in fill(pool, 10)] == [0, 1]
    assert [entry.n for entry in fill(pool, 10)] == [4]
    assert [entry.n for entry in fill(pool, 10)] == [2, 5]


def test_nothing_fits():
    pool = Pool(1)
    pool.add(Entry(0, 0, 7, False))
    assert fill(pool, 6) == fill(pool, 0) == []
    assert len(pool) == 1


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), max_size=9), space=st.integers(0, 60), without=st.sets(st.integers(0, 2)))
def test_leaves_that_go_without_are_as_if_they_were_not_there(lengths, space, without):
    pool, rest = Pool(3), Pool(3)
    for n, length in enumerate(lengths):
        pool.add(Entry(n % 3, n, length, False))
        if n % 3 not in without:
            rest.add(Entry(n % 3, n, length, False))
    assert fill(pool, space, without) == fill(rest, space)
