"""Log-likelihoods of continuations, against the model run over each whole sequence, whatever is computed beside it."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from mio_world import FakeCodecs
from test_engine import VOCABULARY

from mio import UserError
from mio.core.contract.backbone import TransformerConfig
from mio.core.generation import continuations
from mio.core.generation.continuations import Branches, Continuation, batches, log_likelihoods
from mio.core.generation.replicas import decoding_copy
from mio.core.model.transformer import Transformer

SIZE = VOCABULARY.size


@pytest.fixture(scope="module")
def plain():
    config = TransformerConfig(width=48, layers=2, heads=4, kv_heads=2, init_std=0.4, experts=4, qk_norm=True)
    made = Transformer(config, VOCABULARY.rows)
    made.reset_parameters(3)
    return made.eval()


@pytest.fixture(scope="module")
def packed(plain):
    copy, _ = decoding_copy(plain, torch.device("cpu"), torch.float32)
    assert copy.packed_head is not None
    return copy


def sequence(length, first, seed=0, start=()):
    drawn = np.random.default_rng(seed).integers(8, SIZE, length)
    drawn[: len(start)] = start
    return Continuation(drawn.astype(np.int32), (), first)


@torch.no_grad()
def directly(transformer, one):
    tokens = torch.tensor(one.tokens[None], dtype=torch.int64)
    hidden = transformer(tokens, torch.arange(tokens.shape[1])[None]).hidden
    scores = torch.nn.functional.linear(hidden[0], transformer.head_weight[:SIZE]).log_softmax(-1)
    return scores[:-1].gather(1, tokens[0, 1:, None])[one.first - 1 :, 0].numpy()


def computed(transformer, branches):
    return log_likelihoods(transformer, FakeCodecs(), SIZE, branches)


PROMPT = np.random.default_rng(9).integers(8, SIZE, 150)
BRANCHES = [
    Branches.of([sequence(30 + 3 * n, 20, n, PROMPT[:20]) for n in range(4)]),
    Branches.of([sequence(140 + 9 * n, 131, n, PROMPT[: 130 + (n != 2)]) for n in range(4)]),
    Branches.of([sequence(151, 150, n, PROMPT) for n in range(3)]),
    Branches.of([sequence(2, 1)]),
    *(Branches.of([sequence(length, 1, length)]) for length in (40, 128, 129, 131, 300, 420)),
]


def test_what_all_begin_with_is_shared():
    # up to the token before the first that is scored
    assert [one.shared for one in BRANCHES[:4]] == [19, 130, 149, 0]


@pytest.mark.parametrize("kind", ["plain", "packed"])
def test_they_are_those_of_the_whole_sequences(plain, packed, kind):
    found = computed({"plain": plain, "packed": packed}[kind], BRANCHES)
    for one, several in zip(BRANCHES, found, strict=True):
        for each, likelihoods in zip(one.continuations, several, strict=True):
            expected = directly(plain, each)
            assert likelihoods.dtype == np.float32
            np.testing.assert_allclose(likelihoods, expected, atol=2e-4)
    assert np.concatenate([each for several in found for each in several]).std() > 0.5


def test_they_do_not_depend_on_what_is_computed_beside_them(packed):
    together = computed(packed, BRANCHES)
    for one, several in zip(BRANCHES, together, strict=True):
        [alone] = computed(packed, [one])
        for mine, others in zip(alone, several, strict=True):
            np.testing.assert_array_equal(mine, others)
    turned = computed(packed, BRANCHES[::-1])[::-1]
    assert all(np.array_equal(*pair) for a, b in zip(together, turned, strict=True) for pair in zip(a, b, strict=True))


def test_a_long_sequence_is_computed_in_passes(packed, plain, monkeypatch):
    monkeypatch.setattr(continuations, "PASS", 100)
    found = computed(packed, BRANCHES[4:])
    for one, [likelihoods] in zip(BRANCHES[4:], found, strict=True):
        np.testing.assert_allclose(likelihoods, directly(plain, one.continuations[0]), atol=2e-4)


def test_batches_hold_sequences_of_like_length_as_far_as_they_fit():
    cut = list(batches(BRANCHES, 700))
    assert sorted(number for batch in cut for number in batch) == list(range(len(BRANCHES)))
    for batch in cut:
        rows = sum(len(BRANCHES[number].continuations) for number in batch)
        assert len(batch) == 1 or rows * max(BRANCHES[number].longest for number in batch) <= 700
    sizes = [max(BRANCHES[number].shared for number in batch) for batch in cut]
    assert all(a <= b for a, b in pairwise(sizes))
    [whole] = [*BRANCHES[1].pieces(10_000)]
    assert whole == BRANCHES[1]
    pieces = [*BRANCHES[1].pieces(350)]
    assert [len(one.continuations) for one in pieces] == [2, 2]
    assert {one.shared for one in pieces} == {130}


def test_ranks_that_compute_together_are_told_by_json(packed):
    for one in BRANCHES[:2]:
        told = Branches.from_json(json.loads(json.dumps(one.to_json())))
        for mine, theirs in zip(computed(packed, [one])[0], computed(packed, [told])[0], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_too_little_memory_is_told(packed, monkeypatch):
    def none(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    monkeypatch.setattr(packed, "cache", none)
    with pytest.raises(UserError, match=r"4 sequences of up to 38 tokens do not fit into memory"):
        computed(packed, BRANCHES[:1])
