"""Parts of the vocabulary that are scored, against sets of ids."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mio.core.generation.states import Place, Window


@given(
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=12),
    data=st.data(),
)
def test_columns_are_the_ids_in_their_order_and_what_is_closed_is_all_that_may_not_come(sizes, data):
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    blocks = [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    whole = data.draw(st.lists(st.sampled_from(blocks), unique=True, max_size=4))
    inside = {token for block in whole for token in block}
    beside = data.draw(st.sets(st.sampled_from(range(sum(sizes))), max_size=4)) - inside
    wanted = inside | beside
    never = data.draw(st.sets(st.sampled_from(sorted(inside)), max_size=3)) if inside else set()
    closed = data.draw(st.sets(st.sampled_from(sorted(wanted)), max_size=3)) if wanted else set()
    window = Window(whole, beside, never)
    place = Place(window, list(closed))
    ids = [window.token(column) for column in range(window.width)]
    assert ids == sorted(set(ids))
    assert ids == [token for first, last in window.runs for token in range(first, last)]
    assert all(window.column(token) == column for column, token in enumerate(ids))
    assert set(ids) >= wanted
    expected = sorted(wanted - never - closed)
    assert place.ids() == expected
    assert [ids[column] for column in range(window.width) if column not in place.closed] == expected
    assert place.only == (expected[0] if len(expected) == 1 else -1)


def test_runs_with_little_between_them_are_one():
    """Scoring some ids in vain takes less time than another matrix product."""
    assert Window([range(10, 20), range(30, 40)], [41]).runs == ((10, 42),)
    assert Window([range(10, 20), range(30, 40)], [41]).closed == (*range(10, 20), 30)
    assert Window([range(10, 20)], [4000, 5000]).runs == ((10, 20), (4000, 4001), (5000, 5001))
