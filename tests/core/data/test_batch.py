import pickle

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from made_streams import Numbers

from mio.core.data.batch import assemble
from mio.core.data.document_mask import DocumentMask, Together
from mio.core.data.plan import Changes


def document(*tokens, weights=None):
    return Numbers(
        np.array(tokens, dtype=np.int32),
        np.array(weights if weights is not None else np.arange(len(tokens)), dtype=np.float32),
    )


def test_documents_become_rows_token_by_token():
    batch = assemble([[(3, document(1, 2, 3)), (0, document(7, 8))], [(1, document(4, 5, 6, 9))]], context=5, pad=99)
    assert batch.tokens.tolist() == [[1, 2, 7, 99, 99], [4, 5, 6, 99, 99]]
    assert batch.targets.tolist() == [[2, 3, 8, 99, 99], [5, 6, 9, 99, 99]]
    assert batch.weights.tolist() == [[1, 2, 1, 0, 0], [1, 2, 3, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 0, 0, 0], [0, 1, 2, 0, 0]]
    assert batch.stream.tolist() == [[3, 3, 0, -1, -1], [1, 1, 1, -1, -1]]
    assert batch.lengths == [[2, 1], [3]]
    dtypes = [t.dtype for t in (batch.tokens, batch.targets, batch.weights, batch.positions, batch.stream)]
    assert dtypes == [torch.int64, torch.int64, torch.float32, torch.int64, torch.int64]


def test_random_rows_agree_with_a_loop_over_tokens():
    rng = np.random.default_rng(0)
    rows = [
        [
            (int(rng.integers(9)), document(*rng.integers(0, 500, n), weights=rng.random(n)))
            for n in rng.integers(2, 9, 6)
        ]
        for _ in range(4)
    ]
    batch = assemble(rows, context=64, pad=0)
    for index, row in enumerate(rows):
        place = 0
        for stream, made in row:
            for position in range(len(made.tokens) - 1):
                assert batch.tokens[index, place] == made.tokens[position]
                assert batch.targets[index, place] == made.tokens[position + 1]
                assert batch.weights[index, place] == made.weights[position + 1]
                assert batch.positions[index, place] == position
                assert batch.stream[index, place] == stream
                place += 1
        assert batch.weights[index, place:].sum() == 0


@pytest.mark.parametrize("together", [[], [Together(0, 1, 4)]])
def test_a_batch_travels_to_a_device_and_between_processes_with_its_changes(together):
    batch = assemble([[(0, document(1, 2)), (2, document(*range(5)))], [(1, document(5, 6, 7))]], 7, 0, windows=[0, 3])
    batch.mask = DocumentMask.from_lengths(batch.lengths, 7, [0, 3], together)
    assert not batch.ends_step
    batch.changes = Changes(skipped=[(0, "broken", "")])
    moved = move_data_to_device(batch, torch.device("meta"))
    assert {moved.tokens.device.type, moved.stream.device.type, moved.mask.ids.device.type} == {"meta"}
    assert (moved.changes, moved.lengths, moved.ends_step) == (batch.changes, [[1, 4], [2]], True)
    assert batch.tokens.device.type == "cpu"
    received = pickle.loads(pickle.dumps(batch))
    assert (received.changes, received.lengths, received.weight) == (batch.changes, batch.lengths, batch.weight)
    assert received.mask.buckets == batch.mask.buckets
    tensors = [[], []]
    for one, own in zip((batch, received), tensors, strict=True):
        one.to("cpu")._change(own.append)
    assert [len(own) for own in tensors] == [6 + 3 + 2 * 2 + len(together)] * 2
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(*tensors, strict=True))
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors[1]}) == 1  # one file descriptor in all


def test_a_tensor_of_one_element_travels_whatever_its_stride():
    batch = assemble([[(0, document(1, 2))]], 1, 0)
    batch.positions = torch.tensor(7).expand(1, 1)
    assert batch.positions.stride() == (0, 0)
    assert pickle.loads(pickle.dumps(batch)).positions.tolist() == [[7]]


def test_a_document_that_does_not_fit_is_a_defect():
    with pytest.raises(ValueError, match="broadcast"):
        assemble([[(0, document(1, 2, 3, 4))]], context=2, pad=0)
