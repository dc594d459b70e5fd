"""Static steps give what ordinary ones do; on a CPU without the graphs that a GPU captures of them."""

from __future__ import annotations

import copy

import pytest
import torch

from mio.core.contract.backbone import TransformerConfig
from mio.core.generation.graphs import StaticSteps, can_capture
from mio.core.model.packed import can_pack, pack
from mio.core.model.transformer import Transformer


@pytest.fixture(params=["plain", "packed"])
def transformer(request):
    config = TransformerConfig(width=64, layers=2, heads=4, kv_heads=2, init_std=0.3, sliding_window=7)
    made = Transformer(config, 50).eval()
    if request.param == "packed":
        if not can_pack(torch.device("cpu"), torch.float32):
            pytest.skip("no packed products on this machine")
        pack(made)
    return made


@torch.inference_mode()
def test_static_steps_of_a_batch_that_shrinks_and_grows_are_the_ordinary_ones(transformer):
    tokens = torch.randint(50, (5, 9), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([9, 4, 6, 1, 8])
    ordinary = transformer.cache(5, 32)
    transformer(tokens, ordinary.positions(9), cache=ordinary)
    ordinary.advance(lengths)
    static = copy.deepcopy(ordinary)
    steps = StaticSteps(transformer, static)
    assert not can_capture(transformer)
    for count in (5, 3, 1, 2, 4, 5):
        given = torch.randint(50, (count,), generator=torch.Generator().manual_seed(count))
        view, other = ordinary.sequences(0, count), static.sequences(0, count)
        expected = transformer.decode(given, view)
        view.advance(1)
        found = steps(given.tolist())
        other.advance(1)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(static.lengths, ordinary.lengths)
    for row, length in enumerate(ordinary.lengths.tolist()):  # what others' steps wrote behind them, nobody sees
        for part, right in ((static.keys, ordinary.keys), (static.values, ordinary.values)):
            torch.testing.assert_close(part[:, row, :, :length], right[:, row, :, :length], atol=1e-5, rtol=1e-5)
    assert sorted(steps._steps) == [1, 2, 4, 5]
