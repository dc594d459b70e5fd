"""The log of a run: one line per step, whoever logs, and no step twice, whatever happened in between."""

from __future__ import annotations

import csv
import json

import pytest

from mio import LoggedStep, Sample, UserError, hookimpl
from mio.core.contract.discovery import Candidate
from mio.core.contract.plugins import PluginManager
from mio.core.recipe.schema import Recipe, RuntimeConfig
from mio.core.runs.lock import Lock
from mio.core.training.run_log import RunLog, check_loggers, make_loggers

VERSIONS = {"mio": "1", "python": "3", "packages": {"torch": "2"}, "plugins": {"text": "mio 1"}}
LOCK = Lock(recipe="f00", seed=0, versions=VERSIONS, vocabulary="ba5", run="e" * 32)


class Memory:
    """A logger that remembers what it was told."""

    remote = False

    def __init__(self):
        self.run, self.earlier, self.steps, self.summary = None, None, [], ()

    def check(self):
        raise UserError("nobody is logged in")

    def begin(self, run, earlier):
        self.run, self.earlier = run, list(earlier)
        return ""

    def log(self, step):
        self.steps.append(step)

    def end(self, summary):
        self.summary = summary


def begun(folder, step):
    memory = Memory()
    log = RunLog(Recipe(name="last"), folder, {"memory": memory}, print)
    log.begin(LOCK, step)
    return log, memory


def lines(path):
    with (path / "metrics.csv").open(newline="") as file:
        return [dict(line) for line in csv.DictReader(file)]


def test_what_is_added_of_a_step_is_one_line_when_the_step_is_over(tmp_path):
    log, memory = begun(tmp_path, 0)
    sample = Sample(name="draw", prompt="a", answer="b", files=(tmp_path / "samples/a.png",))
    log.add({"loss": 2.0}, 10)
    log.add({"validation/loss": 3.0}, 10)
    log.add_samples([sample], 10)
    assert not (tmp_path / "metrics.csv").exists()
    log.flush(10)
    log.flush(11)
    log.add_samples([sample], 15)
    log.add({"loss": 1.0}, 20)  # the step before is over
    assert [step.step for step in memory.steps] == [10, 15]
    log.finish(LOCK, {"steps": 20})
    assert lines(tmp_path) == [
        {"step": "10", "loss": "2.0", "validation/loss": "3.0"},
        {"step": "20", "loss": "1.0", "validation/loss": ""},
    ]
    assert memory.steps == [
        LoggedStep(step=10, metrics={"loss": 2.0, "validation/loss": 3.0}, samples=(sample,)),
        LoggedStep(step=15, metrics={}, samples=(sample,)),
        LoggedStep(step=20, metrics={"loss": 1.0}),
    ]
    assert log.history() == memory.steps
    assert memory.summary == {"steps": 20}
    assert json.loads((tmp_path / "samples.jsonl").read_text().splitlines()[0])["samples"][0]["files"] == [
        "samples/a.png"
    ]


def test_steps_that_are_trained_again_keep_what_was_logged(tmp_path):
    """Killed after step 30, with a checkpoint of step 20."""
    log, _ = begun(tmp_path, 0)
    sample = Sample(name="draw", answer="first")
    for step in (10, 20, 30):
        log.add({"loss": float(step)}, step)
        log.add_samples([sample], step)
        log.flush(step)
        if step == 20:
            at_checkpoint = log.metrics.state()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("40,")  # half a line
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write(log._samples._line([sample], 40) + '{"step": 50')

    again, memory = begun(tmp_path, 20)
    assert [(step.step, step.samples) for step in memory.earlier] == [(10, (sample,)), (20, (sample,)), (30, (sample,))]
    assert memory.run.step == 20
    assert again.metrics.state() == at_checkpoint
    for step in range(21, 41):
        if step % 10 == 0:
            again.add({"loss": step + 0.5}, step)
            again.add_samples([Sample(name="draw", answer="again")], step)
        again.flush(step)
        assert again.metrics.lines == (2 if step < 30 else 3 if step < 40 else 4)
    again.close()
    assert [line["loss"] for line in lines(tmp_path)] == ["10.0", "20.0", "30.0", "40.5"]
    assert [step.step for step in memory.steps] == [40]
    assert {step: samples[0].answer for step, samples in again._samples.read().items()} == {
        10: "first", 20: "first", 30: "first", 40: "again"
    }  # fmt: skip
    assert memory.summary is None
    assert again.metrics.problem(again.metrics.state(), 40) == ""


