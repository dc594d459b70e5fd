"""Exact resume: a run that is stopped and continued ends with the weights of an undisturbed run, bit by bit."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch
from conftest import fit, once, start, tunes_in

from mio.core.contract.plugins import PluginManager
from mio.core.errors import Interrupted, UserError
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.checkpoints.reading import Checkpoint
from mio.core.runs.run import Run
from mio.core.stages.fit import Stage, fit_chain
from mio.core.training.callbacks import StepTables
from mio.core.training.module import MioModule

STEPS = 60


def weights(runs):
    return (runs / "tunes/model.safetensors").read_bytes()


def steps_logged(runs):
    with (runs / "tunes/metrics.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def stop_after_a_checkpoint(process, runs, number):
    """Sends a signal to the process and its data workers, as the terminal does, once a checkpoint is there."""
    deadline = time.monotonic() + 120
    while latest(runs / "tunes/checkpoints") is None:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=120)
    assert not (runs / "tunes/summary.json").exists(), "the run was over before it was stopped"
    return process.returncode, out, err


@pytest.fixture
def undisturbed(tunes, tmp_path_factory):
    """The runs folder of a training from beginning to end; the test's own copy."""

    def make(folder):
        with tunes_in(folder):
            fit("runs")

    shutil.copytree(once(tmp_path_factory, "undisturbed", make) / "runs", tunes / "undisturbed")
    return tunes / "undisturbed"


