"""The LightningModule: its loss against a naive one, steps cut into micro batches, clipping, isolation of documents."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from lightning import Trainer
from mio_world import TEXT, FakeText
from torch.utils.data import DataLoader

from mio import Frames, Modality
from mio.core.contract.backbone import TransformerConfig
from mio.core.data.batch import assemble
from mio.core.data.plan import Changes
from mio.core.errors import VocabularyError
from mio.core.recipe.schema import OptimizerConfig, TrainConfig
from mio.core.tokens.rendered import Rendered
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.bad_steps import suspects, to_blame
from mio.core.training.losses import PassLosses
from mio.core.training.module import MioModule

TONES = Modality(name="tones", codebooks=(6,), begin="<t>", end="</t>", code_token="<t{}>", frames=Frames(maximum=9))
VOCABULARY = Vocabulary.build(FakeText(size=150), [("made", TEXT), ("made", TONES)])
CONTEXT = 48
LEAVES = ("a/x/read", "a/y", "b/z")
MODELS = {
    "dense": TransformerConfig(width=32, layers=2, heads=2, kv_heads=1, qk_norm=True, tied_embeddings=True),
    "experts": TransformerConfig(width=32, layers=2, heads=2, experts=4, experts_per_token=2, sliding_window=8),
}


def made_module(model="dense", **train):
    torch.manual_seed(0)
    train = {"steps": 3, "precision": "fp32", **train}
    module = MioModule(MODELS[model], VOCABULARY, TrainConfig(**train), LEAVES)
    with torch.no_grad():  # far from the start, where every answer is equally likely
        for parameter in module.parameters():
            parameter.mul_(4 if parameter.dim() > 1 else 1)
    return module


def made_rows(count, seed=0):
    """Packed rows of random documents with random weights, some of them 0."""
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        row, left = [], CONTEXT
        while left > 4:
            size = int(draw.integers(2, min(20, left) + 1))
            tokens = draw.integers(0, VOCABULARY.size, size).astype(np.int32)
            weights = draw.choice([0.0, 0.3, 1.0, 2.5], size).astype(np.float32)
            row.append((int(draw.integers(3)), Rendered(tokens, weights, np.zeros((0, 2), np.int32))))
            left -= size - 1
        rows.append(row)
    return rows


def made_batch(rows, last=True):
    batch = assemble(rows, CONTEXT, pad=0)
    batch.changes = Changes() if last else None
    return batch


def naive_loss(module, rows):
    """Weighted mean over all tokens, each document by itself in float64 over all ids of the vocabulary."""
    total = weight = 0.0
    for row in rows:
        for _, document in row:
            tokens = torch.tensor(document.tokens, dtype=torch.int64)[None]
            hidden = module.transformer(tokens[:, :-1], torch.arange(tokens.shape[1] - 1)[None]).hidden[0].double()
            logits = hidden @ module.transformer.head_weight[: VOCABULARY.size].double().T
            nll = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none")
            weights = torch.tensor(document.weights[1:], dtype=torch.float64)
            total, weight = total + nll @ weights, weight + weights.sum()
    return total / weight


class Recorded(MioModule):
    """Notes the gradients that a step is made with."""

    def configure_gradient_clipping(self, optimizer, *arguments, **keywords):
        super().configure_gradient_clipping(optimizer, *arguments, **keywords)
        self.gradients = {name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None}


def one_step(rows, micro_rows, clip=0.0, model="dense"):
    """The module after one optimizer step on rows cut into micro batches."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module = made_module(model, optimizer=OptimizerConfig(clip=clip, warmup=0))
    module.__class__ = Recorded
    starts = range(0, len(rows), micro_rows)
    batches = [made_batch(rows[start : start + micro_rows], start == starts[-1]) for start in starts]
    trainer = Trainer(
        max_steps=1, accumulate_grad_batches=len(batches), accelerator="cpu", logger=False, barebones=True
    )
    trainer.fit(module, DataLoader(batches, batch_size=None))
    assert trainer.global_step == 1
    return module


@pytest.mark.filterwarnings("ignore")
def test_the_gradient_of_a_step_is_that_of_the_naive_loss_however_the_step_is_cut():
    rows = made_rows(8)
    reference = made_module()
    naive_loss(reference, rows).backward()
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for micro_rows in (8, 4, 2, 1):
        found = one_step(rows, micro_rows).gradients
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            scale = float(expected[name].abs().max())
            torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-6 * max(1.0, scale), msg=name)


@pytest.mark.filterwarnings("ignore")
def test_gradients_are_clipped_by_their_whole_norm():
    rows = made_rows(4)
    free, clipped = one_step(rows, 2), one_step(rows, 2, clip=0.05)
    norm = float(torch.cat([gradient.flatten() for gradient in free.gradients.values()]).norm())
    assert norm > 0.05
    assert free.grad_norm == clipped.grad_norm == pytest.approx(norm, rel=1e-5)
    after = torch.cat([gradient.flatten() for gradient in clipped.gradients.values()])
    assert float(after.norm()) == pytest.approx(0.05, rel=1e-4)
    for name, gradient in clipped.gradients.items():
        torch.testing.assert_close(gradient, free.gradients[name] * 0.05 / norm, rtol=1e-4, atol=1e-9)


