import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mio.core.data.document_mask import DocumentMask, Together, window_positions
from mio.core.errors import DataError


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 300), max_size=5), min_size=1, max_size=4).filter(any),
    st.integers(0, 3),
    st.sets(st.integers(0, 3)),
)
def test_every_position_has_one_slot_among_documents_of_like_length(rows, left, grouped):
    context = max(map(sum, rows)) + left
    together = [Together(row, 0, 1) for row in grouped if row < len(rows) and rows[row]]
    mask = DocumentMask.from_lengths(rows, context, together=together)
    assert sum(count for count, _ in mask.buckets[len(mask.buckets) - mask.grouped :]) == len(together)
    last = sorted(mask.starts[1].tolist())[len(mask.ids.unique()) - (-1 in mask.ids) - len(together) :]
    assert sorted(mask.starts[1, mask.ids[one.row, 0]].item() for one in together) == last
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


@pytest.mark.parametrize(
    "together",
    [
        [Together(0, 2, 5)],
        [Together(0, 6, 8)],
        [Together(0, 0, 0)],
        [Together(1, 0, 1)],
        [Together(0, 0, 2), Together(0, 1, 3)],
    ],
)
def test_groups_that_are_in_no_one_document_are_refused(together):
    with pytest.raises(DataError, match=f"row {together[-1].row}: positions .* to see each other"):
        DocumentMask.from_lengths([[3, 4]], 8, together=together)


def test_groups_are_numbered_with_their_kinds_and_go_where_the_mask_goes():
    together = [Together(0, 3, 5), Together(1, 0, 1, True), Together(1, 1, 3, True, True)]
    mask = DocumentMask.from_lengths([[3, 3], [4]], 6, together=together)
    assert mask.together.tolist() == [[0, 0, 0, 4, 4, 0], [9, 15, 15, 0, 0, 0]]
    assert window_positions(mask.together[1]).tolist() == [0, 0, 1, 0, 1, 2]
    moved = mask.change(lambda tensor: tensor.to("meta"))
    assert moved.together.device.type == "meta"
    assert moved.grouped == mask.grouped == 1
    assert moved.buckets == [(1, 16), (2, 16)]
    assert DocumentMask.from_lengths([[3, 3], [4]], 6).together is None


def test_what_is_derived_is_derived_once_and_stays_behind():
    mask, calls = DocumentMask.from_lengths([[3, 2]], 8, [0]), []
    assert [mask.derive("key", lambda: calls.append(1)) for _ in range(2)] == [None, None]
    moved = mask.change(lambda tensor: tensor.to("meta"))
    moved.derive("key", lambda: calls.append(2))
    assert calls == [1, 2]
    assert {moved.ids.device.type, *(tensor.device.type for tensor in moved.blocks[0])} == {"meta"}
