"""Two modalities added to a trained model one after the other, in either order: what is new, what stays, what fits.

The stages train the rows that are new and nothing else, so that everything else can be compared bit by bit.
"""

from __future__ import annotations

import io
import os
import shutil

import pytest
import torch
from conftest import MELODY, ROOT, once
from rich.console import Console

import mio
from mio.core.contract.plugins import PluginManager
from mio.core.model.vocabulary_rows import migrate_rows
from mio.core.recipe.model import transformer_config
from mio.core.recipe.schema import TrainConfig
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.lock import Lock
from mio.core.runs.run import Run
from mio.core.runs.weights import start_weights
from mio.core.stages.fit import fit_chain
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.module import MioModule

OUTLINE = ROOT / "tests" / "packages" / "mio-outline"
BASE = """
name: base
plugins: {text: {tokenizer: bytes}}
model: {width: 32, layers: 1, heads: 2, qk_norm: true, tied_embeddings: true}
data:
  groups:
    names: {sources: {lines: {dataset: jsonl, options: {path: names.jsonl}, templates: text}}}
  packing: {context: 96, window: 16}
mixture: {ratios: {names: 1}}
train: {steps: 4, rows: 2, micro_rows: 2, optimizer: {kind: muon, lr: 0.02}}
runtime: {threads: 1, accelerator: cpu, log_every: 10, checkpoint_every: 2, compile: none}
"""
ADDED = """
include: [{before}]
name: {name}
start_from: runs/{start}
plugins: {{{modality}: {{}}}}
data: {{groups: {{{modality}: {{sources: {{all: {{dataset: {source}, templates: {modality}}}}}}}}}}}
mixture: {{ratios: {{{modality}: 9}}}}
train:
  optimizer:
    rules:
      all: {{pattern: "*", trainable: false}}
      rows: {{pattern: "[eh]*.weight", rows: [new]}}
"""
SOURCES = {"melody": "melody/tunes", "outline": "outline/triangles"}
CROSSED = """
include: [both-outline-melody.yaml]
name: crossed
start_from: runs/both-melody-outline
train: {steps: 1, optimizer: {lr: 0, muon_lr: 0}}
"""
ORDERS = (("melody", "outline"), ("outline", "melody"))
LINE = "melody number 3 has 4 notes"