def test_padding_rows_of_the_vocabulary_take_no_probability():
    module, rows = made_module(), made_rows(2)
    before, *_ = module.loss_sum(made_batch(rows))
    with torch.no_grad():
        module.transformer.head_weight[VOCABULARY.size :] = 100.0
    after, *_ = module.loss_sum(made_batch(rows))
    assert torch.equal(before, after)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("autocast", [False, True])
def test_packed_documents_never_see_each_other(model, autocast):
    """Outputs and gradients at the inputs of all other documents stay the same bit by bit when one is exchanged."""
    module, rows = made_module(model), made_rows(3)
    draw = np.random.default_rng(1)

    def passed(changed):
        embedded = []
        handle = module.transformer.embedding.register_forward_hook(lambda *call: embedded.append(call[2]))
        batch = made_batch(changed)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            total, nll, _ = module.loss_sum(batch)
        handle.remove()
        [gradient] = torch.autograd.grad(total, embedded)
        return nll, gradient, batch

    nll, gradient, batch = passed(rows)
    for row in range(len(rows)):
        for index, (leaf, document) in enumerate(rows[row]):
            tokens = draw.integers(0, VOCABULARY.size, len(document.tokens)).astype(np.int32)
            changed = [list(documents) for documents in rows]
            changed[row][index] = (leaf, Rendered(tokens, document.weights, document.spans))
            other_nll, other_gradient, _ = passed(changed)
            start = sum(batch.lengths[row][:index])
            own = torch.zeros(batch.tokens.shape, dtype=torch.bool)
            own[row, start : start + batch.lengths[row][index]] = True
            assert torch.equal(nll[~own], other_nll[~own])
            assert torch.equal(gradient[~own], other_gradient[~own])
            if document.weights[1:].any():
                assert not torch.equal(gradient[own], other_gradient[own])


def test_a_checkpoint_of_another_vocabulary_is_refused():
    checkpoint: dict = {}
    made_module().on_save_checkpoint(checkpoint)
    made_module().on_load_checkpoint(checkpoint)
    bigger = Vocabulary.build(FakeText(size=151), [("made", TEXT), ("made", TONES)])
    checkpoint["vocabulary"] = bigger.to_json()
    with pytest.raises(VocabularyError, match="made with another vocabulary"):
        made_module().on_load_checkpoint(checkpoint)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_step_that_is_not_finite_changes_neither_weights_nor_optimizer(kind):
    """A second step with an infinite loss weight leaves everything as it was after the first."""

    def trained(batches):
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        module = made_module("experts", steps=3, optimizer=OptimizerConfig(kind=kind, warmup=0))
        told = []
        module.on_bad_step = lambda verdict, passes: told.append((verdict, module.guard.reason, len(passes)))
        trainer = Trainer(max_steps=len(batches), accelerator="cpu", logger=False, barebones=True)
        trainer.fit(module, DataLoader(batches, batch_size=None))
        state = {name: value.clone() for name, value in module.transformer.state_dict().items()}
        moments = [value.clone() for entry in trainer.optimizers[0].state.values() for value in entry.values()]
        return state, moments, told, module.guard

    good, bad = made_batch(made_rows(2)), made_batch(made_rows(2, seed=1))
    bad.weights[0, 3] = torch.inf
    state, moments, told, _ = trained([good])
    again, moments_again, told_again, guard = trained([good, bad])
    assert (told, guard.not_finite) == ([], 1)
    assert [(verdict, passes) for verdict, _, passes in told_again] == [("skip", 1)]
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert len(moments) == len(moments_again)
    assert all(torch.equal(one, other) for one, other in zip(moments, moments_again, strict=True))


def test_records_to_blame_are_those_whose_loss_is_not_finite():
    batch = made_batch(made_rows(2))
    batch.documents = [[(row, index) for index in range(len(lengths))] for row, lengths in enumerate(batch.lengths)]
    start = batch.lengths[1][0]
    batch.weights[1, start] = 1
    nll = (batch.weights > 0).float()
    nll[1, start] = torch.nan

    def blamed():
        return to_blame(suspects(lambda leaf, n: f"{leaf}/{n}", [(batch, PassLosses(nll.sum(), nll))]))

    assert blamed() == ["1/1"]
    nll[1, start] = 5.0
    assert blamed()[0] == "1/1"
    # a mean is that of what is learnt: of the other row's first document one token of many, which is worse
    nll[0, : batch.lengths[0][0]] = batch.weights[0, : batch.lengths[0][0]] = 0
    nll[0, 1], batch.weights[0, 1] = 4.9, 1
    assert blamed()[0] == "0/0"
