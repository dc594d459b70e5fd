"""Running figures against sums by hand."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from mio_world import TEXT, FakeCodecs, FakeText

from mio import Control, ControlToken, Modality
from mio.core.data.batch import assemble
from mio.core.data.validation import HeldOutDocuments
from mio.core.recipe.schema import LossConfig
from mio.core.tokens.documents import plain_document
from mio.core.tokens.rendered import Rendered
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.losses import PassLosses
from mio.core.training.metrics import LossMetrics
from mio.core.training.validation_set import Share, ValidationSet

TONES = Modality(name="tones", codebooks=(4, 2), begin="<t>", end="</t>", code_token="<t{}>", layout="frame_major")
VOCABULARY = Vocabulary.build(FakeText(size=20), [("made", TEXT), ("made", TONES)])
LEAVES = ("a/x/read", "a/x/write", "b/y")
BEGIN, END = VOCABULARY.begin("tones"), VOCABULARY.end("tones")
FIRST, SECOND = (VOCABULARY.code_ids("tones", index).start for index in (0, 1))


def document(tokens, weights):
    return Rendered(np.array(tokens, np.int32), np.array(weights, np.float32), np.zeros((0, 2), np.int32))


BATCH = assemble(
    [
        [(0, document([1, 5, 6, 2], [0, 1, 0.5, 1])), (2, document([1, 7], [0, 0]))],
        [(1, document([1, BEGIN, FIRST + 3, SECOND, FIRST + 3, SECOND + 1, END], [0, 2, 1, 1, 1, 1, 1]))],
    ],
    context=7,
    pad=0,
)
NLL = torch.arange(14, dtype=torch.float32).view(2, 7)


def test_losses_that_are_not_finite_are_left_out():
    meter, alone = (LossMetrics(VOCABULARY, LEAVES) for _ in range(2))
    for nll in (NLL, torch.full_like(NLL, torch.nan)):
        meter.update(BATCH, nll)
    alone.update(BATCH, NLL)
    assert meter.read() == alone.read()
    meter.update(BATCH, torch.full_like(NLL, torch.inf))
    assert meter.read() == {}


def test_losses_are_unweighted_means_over_supervised_tokens_by_group_and_block():
    meter = LossMetrics(VOCABULARY, LEAVES)
    meter.update(BATCH, NLL)
    figures = meter.read()
    assert figures == {
        "loss": pytest.approx((0 + 1 + 2 + 7 + 8 + 9 + 10 + 11 + 12) / 9),
        "loss/a": pytest.approx((0 + 1 + 2 + 7 + 8 + 9 + 10 + 11 + 12) / 9),
        "modality/text": pytest.approx((0 + 1 + 2) / 3),
        "modality/special": pytest.approx((7 + 12) / 2),
        "modality/tones": pytest.approx((8 + 10 + 9 + 11) / 4),
        "modality/tones/codebook0": pytest.approx((8 + 10) / 2),
        "modality/tones/codebook1": pytest.approx((9 + 11) / 2),
    }


def test_a_reading_starts_anew_and_batches_add_up():
    meter = LossMetrics(VOCABULARY, LEAVES)
    meter.update(BATCH, NLL)
    meter.read()
    assert meter.read() == {}
    meter.update(BATCH, NLL)
    meter.update(BATCH, NLL + 1)
    assert meter.read()["loss"] == pytest.approx(60 / 9 + 0.5)


def test_the_use_of_codebooks():
    """One code of four, twice: a share of a quarter and perplexity 1. Both of two, once each: all, and 2."""
    meter = LossMetrics(VOCABULARY, LEAVES)
    meter.update(BATCH, NLL)
    assert meter.codebook_usage() == {
        "tones/codebook0": {"tokens": 2, "used": 0.25, "perplexity": 1.0},
        "tones/codebook1": {"tokens": 2, "used": 1.0, "perplexity": 2.0},
    }
    counts = torch.tensor([5, 3, 2, 0], dtype=torch.float64) / 10
    meter = LossMetrics(VOCABULARY, LEAVES)
    for code, times in enumerate((5, 3, 2)):
        for _ in range(times):
            meter.update(assemble([[(0, document([1, FIRST + code], [0, 1]))]], 4, 0), torch.zeros(1, 4))
    expected = math.exp(-sum(float(p) * math.log(float(p)) for p in counts if p))
    assert meter.codebook_usage()["tones/codebook0"]["perplexity"] == pytest.approx(expected, abs=0.005)


def test_the_use_of_codebooks_survives_an_interruption():
    meter, other = LossMetrics(VOCABULARY, LEAVES), LossMetrics(VOCABULARY, LEAVES)
    meter.update(BATCH, NLL)
    for name, counted in other.tensors().items():
        counted.copy_(meter.tensors()[name])
    assert other.codebook_usage() == meter.codebook_usage()
    other.update(BATCH, NLL)
    assert other.codebook_usage()["tones/codebook0"]["tokens"] == 4
    assert meter.codebook_usage()["tones/codebook0"]["tokens"] == 2


def test_a_codebook_whose_plugin_is_absent_is_left_out():
    grown = Vocabulary.build(FakeText(size=20), [("made", TEXT)], base=VOCABULARY)
    meter = LossMetrics(grown, LEAVES)
    meter.update(BATCH, NLL)
    assert meter.codebook_usage() == {}


def test_control_tokens_have_losses_of_their_own_whatever_ids_they_consist_of():
    said = [ControlToken(name="noise", token="<2>", plain_text=True), ControlToken(name="think", token="<think>")]
    text = FakeText(size=400)
    vocabulary = Vocabulary.build(text, [("made", TEXT), ("made", TONES)], [("made", one) for one in said])
    response = [Control("noise"), "ab", Control("think"), "c"]
    rendered = Renderer(vocabulary, FakeCodecs(text), LossConfig()).render(plain_document(["a"], response))
    batch = assemble([[(0, rendered)]], context=12, pad=0)
    nll = torch.arange(12, dtype=torch.float32)[None]
    meter = LossMetrics(vocabulary, LEAVES)
    meter.update(pickle.loads(pickle.dumps(batch)), nll)
    figures = meter.read()
    # targets: a | < 2 > | a b | think | c | eos
    assert figures["modality/control/noise"] == pytest.approx((1 + 2 + 3) / 3)
    assert figures["modality/control/think"] == pytest.approx(6)
    assert figures["modality/control"] == pytest.approx((1 + 2 + 3 + 6) / 4)
    assert figures["modality/text"] == pytest.approx((0 + 4 + 5 + 7 + 8) / 5)
    assert "modality/special" not in figures
    held = ValidationSet(
        [HeldOutDocuments(0, [rendered])], [("a", "x", "read")], vocabulary, Share(), context=12, pad=0
    )
    found = held.figures(
        held.losses(lambda _: PassLosses(nll.sum(), nll.expand(len(held._cells[0]) // 12, 12)), torch.device("cpu"))
    )
    assert {name: found[name] for name in figures if name.startswith("modality")} == {
        name: pytest.approx(value) for name, value in figures.items() if name.startswith("modality")
    }


def test_ranks_that_count_nothing_hold_their_sums_where_the_others_do():
    """They are summed over all ranks, by what the device's kind has for that."""
    meter = LossMetrics(VOCABULARY, LEAVES)
    meter.counts = False
    meter.update(BATCH, torch.zeros(BATCH.tokens.shape, device="meta"))
    assert {tensor.device.type for tensor in meter.tensors().values()} == {"meta"}