def test_a_run_that_is_interrupted_or_killed_goes_on_exactly(tunes, undisturbed):
    interrupted, killed = tunes / "interrupted", tunes / "killed"

    arguments = ("fit", "tunes.yaml", f"runtime.runs={interrupted}", "runtime.workers=2")
    process = start(*arguments, start_new_session=True)
    code, _, err = stop_after_a_checkpoint(process, interrupted, signal.SIGINT)
    assert code == 130, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("interrupted: stopped by SIGINT after step ")
    assert "the same command goes on from there" in err
    assert "going on from" in fit(interrupted, "runtime.workers=2")
    assert weights(interrupted) == weights(undisturbed)
    assert steps_logged(interrupted) == steps_logged(undisturbed) == list(range(10, STEPS + 1, 10))

    process = start("fit", "tunes.yaml", f"runtime.runs={killed}", start_new_session=True)
    code, _, _ = stop_after_a_checkpoint(process, killed, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert "going on from" in fit(killed, "runtime.workers=2")
    assert weights(killed) == weights(undisturbed)
    assert steps_logged(killed) == steps_logged(undisturbed)

    reports = [json.loads((runs / "tunes/summary.json").read_text()) for runs in (undisturbed, interrupted, killed)]
    for name in ("tokens", "mixture", "packing", "codebooks"):
        assert reports[0][name] == reports[1][name] == reports[2][name], name


LOOKED_AT = ("data.held_out=0.1", "validate.every=7", "validate.items=10")
SPEED = ("tokens_per_second", "mfu", "validation/seconds")


def metrics(runs):
    with (runs / "tunes/metrics.csv").open() as file:
        return [{name: value for name, value in row.items() if name not in SPEED} for row in csv.DictReader(file)]


def test_validation_is_neither_missed_nor_repeated_when_a_run_goes_on(tunes):
    """Killed, with logged steps, validations and checkpoints at different ones: each step has one line, and all figures
    are those of the undisturbed run."""
    whole, parts = tunes / "whole", tunes / "parts"
    printed = fit(whole, *LOOKED_AT)
    assert printed.count("validation, step") == 9
    process = start("fit", "tunes.yaml", f"runtime.runs={parts}", *LOOKED_AT, start_new_session=True)
    wait_for_step(process, parts, 43)  # after a validation that follows the last checkpoint
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (parts / "tunes/summary.json").exists(), "the run was over before it was killed"
    fit(parts, *LOOKED_AT, "runtime.workers=1")
    assert weights(parts) == weights(whole)
    assert metrics(parts) == metrics(whole)
    assert steps_logged(whole) == sorted({*range(10, 61, 10), *range(7, 61, 7)})
    reports = [json.loads((runs / "tunes/summary.json").read_text())["validation"] for runs in (whole, parts)]
    assert [report["figures"] for report in reports] == [reports[0]["figures"]] * 2
    assert reports[0]["step"] == 60
    assert reports[0]["figures"]["loss"]["last"] == float(metrics(whole)[-1]["validation/loss"])


def wait_for_step(process, runs, step):
    deadline = time.monotonic() + 120
    journal = runs / "tunes/journal.csv"
    while not journal.is_file() or journal.read_bytes().count(b"\n") <= step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_the_number_of_workers_does_not_matter_and_the_seed_does(tunes, undisturbed):
    fit(tunes / "workers", "runtime.workers=3")
    fit(tunes / "seed", "seed=1")
    assert weights(tunes / "workers") == weights(undisturbed)
    assert weights(tunes / "seed") != weights(undisturbed)


def test_ramps_and_schedules_go_on_exactly(tunes):
    """A run is put back to its middle checkpoint and goes on with data workers: names go while the notes come."""
    points = "[{at: 0.3, ratios: {melody: 1, names: 3}}, {ratios: {melody: 1, names: 0}}]"
    ramp = f"mixture={{ratios: {{melody: 0, names: 1}}, ramp: {points}}}"
    rules = "rules: {embedding: {pattern: embedding.weight, schedule: constant, warmup: 0}}"
    changes = (ramp, f"train.optimizer={{schedule: wsd, decay: 0.5, {rules}}}", "train.steps=20", "runtime.log_every=5")
    fit(tunes / "whole", *changes)
    shutil.copytree(tunes / "whole", tunes / "again")
    folder = tunes / "again/tunes"
    for path in (folder / "summary.json", folder / "model.safetensors"):
        path.unlink()
    shutil.rmtree(folder / "checkpoints/step-00000020")
    assert "going on from" in fit(tunes / "again", *changes, "runtime.workers=2")
    assert weights(tunes / "again") == weights(tunes / "whole")

    def table(runs):
        with (runs / "tunes/metrics.csv").open() as file:
            lines = list(csv.DictReader(file))
        return [{name: line[name] for name in line if name not in ("tokens_per_second", "mfu")} for line in lines]

    lines = table(tunes / "whole")
    assert table(tunes / "again") == lines
    assert [float(line["lr/embedding"]) for line in lines] == pytest.approx([3e-3] * 4)
    falling = [1, 1, 1 - 0.4**0.5, 1 - 0.9**0.5]  # by one minus a square root over the last ten steps
    assert [float(line["lr"]) for line in lines] == pytest.approx([3e-3 * factor for factor in falling], abs=1e-12)
    # by hand: 6 of 20 steps from 0 to 1/4, 14 from there to 1
    targets = {5: 5 / 6 / 8, 10: (0.75 + 4 * (0.25 + 0.75 * 2 / 14)) / 10, 20: (0.75 + 14 * 0.625) / 20}
    for line in lines[:2]:
        target, achieved = (float(line[f"mixture/melody/{kind}"]) for kind in ("target", "achieved"))
        assert target == pytest.approx(targets[int(line["step"])], abs=5e-3)  # rows are not equally full
        assert abs(target - achieved) < 96 / (4 * 4 * 80)
    report = json.loads((tunes / "whole/tunes/summary.json").read_text())["mixture"]["names"]
    assert report["target"] == pytest.approx(1 - targets[20], abs=5e-3)
    assert report["achieved"] == pytest.approx(report["target"], abs=96 / (20 * 4 * 80))


def test_a_step_whose_loss_is_not_finite_is_in_no_mean(tunes, monkeypatch):
    """The second of four: its loss is in neither what is logged nor what a checkpoint is judged by."""
    loss_sum = MioModule.loss_sum

    def spoilt(module, batch, scale=1.0):
        losses = loss_sum(module, batch, scale)
        factor = torch.nan if module.trainer.global_step == 1 else 1.0
        return losses._replace(total=losses.total * factor, nll=losses.nll * factor)

    monkeypatch.setattr(MioModule, "loss_sum", spoilt)
    fit(tunes / "runs", "train.steps=4", "runtime.log_every=2", "runtime.checkpoint_every=2", "runtime.keep_last=9")
    with (tunes / "runs/tunes/metrics.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first["guard/not_finite"] == "1"
    losses = [Checkpoint(tunes / f"runs/tunes/checkpoints/step-{step:08}").loss for step in (2, 4)]
    assert [float(line["loss"]) for line in (first, second)] == pytest.approx(losses, rel=1e-3)
    assert all(map(math.isfinite, losses))


def test_a_run_that_died_between_training_and_summary_only_writes_the_summary(undisturbed):
    folder = undisturbed / "tunes"
    before, report = weights(undisturbed), json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").unlink()
    fit(undisturbed)
    again = json.loads((folder / "summary.json").read_text())
    assert weights(undisturbed) == before
    assert {**again, "wall_seconds": 0} == {**report, "wall_seconds": 0}
    assert steps_logged(undisturbed) == list(range(10, STEPS + 1, 10))


def test_a_half_written_checkpoint_is_not_taken_for_a_whole_one(undisturbed):
    folder = undisturbed / "tunes"
    (folder / "summary.json").unlink()
    half = folder / "checkpoints/step-00000070.partial-earlier"
    half.mkdir()
    (half / "rank-00000.safetensors").write_bytes(b"half")
    fit(undisturbed)
    assert (folder / "summary.json").is_file()
    assert not half.exists()


def test_a_run_folder_is_not_continued_with_other_data(tunes, undisturbed):
    """The recipe is the same, the file that it reads is not, if only by its middle: neither going on nor verifying will
    have it. A finished run does not mind."""
    from mio.core.errors import DataError
    from mio.core.stages.verify import verify

    manager = PluginManager.discover()
    undisturbed.rename(tunes / "runs")
    assert verify(tunes / "runs/tunes", manager).exact
    lines = (tunes / "names.jsonl").read_text()
    (tunes / "names.jsonl").write_text(lines.replace("number 7", "number 9"))
    assert "is finished; nothing to do" in fit(tunes / "runs")
    message = r"runs/tunes: the run's data have changed since it began: names/lines: names\.jsonl\. Restore"
    with pytest.raises(DataError, match=message):
        verify(tunes / "runs/tunes", manager)
    (tunes / "runs/tunes/summary.json").unlink()
    with pytest.raises(DataError, match=message):
        fit(tunes / "runs")
    (tunes / "names.jsonl").write_text(lines)
    for damage in ("", '{"names/lines": {}}', None):
        path = tunes / "runs/tunes/sources.json"
        path.write_text(damage) if damage is not None else path.unlink()
        with pytest.raises(DataError, match=r"sources\.json: .*; restore it from a copy, or start a new run"):
            fit(tunes / "runs")


def test_a_signal_in_the_last_step_is_obeyed(tunes, monkeypatch):
    """There is no next step that would see it: the run ends all the same, and goes on with what comes after."""
    settings = ("train.steps=3", "train.rows=2")
    fit("whole", *settings)
    add = StepTables.add

    def interrupt(tables, entry):
        add(tables, entry)
        if entry.step == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(StepTables, "add", interrupt)
        with pytest.raises(Interrupted, match="stopped by SIGTERM after step 3 of 3"):
            fit("late", *settings)
    assert not (tunes / "late/tunes/summary.json").exists()
    assert "going on from" in fit("late", *settings)
    whole, late = (tunes / runs / "tunes/model.safetensors" for runs in ("whole", "late"))
    assert late.read_bytes() == whole.read_bytes()


def test_samples_of_an_attempt_of_which_no_step_was_kept_are_deleted(tunes):
    old = tunes / "runs/tunes/samples/step-00000175"
    old.mkdir(parents=True)
    fit("runs", "train.steps=1", "train.rows=2")
    assert not old.exists()


def test_a_checkpoint_from_before_the_average_is_looked_at_as_it_is(tunes, capsys):
    """`evaluate.average` is of the run's end; nobody has asked for the average of this checkpoint."""
    average = ("train.average={kind: ema, start: 0.7}", "evaluate.average=true")
    fit("runs", "train.steps=4", "train.rows=2", "runtime.checkpoint_every=1", "runtime.keep_last=9", *average)
    manager, told = PluginManager.discover(), []
    early, late = (tunes / f"runs/tunes/checkpoints/step-0000000{step}" for step in (1, 4))
    assert not Run.open(early, manager, told.append, average=None).average
    assert told == [f"{early}: holds no average of the weights yet; taken are the weights as they are"]
    run = Run.open(late, manager, average=None)
    assert run.average
    other = replace(run.recipe, evaluate=replace(run.recipe.evaluate, average=False))
    assert not run.with_recipe(other).average
    with pytest.raises(UserError, match="holds no average of the weights; leave out --average"):
        Run.open(early, manager, average=True).weights()
    capsys.readouterr()


def test_threads_of_one_stage_are_not_those_of_the_next(tunes, monkeypatch):
    """As many as where it is trained alone: their number decides the last bits."""
    (tunes / "next.yaml").write_text("{include: [tunes.yaml], name: next, start_from: tunes.yaml}")
    seen, before = {}, torch.get_num_threads()
    monkeypatch.setattr(Stage, "fit", lambda stage: seen.update({stage.recipe.name: torch.get_num_threads()}))
    torch.set_num_threads(3)
    try:
        fit_chain(
            ["next.yaml"], ["stages.tunes.runtime.threads=1", "stages.next.runtime.threads=0"], PluginManager.discover()
        )
    finally:
        torch.set_num_threads(before)
    assert seen == {"tunes": 1, "next": 3}