def test_a_training_that_begins_anew_leaves_nothing_of_the_one_before(tmp_path):
    log, _ = begun(tmp_path, 0)
    log.add({"loss": 5.0}, 5)
    log.add_samples([Sample(name="draw")], 5)
    log.close()
    again, memory = begun(tmp_path, 0)
    assert memory.earlier == []
    again.add({"loss": 1.0}, 10)
    again.close()
    assert [line["step"] for line in lines(tmp_path)] == ["10"]
    assert not (tmp_path / "samples.jsonl").exists()


def test_a_run_without_steps_left_is_begun_to_be_finished(tmp_path):
    log, _ = begun(tmp_path, 0)
    log.add({"loss": 5.0}, 10)
    log.close()
    memory = Memory()
    RunLog(Recipe(name="last"), tmp_path, {"memory": memory}, print).finish(LOCK, {"steps": 10})
    assert [step.step for step in memory.earlier] == [10]
    assert memory.summary == {"steps": 10}


def test_loggers_are_told_what_is_trained(tmp_path):
    """The chain is that of the run folders."""
    for name, start in (("first", ""), ("second", "../first"), ("last", "../second")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text(f"name: {name}\nstart_from: {start!r}\n")
    memory = Memory()
    recipe = Recipe(name="last", start_from="../second", runtime=RuntimeConfig(runs=str(tmp_path)))
    RunLog(recipe, tmp_path / "last", {"memory": memory}, print).begin(LOCK, 0)
    run = memory.run
    assert (run.name, run.group, run.id, run.step) == ("last", "first", "e" * 32, 0)
    assert run.recipe["train"]["steps"] == 1000
    assert run.tags == {
        "mio": "1", "python": "3", "torch": "2", "plugin text": "mio 1", "recipe": "f00", "vocabulary": "ba5"
    }  # fmt: skip


class Plugin:
    @hookimpl
    def mio_loggers(self):
        def memory(options):
            if options:
                raise UserError(f"has no option `{next(iter(options))}`")
            return Memory()

        return {"memory": memory}


def manager_of(plugin):
    return PluginManager([Candidate("made", "here", "made", lambda: plugin)])


def test_loggers_are_named_in_the_recipe_and_all_mistakes_told_at_once():
    manager = manager_of(Plugin())
    assert list(make_loggers(RuntimeConfig(loggers=["csv", "memory"]), manager)) == ["memory"]
    assert make_loggers(RuntimeConfig(), manager) == {}  # that plugin is not there, and may be deleted
    wrong = RuntimeConfig(loggers=["memroy"], logger_options={"memory": {"x": 1}, "csv": {}})
    with pytest.raises(UserError) as caught:
        make_loggers(wrong, manager)
    assert str(caught.value) == (
        "`runtime.loggers` names an unknown logger `memroy`; did you mean `memory`? (known: csv, memory, tensorboard); "
        "`runtime.logger_options` names an unknown logger `csv` (known: memory); "
        "`runtime.logger_options.memory`: has no option `x`"
    )
    with pytest.raises(UserError, match=r"`runtime\.loggers`: memory: nobody is logged in"):
        check_loggers(RuntimeConfig(loggers=["memory"]), manager)


def test_what_a_plugin_says_about_its_loggers_is_checked():
    class Wrong:
        @hookimpl
        def mio_loggers(self):
            return {"memory": 1}

    manager = manager_of(Wrong())
    assert manager.loggers() == {}
    assert "hook `mio_loggers`, logger `memory`: 1 must be a function" in manager.unanswered["made"]
