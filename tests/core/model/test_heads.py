"""Losses of heads in packed rows: of each document alone, and in the sum of a step."""

from dataclasses import replace

import numpy as np
import pytest
import tiles
import torch

from mio import Media
from mio.core.contract.backbone import TransformerConfig
from mio.core.data.batch import assemble
from mio.core.data.validation import HeldOutDocuments
from mio.core.recipe.schema import TrainConfig
from mio.core.tokens.documents import interleaved_document
from mio.core.training.bad_steps import suspects, to_blame
from mio.core.training.metrics import LossMetrics
from mio.core.training.module import MioModule
from mio.core.training.validation_set import Share, ValidationSet

pytestmark = pytest.mark.usefixtures("tiles_world")
CONTEXT = 64


class World:
    """A module whose adapters do something, and documents of words and tiles."""

    def __init__(self, own):
        self.data, _ = tiles.opened(f"plugins.tiles={{own: {own}, together: true}}")
        self.renderer = self.data.streams[0].renderer
        config = TransformerConfig(width=32, layers=3, heads=2)
        self.module = MioModule(
            config, self.renderer.vocabulary, TrainConfig(), ("tiles/lines",), networks=self.data.codecs.networks
        )
        draw = torch.Generator().manual_seed(0)
        for name, parameter in self.module.named_parameters():
            if name.endswith("gate"):
                torch.nn.init.normal_(parameter, std=2.0, generator=draw)

    def document(self, seed, turns=2):
        draw = np.random.default_rng(seed)
        parts = []
        for turn in range(turns):
            number = draw.integers(0, 10, tiles.SIZE).astype(np.uint8)
            parts += ["ab"[seed % 2] * 3, Media("tile", number, f"{seed}-{turn}")]
        return self.renderer.render(interleaved_document([*parts, "end"]))

    def batch(self, rows, digests=(7, 8)):
        made = [[(0, document) for document in row] for row in rows]
        batch = assemble(made, CONTEXT, self.data.pad, codecs=self.data.codecs, digests=digests[: len(rows)])
        batch.documents = [[(0, number) for number in range(len(row))] for row in rows]
        return batch

    def losses(self, rows, digests=(7, 8)):
        """(cross-entropies of each document, losses of its items), document by document."""
        batch = self.batch(rows, digests)
        with torch.no_grad():
            found = self.module.loss_sum(batch)
        items = iter(found.heads["tile"])
        return [
            (found.nll[row, start : start + length], torch.stack([next(items) for _ in document.made]))
            for row, (lengths, documents) in enumerate(zip(batch.lengths, rows, strict=True))
            for start, length, document in zip(np.cumsum([0, *lengths]), lengths, documents, strict=False)
        ]


@pytest.mark.parametrize("own", [False, True])
def test_documents_never_see_each_other(own):
    """Another document of the same lengths in one's place: the losses of all others keep every bit."""
    world = World(own)
    documents = [world.document(seed) for seed in range(4)]
    found = world.losses([documents[:2], documents[2:]])
    changed = world.losses([[documents[0], world.document(11)], documents[2:]])
    for number, (before, after) in enumerate(zip(found, changed, strict=True)):
        same = all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
        assert same == (number != 1)


