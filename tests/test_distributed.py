"""Runs of several processes: the same rows, the same weights, whatever the ranks and whatever dies."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROUNDED_LOSSES, ROUNDED_WEIGHTS, call, fit, once, start, tunes_in
from safetensors.torch import load_file

from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.checkpoints.reading import Checkpoint
from mio.core.runs.run import Run
from mio.core.tokens.vocabulary import Vocabulary

EXACT = ("train.precision=fp32", "runtime.log_every=1")
SHORT = (*EXACT, "train.steps=10", "train.optimizer.kind=adamw")


def fit_on(ranks, runs, *overrides):
    """Trains `tunes.yaml` in as many processes; returns what was printed."""
    code, out, err = call("fit", "tunes.yaml", f"runtime.runs={runs}", f"runtime.devices={ranks}", *overrides)
    assert code == 0, err
    return out


def journal(runs):
    return (runs / "tunes/journal.csv").read_text()


def losses(runs):
    with (runs / "tunes/metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def processes(parent):
    """Ranks that a `mio fit` has started."""
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout
    return [int(line) for line in found.split()]


def wait_for_checkpoint(process, runs, after=0):
    deadline = time.monotonic() + 120
    while (path := latest(runs / "tunes/checkpoints")) is None or Checkpoint(path).step <= after:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return Checkpoint(path).step


@pytest.fixture
def alone(tmp_path_factory):
    """Runs folder of the same recipe in one process, cut into the forward passes that two ranks make. To be read."""

    def make(folder):
        with tunes_in(folder):
            fit("runs", *EXACT)

    return once(tmp_path_factory, "alone", make) / "runs"


@pytest.fixture
def shortly_alone(tmp_path_factory):
    """The same for a few steps of AdamW."""

    def make(folder):
        with tunes_in(folder):
            fit("runs", *SHORT)

    return once(tmp_path_factory, "shortly_alone", make) / "runs"


def test_two_ranks_end_with_the_weights_of_one_process_bit_by_bit(tunes, alone, capsys):
    fit_on(2, tunes / "two", *EXACT)
    assert losses(tunes / "two") == losses(alone)
    assert journal(tunes / "two") == journal(alone)
    assert (tunes / "two/tunes/model.safetensors").read_bytes() == (alone / "tunes/model.safetensors").read_bytes()
    assert app.run(["recipe", "verify", str(tunes / "two/tunes")]) == 0
    assert "60 steps, each trained on exactly the rows that the recipe plans" in capsys.readouterr().out


@pytest.mark.parametrize(("how", "recomputed"), [("tensor_parallel=2", "selective"), ("sharding=none", "full")])
def test_other_ways_to_spread_the_model_train_the_same(tunes, shortly_alone, how, recomputed):
    fit_on(2, tunes / "two", *SHORT, f"runtime.{how}", f"runtime.activation_checkpointing={recomputed}")
    assert journal(tunes / "two") == journal(shortly_alone)
    assert losses(tunes / "two") == pytest.approx(losses(shortly_alone), abs=ROUNDED_LOSSES)
    one, two = (load_file(runs / "tunes/model.safetensors") for runs in (shortly_alone, tunes / "two"))
    for name in one:
        assert torch.dist(two[name], one[name]) <= ROUNDED_WEIGHTS * one[name].norm(), name


def test_a_head_with_a_bias_is_split_with_it(tunes):
    biased = (*SHORT, "train.steps=4", "model={tied_embeddings: false, head_bias: true}")
    fit(tunes / "one", *biased)
    fit_on(2, tunes / "two", *biased, "runtime.tensor_parallel=2")
    assert losses(tunes / "two") == pytest.approx(losses(tunes / "one"), abs=ROUNDED_LOSSES)
    one, two = (load_file(tunes / name / "tunes/model.safetensors") for name in ("one", "two"))
    assert one["head.bias"].any()
    for name in one:
        assert torch.dist(two[name], one[name]) <= ROUNDED_WEIGHTS * one[name].norm(), name


def test_the_average_of_the_weights_is_the_same_on_any_ranks_and_changes_no_training(tunes, capsys):
    """Beside the recurrence over the checkpoints of every step; a run is put back to its middle and goes on alone."""
    plain = (*EXACT, "train.steps=6", "runtime.checkpoint_every=1", "runtime.keep_last=9", "data.held_out=0.2")
    plain += ("validate.every=3",)
    kept = (*plain, "train.average={kind: ema, decay: 0.3}", "validate.average=true")
    fit(tunes / "plain", *plain)
    fit(tunes / "one", *kept)
    fit_on(2, tunes / "two", *kept)
    folder = tunes / "two/tunes"
    results = {name: (folder / name).read_bytes() for name in ("model.safetensors", "average.safetensors")}
    assert {name: (tunes / "one/tunes" / name).read_bytes() for name in results} == results
    assert (tunes / "plain/tunes/model.safetensors").read_bytes() == results["model.safetensors"]
    assert losses(tunes / "plain") == losses(tunes / "two")
    looked_at = [
        json.loads((tunes / runs / "tunes/summary.json").read_text())["validation"] for runs in ("plain", "two")
    ]
    assert looked_at[0]["figures"]["loss"] != looked_at[1]["figures"]["loss"]

    steps = [Checkpoint(folder / f"checkpoints/step-{step:08}") for step in range(1, 7)]
    for name, average in load_file(folder / "average.safetensors").items():
        expected = steps[0].read(f"model.{name}").double()
        for count, checkpoint in enumerate(steps[1:], 1):
            decay = min(0.3, (1 + count) / (10 + count))
            expected = decay * expected + (1 - decay) * checkpoint.read(f"model.{name}")
        torch.testing.assert_close(average.double(), expected, rtol=0, atol=1e-6, msg=name)
        assert torch.equal(steps[-1].read(f"average.{name}"), average)

    for name in ("summary.json", *results):
        (folder / name).unlink()
    for step in (4, 5, 6):
        shutil.rmtree(folder / f"checkpoints/step-{step:08}")
    assert "going on from" in fit(tunes / "two", *kept)
    assert {name: (folder / name).read_bytes() for name in results} == results

    manager = PluginManager.discover()
    whole = load_file(folder / "average.safetensors")
    for place in (folder, folder / "checkpoints/step-00000006"):
        state = Run.open(place, manager, average=True).transformer.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in whole.items())
    capsys.readouterr()
    assert app.run(["export", str(folder), str(tunes / "exported"), "--average"]) == 0
    exported = load_file(tunes / "exported/model.safetensors")
    assert any(torch.equal(tensor, whole["layers.0.attention.output.weight"]) for tensor in exported.values())
    capsys.readouterr()
    assert app.run(["generate", str(tunes / "plain/tunes"), "la", "--average"]) == 2
    assert "has no average of its weights; leave out --average" in capsys.readouterr().err
    (folder / "average.safetensors").write_bytes(b"another")
    assert app.run(["evaluate", str(folder), "--average"]) == 2
    assert "average.safetensors: is not what the run wrote" in capsys.readouterr().err


VALIDATED = ("data.groups.melody.sources.tunes.validation_split=test", "validate.every=4", "validate.items=20")


@pytest.fixture
def validated_alone(tmp_path_factory):
    """As `shortly_alone`, with validation."""

    def make(folder):
        with tunes_in(folder):
            fit("runs", *SHORT, *VALIDATED)

    return once(tmp_path_factory, "validated_alone", make) / "runs"


def validation(runs):
    with (runs / "tunes/metrics.csv").open() as file:
        return [
            {name: value for name, value in row.items() if name.startswith("validation/loss")}
            for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize("how", ["reshard=false", "tensor_parallel=2"])
def test_validation_changes_nothing_on_two_ranks_and_finds_what_one_finds(tunes, shortly_alone, validated_alone, how):
    assert journal(validated_alone) == journal(shortly_alone)
    weights = "tunes/model.safetensors"
    assert (validated_alone / weights).read_bytes() == (shortly_alone / weights).read_bytes()
    fit_on(2, tunes / "two", *SHORT, *VALIDATED, f"runtime.{how}")
    assert journal(tunes / "two") == journal(shortly_alone)
    found, expected = validation(tunes / "two"), validation(validated_alone)
    assert [bool(row["validation/loss"]) for row in found] == [step in (4, 8, 10) for step in range(1, 11)]
    if how == "reshard=false":
        assert found == expected
        assert (tunes / "two" / weights).read_bytes() == (shortly_alone / weights).read_bytes()
    else:
        assert [row.keys() for row in found] == [row.keys() for row in expected]
        for one, other in zip(found, expected, strict=True):
            assert [float(value or 0) for value in one.values()] == pytest.approx(
                [float(value or 0) for value in other.values()], abs=1e-5
            )


def test_a_rank_that_dies_is_started_again_and_nothing_is_lost(tunes, alone):
    process = start("fit", "tunes.yaml", f"runtime.runs={tunes / 'two'}", *EXACT, "runtime.devices=2")
    wait_for_checkpoint(process, tunes / "two")
    os.kill(processes(process.pid)[1], signal.SIGKILL)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "a process was ended by SIGKILL: starting again from the last checkpoint" in out
    assert "going on from" in out
    assert journal(tunes / "two") == journal(alone)
    assert (tunes / "two/tunes/model.safetensors").read_bytes() == (alone / "tunes/model.safetensors").read_bytes()


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_killed_run_goes_on_with_another_number_of_ranks(tunes, alone, before, after):
    runs = tunes / "killed"
    arguments = ("fit", "tunes.yaml", f"runtime.runs={runs}", *EXACT)
    process = start(*arguments, f"runtime.devices={before}", "runtime.restarts=0", start_new_session=True)
    wait_for_checkpoint(process, runs)
    for number in [*processes(process.pid), process.pid]:
        os.kill(number, signal.SIGKILL)
    process.communicate()
    assert not (runs / "tunes/summary.json").exists()
    on = (runs, *EXACT, "runtime.workers=1")
    out = fit(*on) if after == 1 else fit_on(after, *on)
    assert "going on from" in out
    assert journal(runs) == journal(alone)
    assert losses(runs) == losses(alone)
    assert (runs / "tunes/model.safetensors").read_bytes() == (alone / "tunes/model.safetensors").read_bytes()


def test_a_signal_makes_all_ranks_save_and_stop_at_the_same_step(tunes, alone):
    runs = tunes / "stopped"
    arguments = ("fit", "tunes.yaml", f"runtime.runs={runs}", *EXACT, "runtime.devices=2")
    process = start(*arguments)
    wait_for_checkpoint(process, runs)
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    step = Checkpoint(latest(runs / "tunes/checkpoints")).step
    assert f"interrupted: stopped by SIGTERM after step {step} of 60; the same command goes on" in err
    fit_on(2, runs, *EXACT)
    assert journal(runs) == journal(alone)


def test_what_ends_one_rank_ends_all_of_them_and_is_told_once(tunes):
    process = start("fit", "tunes.yaml", "train.steps=5000", "runtime.devices=2")
    wait_for_checkpoint(process, tunes / "runs")
    shutil.rmtree(tunes / "runs/tunes", ignore_errors=True)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    assert "runs/tunes" in err


def test_a_rank_that_cannot_write_its_part_of_a_checkpoint_ends_all_of_them_and_is_told_once(tunes):
    process = start("fit", "tunes.yaml", "train.steps=5000", "runtime.devices=2")
    wait_for_checkpoint(process, tunes / "runs")
    resource.prlimit(processes(process.pid)[1], resource.RLIMIT_FSIZE, (1000, 1000))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert len(err.splitlines()) == 1, err
    assert "could not be written: File too large; make room or mend the folder" in err
    checkpoint = Checkpoint(latest(tunes / "runs/tunes/checkpoints"))
    assert all(checkpoint.read(name).isfinite().all() for name in checkpoint.names)


def test_torchrun_starts_it_unchanged(tunes, alone):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "mio",
        "fit",
    ]
    done = subprocess.run(
        [*command, "tunes.yaml", f"runtime.runs={tunes / 'two'}", *EXACT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert journal(tunes / "two") == journal(alone)
    assert losses(tunes / "two") == losses(alone)


@pytest.mark.usefixtures("tunes")
def test_mistakes_are_told_once_and_not_tried_again():
    for mistake, message in (
        ("train.rows=3", "which 2 devices cannot share equally"),
        ("data.groups.names.sources.lines.options.path=gone.jsonl", "gone.jsonl"),
        ("runtime.tensor_parallel=3", "does not divide"),
    ):
        code, out, err = call("fit", "tunes.yaml", "runtime.devices=2", mistake)
        assert code == 2, (out, err)
        assert message in err
        assert len(err.strip().splitlines()) == 1, err
        assert "starting again" not in out
    code, _, err = call("fit", "tunes.yaml", "runtime.nodes=2")
    assert code == 2
    assert "torchrun --nnodes 2" in err


def test_split_experts_take_a_run_over_from_one_process_and_give_it_back_bit_by_bit(tunes):
    mixture = (*EXACT, "train.steps=6", "runtime.checkpoint_every=2", "runtime.keep_last=9", "train.average.kind=ema")
    mixture += ("model={experts: 4, ffn_width: 64, router_aux_weight: 0.02}",)
    fit(tunes / "one", *mixture)
    folder = tunes / "two/tunes"
    shutil.copytree(tunes / "one", tunes / "two")
    whole = Checkpoint(tunes / "one/tunes/checkpoints/step-00000006")
    results = {name: (folder / name).read_bytes() for name in ("model.safetensors", "average.safetensors")}

    def put_back(step):
        for name in ("summary.json", *results):
            (folder / name).unlink()
        for later in range(step + 2, 7, 2):
            shutil.rmtree(folder / f"checkpoints/step-{later:08}")

    put_back(2)
    out = fit_on(2, tunes / "two", *mixture, "runtime.expert_parallel=2")
    assert "going on from" in out
    assert {name: (folder / name).read_bytes() for name in results} == results
    assert losses(tunes / "two") == losses(tunes / "one")
    split = Checkpoint(folder / "checkpoints/step-00000006")
    assert split.names == whole.names
    assert all(torch.equal(split.read(name), whole.read(name)) for name in whole.names)
    assert len(list(split.path.glob("rank-*.safetensors"))) == 2

    put_back(4)
    assert "step-00000004" in fit(tunes / "two", *mixture)
    assert {name: (folder / name).read_bytes() for name in results} == results


def test_frozen_parameters_have_no_optimizer_state(tunes):
    rules = {
        "train": {"optimizer": {"kind": "adamw", "rules": {"first": {"pattern": "layers.0.*", "trainable": False}}}}
    }
    (tunes / "frozen.yaml").write_text(json.dumps(rules))
    code, _, err = call("fit", "tunes.yaml", "frozen.yaml", "train.steps=2", "runtime.devices=2")
    assert code == 0, err
    checkpoint = Checkpoint(latest(tunes / "runs/tunes/checkpoints"))
    with_state = {name.split(".", 1)[1].rsplit(".", 1)[0] for name in checkpoint.names if name.startswith("optimizer.")}
    models = {name.split(".", 1)[1] for name in checkpoint.names if name.startswith("model.")}
    assert with_state == {name for name in models if not name.startswith("layers.0.")}


PLAIN = """
name: plain
plugins: {text: {tokenizer: bytes}}
model: {width: 64, layers: 2, heads: 2, qk_norm: true, tied_embeddings: true}
data:
  groups: {names: {sources: {lines: {dataset: jsonl, options: {path: names.jsonl}, templates: text}}}}
  packing: {context: 96}
