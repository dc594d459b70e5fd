"""Maps in decoding against lists of items, one per sequence."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mio.core.model.map_cache import MapCache

SHAPES = {"sketch": (2, 3), "tune": (1, 4)}
SEQUENCES = 3


def assert_same(cache, lists):
    for name, (S, C) in SHAPES.items():
        positions = torch.arange(9).expand(len(lists), -1)
        maps, visible = cache.read(name, positions)
        assert maps.shape[2:] == (S, C)
        assert visible.shape == (len(lists), 9, maps.shape[1])
        for row, items in enumerate(lists):
            for number in range(maps.shape[1]):
                first, value = items[name][number] if number < len(items[name]) else (9, 0)
                assert (maps[row, number] == value).all()
                assert visible[row, :, number].tolist() == [position >= first for position in range(9)]
        assert maps.shape[1] >= max(1, *(len(items[name]) for items in lists))


sequence = st.integers(0, SEQUENCES - 1)
OPERATIONS = st.one_of(
    st.tuples(st.just("append"), st.sampled_from(list(SHAPES)), sequence, st.booleans(), st.integers(0, 2)),
    st.tuples(st.just("keep"), st.lists(sequence, min_size=SEQUENCES, max_size=SEQUENCES)),
    st.tuples(st.just("begin"), sequence, sequence, st.integers(0, 9)),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(OPERATIONS, max_size=8))
def test_a_cache_holds_what_its_sequences_were_given(operations):
    cache = MapCache(SHAPES, SEQUENCES)
    lists = [{name: [] for name in SHAPES} for _ in range(SEQUENCES)]
    value = 0
    for kind, *values in operations:
        if kind == "append":
            name, index, through_one, count = values
            new = [(min(8, len(lists[index][name]) + n), value := value + 1) for n in range(count)]
            maps = torch.tensor([float(one) for _, one in new]).view(-1, 1, 1).expand(-1, *SHAPES[name])
            target, place = (cache.sequence(index), 0) if through_one else (cache, index)
            target.append(name, place, maps, [first for first, _ in new])
            lists[index][name] = lists[index][name] + new
        elif kind == "keep":
            cache.keep(torch.tensor(values[0]))
            lists = [{name: list(items) for name, items in lists[index].items()} for index in values[0]]
        else:
            index, source, count = values
            cache.begin_with(index, source, count)
            lists[index] = {name: [one for one in items if one[0] < count] for name, items in lists[source].items()}
        assert_same(cache, lists)
    for index in range(SEQUENCES):
        assert_same(cache.sequence(index), lists[index : index + 1])


def test_reading_copies_nothing_and_one_sequence_reads_no_more_than_its_own():
    cache = MapCache(SHAPES, 2, dtype=torch.bfloat16)
    cache.append("sketch", 0, torch.ones(3, 2, 3), [0, 4, 5])
    cache.append("sketch", 1, torch.ones(1, 2, 3), [2])
    maps, _ = cache.read("sketch", torch.tensor([[7], [7]]))
    assert (maps.shape, maps.dtype) == ((2, 3, 2, 3), torch.bfloat16)
    assert cache.read("sketch", torch.tensor([[8], [8]]))[0].data_ptr() == maps.data_ptr()
    of_one, visible = cache.sequence(1).read("sketch", torch.tensor([[1, 2]]))
    assert of_one.shape == (1, 1, 2, 3)
    assert of_one.data_ptr() == maps[1].data_ptr()
    assert visible.tolist() == [[[False], [True]]]
