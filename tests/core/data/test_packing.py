import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mio.core.data.packing import Entry, Pool


@settings(max_examples=100, deadline=None)
@given(
    documents=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 20)), min_size=1, max_size=40),
    actions=st.lists(st.integers(-3, 25), max_size=60),
)
def test_pool_agrees_with_a_plain_list(documents, actions):
    """The reference is a list in order of age, searched from one end to the other."""
    pool, reference = Pool(3), []
    for n, (leaf, length) in enumerate(documents):
        entry = Entry(leaf, n, length, False)
        pool.add(entry)
        reference.append(entry)
    for action in actions:
        if action < 0:
            leaf = action + 3
            own = [entry for entry in reference if entry.leaf == leaf]
            assert pool.waiting[leaf] == len(own)
            if not own:
                continue
            assert pool.peek(leaf) == own[0]
            taken, expected = pool.oldest(leaf), own[0]
        else:
            fitting = [entry for entry in reference if entry.length <= action]
            expected = max(fitting, key=lambda entry: (entry.length, -entry.n)) if fitting else None
            taken = pool.largest(action)
        assert taken == expected
        if expected is not None:
            reference.remove(expected)
        assert list(pool) == reference
        assert len(pool) == len(reference)


def test_equally_long_documents_leave_in_order_of_age():
    pool = Pool(1)
    for n in range(5):
        pool.add(Entry(0, n, 7, False))
    assert [pool.largest(9).n for _ in range(5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("space", [0, 6])
def test_nothing_fits(space):
    pool = Pool(1)
    pool.add(Entry(0, 0, 7, False))
    assert pool.largest(space) is None
    assert len(pool) == 1