mixture: {ratios: {names: 1}}
train: {steps: 20, rows: 4}
runtime: {threads: 1, accelerator: cpu, checkpoint_every: 10, keep_last: 5}
"""


def test_a_stage_grows_from_a_checkpoint_that_other_ranks_wrote(tunes):
    """At a learning rate of 0, what three ranks end with is what they started with: the rows that two ranks had saved
    before their run was over, found by name in a vocabulary that has more."""
    (tunes / "plain.yaml").write_text(PLAIN)
    code, _, err = call("fit", "plain.yaml", "runtime.devices=2")
    assert code == 0, err
    (tunes / "runs/plain/model.safetensors").unlink()
    checkpoint = tunes / "runs/plain/checkpoints/step-00000010"
    frozen = ("train.optimizer.lr=0", "train.optimizer.muon_lr=0", "train.steps=2", "train.micro_rows=1")
    fit_on(3, tunes / "runs", f"start_from={checkpoint}", *frozen, "train.rows=3")
    was, now = Checkpoint(checkpoint), load_file(tunes / "runs/tunes/model.safetensors")
    old, new = (Vocabulary.load(tunes / f"runs/{name}/vocabulary.json") for name in ("plain", "tunes"))
    assert new.size > old.size
    assert new.blocks[: len(old.blocks)] == old.blocks
    for name, tensor in now.items():
        saved = was.read(f"model.{name}")
        rows = old.size if name == "embedding.weight" else len(saved)
        assert torch.equal(tensor[:rows], saved[:rows]), name