def make(folder):
    """The base, and for each order a run with the first modality, `one-*`, and one with both, `both-*`."""
    (folder / "names.jsonl").write_text(
        "\n".join(f'{{"text": "melody number {n} has {n % 7} notes"}}' for n in range(40))
    )
    (folder / "base.yaml").write_text(BASE)
    (folder / "crossed.yaml").write_text(CROSSED)
    for first, second in ORDERS:
        one, both = f"one-{first}", f"both-{first}-{second}"
        stages = ((one, "base", first), (both, one, second))
        for name, start, modality in stages:
            recipe = ADDED.format(
                before=f"{start}.yaml", name=name, start=start, modality=modality, source=SOURCES[modality]
            )
            (folder / f"{name}.yaml").write_text(recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("base", "one-melody", "both-melody-outline", "one-outline", "both-outline-melody", "crossed"):
            fit(name)


def fit(name):
    """Trains in this process; returns what was printed."""
    printed = io.StringIO()
    fit_chain([f"{name}.yaml"], [], PluginManager.discover(), Console(file=printed, width=200))
    return printed.getvalue()


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        packages = (f"melody={MELODY / 'mio_melody.py'}", f"outline={OUTLINE / 'mio_outline.py'}")
        patch.setenv("MIO_PLUGINS", os.pathsep.join(packages))
        folder = once(tmp_path_factory, "added_modalities", make)
        patch.chdir(folder)
        yield folder


def opened(name):
    return Run.open(f"runs/{name}", PluginManager.discover())


def logits(transformer, vocabulary, size):
    """float32 [L, size] after each token of a line of text, which only has ids that all vocabularies have alike."""
    tokens = torch.tensor([vocabulary.blocks[0].start + byte for byte in LINE.encode()])[None]
    with torch.inference_mode():
        hidden = transformer.eval()(tokens, torch.arange(tokens.shape[1])[None]).hidden
        return transformer.logits(hidden, size)[0]


def names(vocabulary):
    return [block.name for block in vocabulary.blocks]


def rows_by_name(run):
    weight = run.weights()["embedding.weight"]
    return {block.name: weight[block.start : block.start + block.size] for block in run.vocabulary.blocks}


@pytest.mark.parametrize("order", ORDERS)
def test_old_logits_stay_bit_by_bit_when_modalities_are_added(order):
    """Before any training: what start_from makes of the base, with both modalities, listed in either order."""
    base, manager = opened("base"), PluginManager.discover()
    plugins = manager.enable({"text": {"tokenizer": "bytes"}, **{name: {} for name in order}})
    vocabulary = Vocabulary.build(
        base.codecs.text, plugins.modalities(), plugins.control_tokens(), base=base.vocabulary
    )
    old = base.vocabulary.size
    assert names(vocabulary)[: len(names(base.vocabulary))] == names(base.vocabulary)
    module = MioModule(transformer_config(base.recipe, manager), vocabulary, TrainConfig())
    report = start_weights(module.transformer, vocabulary, base, seed=0)
    assert (report["kept"], report["new"]) == (old, vocabulary.size - old)
    now, was = module.transformer, base.transformer
    assert torch.equal(logits(now, vocabulary, old), logits(was, base.vocabulary, old))
    among_all = logits(now, vocabulary, vocabulary.size)[:, :old]  # a wider product may be summed in another order
    torch.testing.assert_close(among_all, logits(was, base.vocabulary, old), rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_new_rows_are_those_that_the_stage_adds(order):
    first, second = order
    before, one, both = opened("base"), opened(f"one-{first}"), opened(f"both-{first}-{second}")
    base_rows, one_rows, both_rows = rows_by_name(before), rows_by_name(one), rows_by_name(both)
    for name, rows in base_rows.items():
        assert torch.equal(rows, one_rows[name])
    for name, rows in one_rows.items():  # no longer new
        assert torch.equal(rows, both_rows[name])
    weight = before.weights()["embedding.weight"]
    for earlier, run in ((before, one), (one, both)):
        drawn, report = migrate_rows(weight, earlier.vocabulary, run.vocabulary, run.recipe.seed)
        assert report.new > 0
        for block in run.vocabulary.blocks[len(earlier.vocabulary.blocks) :]:
            assert not torch.equal(rows_by_name(run)[block.name], drawn[block.start : block.start + block.size])
        weight = run.weights()["embedding.weight"]
        size = before.vocabulary.size  # nothing but new rows was trained: texts have the logits that they had
        assert torch.equal(
            logits(run.transformer, run.vocabulary, size), logits(before.transformer, before.vocabulary, size)
        )


def test_checkpoints_of_one_order_load_into_the_other_by_name():
    one, other = opened("both-melody-outline"), opened("both-outline-melody")
    assert names(one.vocabulary) != names(other.vocabulary)
    assert set(names(one.vocabulary)) == set(names(other.vocabulary))
    for given, taken in ((one, other), (other, one)):
        module = MioModule(transformer_config(taken.recipe, PluginManager.discover()), taken.vocabulary, TrainConfig())
        report = start_weights(module.transformer, taken.vocabulary, given, seed=0)
        assert report == {"kept": taken.vocabulary.size, "new": 0, "absent": 0}
        weight, was = module.transformer.embedding.weight, given.weights()["embedding.weight"]
        place = torch.tensor([given.vocabulary.id(taken.vocabulary.token(id)) for id in range(taken.vocabulary.size)])
        assert not torch.equal(place, place.sort().values)
        assert torch.equal(weight[: taken.vocabulary.size], was[place])
        moved = logits(module.transformer, taken.vocabulary, taken.vocabulary.size)
        here = logits(given.transformer, given.vocabulary, given.vocabulary.size)
        torch.testing.assert_close(moved, here[:, place], rtol=0, atol=1e-6)


def test_a_stage_and_a_loaded_model_take_the_other_orders_checkpoint():
    """By `start_from` a recipe that lists them the other way round goes on with all rows, in the places they have."""
    given, crossed = opened("both-melody-outline"), opened("crossed")
    assert list(crossed.recipe.plugins) == ["text", "outline", "melody"]
    assert names(crossed.vocabulary) == names(given.vocabulary)
    assert crossed.summary["vocabulary"]["rows"] == {"kept": given.vocabulary.size, "new": 0, "absent": 0}
    assert torch.equal(crossed.weights()["embedding.weight"], given.weights()["embedding.weight"])
    scores = [mio.load(f"runs/{name}").score(LINE) for name in ("both-melody-outline", "crossed")]
    assert scores[0].log_likelihood == scores[1].log_likelihood


def test_an_interrupted_stage_has_the_same_new_rows(folder, tmp_path, monkeypatch):
    whole = opened("both-melody-outline").weights()
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    run = tmp_path / "copy/runs/both-melody-outline"
    for name in ("summary.json", "model.safetensors"):
        (run / name).unlink()
    shutil.rmtree(latest(run / "checkpoints"))
    lock = Lock.read(run)
    lock.unsealed().save(run / "recipe.lock")
    assert "going on from" in fit("both-melody-outline")
    for name, tensor in opened("both-melody-outline").weights().items():
        assert torch.equal(tensor, whole[name]), name
