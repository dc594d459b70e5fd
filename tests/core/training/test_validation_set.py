"""Losses of a validation against those of each document alone, whoever computes them."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from test_module import CONTEXT, MODELS, VOCABULARY, made_module

from mio.core.data.validation import HeldOutDocuments
from mio.core.tokens.rendered import Rendered
from mio.core.training.losses import PassLosses
from mio.core.training.validation_set import Share, ValidationSet

STREAMS = [("a", "x", "read"), ("a", "x", "write"), ("a", "y"), ("b", "z")]
CPU = torch.device("cpu")


def made_documents(seed=0):
    draw = np.random.default_rng(seed)
    documents = []
    for stream in (0, 1, 3):  # nothing of the third is held out
        documents.append(HeldOutDocuments(stream, skipped=Counter({"broken": 1} if stream else {})))
        for _ in range(12):
            size = int(draw.integers(2, CONTEXT + 2))
            tokens = draw.integers(0, VOCABULARY.size, size).astype(np.int32)
            weights = draw.choice([0.0, 0.3, 1.0, 2.5], size).astype(np.float32)
            documents[-1].documents.append(Rendered(tokens, weights, np.zeros((0, 2), np.int32)))
    return documents


def made_set(documents, part=0, parts=1, counts=True):
    return ValidationSet(documents, STREAMS, VOCABULARY, Share(part, parts, counts), context=CONTEXT, pad=0)


def naive_figures(module, documents):
    """Each document by itself, in float64 over all ids."""
    sums: dict[str, list[float]] = {}
    for of in documents:
        path = STREAMS[of.stream]
        for document in of.documents:
            tokens = torch.tensor(document.tokens, dtype=torch.int64)[None]
            hidden = module.transformer(tokens[:, :-1], torch.arange(tokens.shape[1] - 1)[None]).hidden[0].double()
            logits = hidden @ module.transformer.head_weight[: VOCABULARY.size].double().T
            nll = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none")
            for target, loss, weight in zip(tokens[0, 1:].tolist(), nll.tolist(), document.weights[1:], strict=True):
                if weight > 0:
                    [block] = [b for b in VOCABULARY.blocks if b.start <= target < b.start + b.size]
                    names = ["/".join(("loss", *path[:depth])) for depth in range(len(path) + 1)]
                    if block.kind == "codes":
                        names += ["modality/tones", "modality/tones/codebook0"]
                    else:
                        names.append(f"modality/{block.kind}")
                    for name in names:
                        sums.setdefault(name, []).append(loss)
    return {name: sum(losses) / len(losses) for name, losses in sums.items()}


@pytest.mark.parametrize("model", MODELS)
def test_figures_are_means_over_the_supervised_tokens_of_each_document_alone(model, monkeypatch):
    monkeypatch.setattr("mio.core.training.validation_set._POSITIONS", 5 * CONTEXT)
    module, documents = made_module(model), made_documents()
    looked_at = made_set(documents)
    with torch.no_grad():
        figures = looked_at.figures(looked_at.losses(module.loss_sum, CPU))
        expected = naive_figures(module, documents)
    assert figures == {name: pytest.approx(value, abs=1e-5) for name, value in expected.items()}
    assert {"loss/a/x/read", "loss/b/z", "modality/special"} <= figures.keys()
    assert "loss/a/y" not in figures
    assert list(figures) == looked_at.names
    assert (looked_at.documents, looked_at.skipped) == (36, {"a/x/write": {"broken": 1}, "b/z": {"broken": 1}})


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_the_parts_of_all_ranks_add_up_to_the_same_bits(parts, monkeypatch):
    """Every rank makes as many passes, and what one makes in place of a pass that is not there does not count."""
    monkeypatch.setattr("mio.core.training.validation_set._POSITIONS", 4 * CONTEXT)
    module, documents = made_module(), made_documents()

    def losses(part, parts, counts=True):
        calls = []

        def nll(batch):
            calls.append(batch)
            return module.loss_sum(batch)

        looked_at = made_set(documents, part, parts, counts)
        with torch.no_grad():
            return looked_at.losses(nll, CPU), len(calls), looked_at

    whole, _, looked_at = losses(0, 1)
    found = [losses(part, parts) for part in range(parts)]
    assert len({calls for _, calls, _ in found}) == 1
    total = sum(part for part, _, _ in found)
    assert np.array_equal(total, whole)
    assert looked_at.figures(total) == looked_at.figures(whole)
    neighbour, _, _ = losses(0, parts, counts=False)  # of a tensor-parallel group
    assert not neighbour.any()


def test_a_model_that_has_diverged_is_told_as_such():
    looked_at = made_set(made_documents())
    figures = looked_at.figures(np.full_like(looked_at._cells, np.nan, np.float32))
    assert all(map(math.isnan, figures.values()))


@pytest.mark.usefixtures("beads_world")
def test_arrays_for_encoders_are_kept_up_to_a_bound_and_then_prepared_again(monkeypatch):
    import beads

    from mio.core.training import validation_set

    data, _ = beads.opened("validate={every: 2}", "data.held_out=0.5")
    codecs, context = data.codecs, 64
    documents = [of for source in range(len(data.held_out)) for of in data.held_out.documents(source, 40)]
    assert sum(len(document.items) for of in documents for document in of.documents) > 20
    assert all(item.arrays is None for of in documents for document in of.documents for item in document.items)
    vocabulary = data.streams[0].renderer.vocabulary
    streams = [stream.share[:3] for stream in data.streams]

    def nll(batch):
        places = sum(one.places.sum() for one in batch.items.values())
        held = sum(int(array.sum()) for one in batch.items.values() for array in one.input.arrays.values())
        losses = (batch.tokens * held + places).float()
        return PassLosses(losses.sum(), losses)

    prepared, found = [], []
    prepare = codecs.prepare
    monkeypatch.setattr(codecs, "prepare", lambda media: prepared.append(media.key) or prepare(media))
    monkeypatch.setattr(validation_set, "_POSITIONS", context)
    for room in (1 << 20, 0):
        monkeypatch.setattr(validation_set, "_KEPT", room)
        looked = ValidationSet(documents, streams, vocabulary, Share(), context=context, pad=data.pad, codecs=codecs)
        made = len(prepared)
        found.append([looked.losses(nll, CPU).tolist() for _ in range(2)])
        assert (len(prepared) > made) == (room == 0)
    assert found[0][0] == found[0][1] == found[1][0] == found[1][1]