@pytest.mark.parametrize("own", [False, True])
def test_a_document_has_the_losses_that_it_has_alone(own):
    """As far as its noise is the same: of the first documents of rows with the same fingerprint."""
    world = World(own)
    documents = [world.document(seed) for seed in range(4)]
    found = world.losses([documents[:2], documents[2:]])
    for number, digest in ((0, 7), (2, 8)):
        [(nll, items)] = world.losses([[documents[number]]], (digest,))
        torch.testing.assert_close(nll, found[number][0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(items, found[number][1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("own", [False, True])
def test_figures_guards_and_the_sum_of_a_step_agree_with_a_loop_over_items(own):
    world = World(own)
    rows = [[world.document(0), world.document(1, turns=1)], [world.document(2, turns=0)]]
    batch = world.batch(rows)
    found = world.module.loss_sum(batch)
    weights, losses = batch.made["tile"].weights, found.heads["tile"]
    assert weights.tolist() == [2.0 * (tiles.SIZE if own else 2)] * 3
    expected = float((batch.weights * found.nll).sum()) + float((weights * losses).sum())
    assert float(found.total.detach()) == pytest.approx(expected, rel=1e-5)
    meter = LossMetrics(world.renderer.vocabulary, ("tiles/lines",), ["tile"])
    for _ in range(2):
        meter.update(batch, found.nll, found.heads)
    figures = meter.read()
    assert figures["heads/tile"] == pytest.approx(float(losses.mean()))
    assert figures["heads/tile/items"] == 6
    meter.update(world.batch(rows[1:]), found.nll[1:], {"tile": torch.ones(1)})  # of its dummy
    assert "heads/tile" not in meter.read()
    assert meter.items_learnt() == {"tile": 6}
    assert set(meter.tensors()) == {"seen", "leaf", "block", "heads"}

    def blamed(item, loss):
        heads = {"tile": losses.detach().clone()}
        heads["tile"][item] = loss
        return to_blame(suspects(lambda stream, n: f"{stream}/{n}", [(batch, found._replace(heads=heads))]))

    assert blamed(2, torch.nan) == ["0/1"]
    assert blamed(1, torch.inf) == ["0/0"]
    assert blamed(2, 1e6)[0] == "0/1"


@pytest.mark.parametrize("own", [False, True])
def test_a_validation_has_the_means_of_held_out_items_whoever_computes_them(own, monkeypatch):
    monkeypatch.setattr("mio.core.training.validation_set._POSITIONS", 2 * CONTEXT)
    world = World(own)
    documents = [world.document(seed, turns=seed % 3) for seed in range(9)]

    def looked_at(part=0, parts=1):
        return ValidationSet(
            [HeldOutDocuments(0, documents)], [("tiles", "lines")], world.renderer.vocabulary, Share(part, parts),
            context=CONTEXT, pad=world.data.pad, codecs=world.data.codecs,
        )  # fmt: skip

    seen = []

    def run(batch):
        losses = world.module.loss_sum(batch)
        if not batch.made["tile"].dummy:
            seen.extend(losses.heads["tile"].tolist())
        return losses

    with torch.no_grad():
        whole = looked_at()
        losses = whole.losses(run, torch.device("cpu"))
        figures = whole.figures(losses)
        assert len(seen) == whole.items["tile"] == sum(len(document.made) for document in documents) == 9
        assert figures["heads/tile"] == pytest.approx(sum(seen) / 9)
        assert figures["loss"] == pytest.approx(figures["loss/tiles/lines"])
        assert whole.names == list(figures)
        assert "9 `tile` for its head" in whole.described
        again = whole.losses(world.module.loss_sum, torch.device("cpu"))
        assert np.array_equal(again, losses)  # the same noise
        parts = sum(looked_at(part, 2).losses(world.module.loss_sum, torch.device("cpu")) for part in range(2))
    assert np.array_equal(parts, losses)


def test_a_dropped_item_is_learnt_of_nothing_before_it(monkeypatch):
    """Neither attention nor the maps that layers read: with another item before it, its loss keeps every bit."""
    world = World(own=True)
    first, other = world.document(0), world.document(20)

    def second_loss(document):
        return world.losses([[document]])[0][1][1]

    head = world.data.codecs.makers["tile"].head
    replaced = document_with(first, other)
    monkeypatch.setattr(head, "drop", 0.0)
    assert second_loss(first) != second_loss(replaced)
    monkeypatch.setattr(head, "drop", 1.0)
    assert second_loss(first) == second_loss(replaced)


def document_with(document, other):
    """The document, whose first tile is read as another's."""
    first = document.items[0]._replace(media=other.items[0].media)
    return replace(document, items=(first, *document.items[1:]))
