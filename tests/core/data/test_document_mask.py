import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mio.core.data.document_mask import DocumentMask
from mio.core.errors import DataError


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(1, 300), max_size=5), min_size=1, max_size=4).filter(any), st.integers(0, 3))
def test_every_position_has_one_slot_among_documents_of_like_length(rows, left):
    context = max(map(sum, rows)) + left
    mask = DocumentMask.from_lengths(rows, context)
    widths = [width for count, width in mask.buckets for _ in range(count)]
    by_slot = [slot.tolist() for slot in mask.slots.split(widths)]
    number, expected = 0, {}
    for row, lengths in enumerate(rows):
        start = row * context
        for length in lengths:
            assert mask.ids.view(-1)[start : start + length].tolist() == [number] * length
            expected[start] = [*range(start, start + length)]
            assert mask.starts[0, number] == start
            first, width = mask.starts[1:, number].tolist()
            assert mask.slots[first : first + width].tolist() == expected[start] + [-1] * (width - length)
            assert width - length < max(16, length / 4)
            start += length
            number += 1
        assert (mask.ids.view(-1)[start : (row + 1) * context] == -1).all()
    assert sorted(slots[0] for slots in by_slot) == sorted(expected)
    assert mask.valid.sum() == sum(map(sum, rows))


@pytest.mark.parametrize("rows", [[[3, 6]], [[3, 0]], [[], []], [[9, -1]]])
def test_lengths_that_do_not_fit_are_refused(rows):
    with pytest.raises(DataError):
        DocumentMask.from_lengths(rows, 8)


def test_what_is_derived_is_derived_once_and_stays_behind():
    mask, calls = DocumentMask.from_lengths([[3, 2]], 8, [0]), []
    assert [mask.derive("key", lambda: calls.append(1)) for _ in range(2)] == [None, None]
    moved = mask.change(lambda tensor: tensor.to("meta"))
    moved.derive("key", lambda: calls.append(2))
    assert calls == [1, 2]
    assert {moved.ids.device.type, *(tensor.device.type for tensor in moved.blocks[0])} == {"meta"}
