"""Stages with adapters: one process and several, killed and resumed, and on top of each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROUNDED_WEIGHTS, call, once, tunes_in
from safetensors.torch import load_file

import mio
from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.checkpoints.reading import Checkpoint
from mio.core.runs.run import Run

ADAPT = """
include: [tunes.yaml]
name: adapt
start_from: runs/plain
train:
  steps: 8
  precision: fp32
  lora: {rank: 4, dora: true, train: [norm.weight]}
  optimizer: {kind: adamw, lr: 3e-3}
runtime: {log_every: 1, checkpoint_every: 4, keep_last: 9}
"""
PLAIN = """
name: plain
plugins: {text: {tokenizer: bytes}}
model: {width: 64, layers: 2, heads: 2, qk_norm: true, tied_embeddings: true}
data:
  groups: {names: {sources: {lines: {dataset: jsonl, options: {path: names.jsonl}, templates: text}}}}
  packing: {context: 96}
mixture: {ratios: {names: 1}}
train: {steps: 4, rows: 4}
runtime: {threads: 1, accelerator: cpu}
"""


def made(folder):
    """A plain stage, and one with adapters after it, in one process."""
    with tunes_in(folder):
        (folder / "plain.yaml").write_text(PLAIN)
        (folder / "adapt.yaml").write_text(ADAPT)
        assert app.run(["fit", "plain.yaml"]) == 0
        assert app.run(["fit", "adapt.yaml"]) == 0


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return once(tmp_path_factory, "adapters", made)


@pytest.fixture
def work(alone, tmp_path):
    """Works in a copy."""
    shutil.copytree(alone, tmp_path / "work")
    with tunes_in(tmp_path / "work"):
        yield tmp_path / "work"


def run_of(folder):
    return Run(folder, PluginManager.discover())


def test_what_a_run_with_adapters_holds(work):
    base, trained = (load_file(work / "runs/adapt" / file) for file in ("base.safetensors", "model.safetensors"))
    assert not base.keys() & (trained.keys() - {"norm.weight"})
    assert {name.rpartition(".")[2] for name in trained} == {"lora_a", "lora_b", "magnitude", "embedding", "weight"}
    assert trained["rows.embedding"].shape == (10, 64)  # the melody's codes and borders
    names = set(Checkpoint(latest(work / "runs/adapt/checkpoints")).names)
    assert {name.removeprefix("model.") for name in names if name.startswith("model.")} == trained.keys()
    state = {name.removeprefix("optimizer.").rpartition(".")[0] for name in names if name.startswith("optimizer.")}
    assert state == trained.keys()
    lock = json.loads((work / "runs/adapt/recipe.lock").read_text())
    assert "base.safetensors" in lock["files"]
    assert json.loads((work / "runs/adapt/summary.json").read_text())["vocabulary"]["rows"] == {
        "kept": 261,
        "new": 10,
        "absent": 0,
    }


@pytest.mark.parametrize("how", ["sharding=full", "tensor_parallel=2"])
def test_two_processes_train_the_same_adapters(work, how):
    code, _, err = call("fit", "adapt.yaml", "runtime.runs=two", "runtime.devices=2", f"runtime.{how}")
    assert code == 0, err
    one, two = (load_file(work / runs / "adapt/model.safetensors") for runs in ("runs", "two"))
    assert one.keys() == two.keys()
    if how == "sharding=full":
        assert all(torch.equal(one[name], two[name]) for name in one)
    for name in one:
        assert torch.dist(two[name], one[name]) <= ROUNDED_WEIGHTS * one[name].norm(), name


def test_a_stopped_run_goes_on_exactly(work):
    shutil.copytree(work / "runs/adapt", work / "whole")
    for file in ("summary.json", "model.safetensors", "checkpoints/step-00000008"):
        path = work / "runs/adapt" / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.move(work / "runs/adapt", work / "elsewhere")
    (work / "runs/adapt").mkdir()
    for path in (work / "elsewhere").iterdir():
        shutil.move(path, work / "runs/adapt")
    assert app.run(["fit", "adapt.yaml"]) == 0
    for file in ("model.safetensors", "base.safetensors", "metrics.csv", "journal.csv"):
        ours, theirs = (work / folder / file for folder in ("runs/adapt", "whole"))
        if file == "metrics.csv":  # speed differs
            ours, theirs = ([line.split(",")[:2] for line in path.read_text().splitlines()] for path in (ours, theirs))
            assert ours == theirs
        else:
            assert ours.read_bytes() == theirs.read_bytes(), file


def test_a_base_that_changed_is_refused(work, capsys):
    (work / "runs/adapt/summary.json").unlink()
    path = work / "runs/adapt/base.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert app.run(["fit", "adapt.yaml"]) == 2
    assert "base.safetensors: is not what the run wrote" in capsys.readouterr().err
    path.unlink()
    assert app.run(["generate", "runs/adapt", "a"]) == 2
    assert "base.safetensors: is missing" in capsys.readouterr().err


def test_a_stage_after_adapters_starts_from_folded_weights(work, capsys):
    still = ("train.steps=1", "train.optimizer.lr=0")
    assert app.run(["fit", "adapt.yaml", "name=next", "start_from=runs/adapt", *still, "train.lora.dora=false"]) == 0
    assert "the adapters of runs/adapt are folded into its weights" in capsys.readouterr().out
    assert (
        app.run(["fit", "adapt.yaml", "name=full", "start_from=runs/adapt", *still, "train.lora={_replace_: true}"])
        == 0
    )
    before = run_of(work / "runs/adapt").transformer.state_dict()
    for name in ("next", "full"):
        after = run_of(work / "runs" / name).transformer.state_dict()
        assert before.keys() == after.keys()
        for key in before:
            assert torch.equal(after[key], before[key]), key
    assert not (work / "runs/full/base.safetensors").exists()


@pytest.mark.usefixtures("work")
def test_mistakes_are_told_before_anything_is_read(capsys):
    wrong = {
        "train.lora.targets=['layers.*.atention.*']": "matches no linear layer",
        "train.lora.rank=100": "rank 100 is larger than the matrix",
        "start_from=''": "`train.lora` adapts a trained model, and `start_from` names none",
        "train.lora.rank=0": "`train.lora.rank` is 0, and the whole model would be trained",
    }
    for override, told in wrong.items():
        assert app.run(["recipe", "check", "adapt.yaml", override]) == 2
        assert told in capsys.readouterr().err
    rules = "train.optimizer.rules.x={pattern: embedding.weight, lr_scale: 2}"
    assert app.run(["fit", "adapt.yaml", "name=other", rules]) == 2
    assert "`embedding.weight` matches no parameter" in capsys.readouterr().err


@torch.no_grad()
@pytest.mark.usefixtures("work")
def test_a_run_with_adapters_answers_and_scores_in_python():
    run = mio.load("runs/adapt", "cpu")
    parts = ["melody number ", {"type": "melody", "melody": (0, 1, 5)}]
    found = run.score(parts)
    whole, tokens = run_of(Path("runs/adapt")).transformer, torch.tensor(found.tokens[None], dtype=torch.int64)
    logits = whole.logits(whole(tokens, torch.arange(tokens.shape[1])[None]).hidden, run.model.vocabulary.size)
    expected = logits[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
    torch.testing.assert_close(torch.from_numpy(found.log_likelihoods[1:]), expected, atol=1e-4, rtol=1e-4)
    assert len(run.generate(parts, "melody", max_tokens=30).media("melody")) == 1
