"""An evaluation that is ended goes on where it was, and keeps what it measured, by the command and by itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import replace

import pytest
from conftest import MELODY, start

from mio import Measure, UserError
from mio.core.contract.plugins import PluginManager
from mio.core.evaluation.evaluation import Options, evaluate
from mio.core.evaluation.items import read_items
from mio.core.files import locked
from mio.core.generation.model import Model
from mio.core.runs.lock import Lock, check_run
from mio.core.runs.run import Run

WAITING = MELODY.joinpath("mio_melody.py").read_text().replace(
    "def judge(answers, records):",
    "judged = []\n\n\ndef judge(answers, records):\n    import os, time\n"
    "    if judged and os.environ.get('MELODY_WAITS'): time.sleep(300)\n"
    "    judged.append(records)\n"
    "    open(os.environ['MELODY_COUNT'], 'a').write('x' * len(answers))",
)  # fmt: skip
"""A plugin that counts what it judges, and can be made to wait at the second time in a process."""


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    folder = tmp_path / "tunes"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(finished.parents[1])
    return Run.open(folder, PluginManager.discover([f"melody={MELODY / 'mio_melody.py'}"]))


class Counting:
    """A judge that notes what it is given, and fails once it was given so many."""

    def __init__(self, most=None):
        self.most, self.given = most, []

    def __call__(self, _, records):
        if self.most is not None and len(self.given) >= self.most:
            raise KeyboardInterrupt
        self.given += [record["notes"] for record in records]
        return [len(record["notes"]) % 3 == 0 for record in records]


def measure(run, monkeypatch, judge, items=20, batch=4, task=None, **options):
    """The report of the task `play`, with another judge."""
    owner, play = run.plugins.tasks()["play"]
    changed = replace(task or play, judge=judge)
    with monkeypatch.context() as patch:
        patch.setattr(type(run.plugins), "tasks", lambda _: {"play": (owner, changed)})
        run.recipe.evaluate.batch = batch
        lines: list[str] = []
        report = evaluate(Model.of(run), Options(items=items, **options), lines.append)["play"]
    report["seconds"] = 0
    return report, lines


def interrupted(run, monkeypatch, most=8, **options):
    """What a judge was given until it was interrupted."""
    judge = Counting(most)
    with pytest.raises(KeyboardInterrupt):
        measure(run, monkeypatch, judge, **options)
    return judge.given


def test_it_goes_on_with_what_is_left_and_has_the_figures_of_one_that_was_not_ended(run, monkeypatch):
    whole = Counting()
    expected, _ = measure(run, monkeypatch, whole)
    items = read_items(run.folder / "evaluation/play.jsonl")
    (run.folder / "evaluation/play.jsonl").unlink()
    first = interrupted(run, monkeypatch)
    rest = Counting()
    report, lines = measure(run, monkeypatch, rest, batch=7)  # cut differently
    assert (len(first), len(rest.given)) == (8, 12)
    assert sorted(first + rest.given) == sorted(whole.given)
    assert lines[0] == "going on with an evaluation that was ended: 8 of 20 items are there"
    assert report == expected
    again = read_items(run.folder / "evaluation/play.jsonl")
    assert again.lines == items.lines
    assert {**again.figures, "seconds": 0} == {**items.figures, "seconds": 0} == report
    assert [path.name for path in (run.folder / "evaluation").iterdir()] == ["play.jsonl"]


def test_what_is_finished_is_measured_anew_unless_its_figures_will_do(run, monkeypatch):
    expected, _ = measure(run, monkeypatch, Counting())
    again, taken, other = Counting(), Counting(), Counting()
    assert measure(run, monkeypatch, again)[0] == expected
    assert len(again.given) == 20
    assert measure(run, monkeypatch, taken, batch=9, finished=True)[0] == expected
    assert taken.given == []
    measure(run, monkeypatch, other, items=19, finished=True)
    assert len(other.given) == 19


def reweighed(run, _):
    lock = Lock.read(run.folder)
    replace(lock, files={**lock.files, "model.safetensors": "another"}).save(run.folder / "recipe.lock")
    return {}


def with_option(run, _):
    run.plugins.options["melody"]["name"] = "other"
    return {}


def drawn_anew(run, _):
    run.recipe.evaluate.seed = 1
    return {}


def test_answers_draw_from_the_recipes_seed_or_that_of_the_evaluation(run, monkeypatch):
    def measured(**seeds):
        run.recipe.seed, run.recipe.evaluate.seed = seeds.get("recipe", 0), seeds.get("own", 0)
        measure(run, monkeypatch, Counting(), said={"melody": {"media_temperature": 100.0}})
        tunes = [path.read_text() for path in sorted((run.folder / "samples").glob("play-*.txt"))]
        return {line["seed"] for line in read_items(run.folder / "evaluation/play.jsonl").lines}, tunes

    first, own, same, of_recipe = measured(), measured(own=1), measured(own=1, recipe=5), measured(recipe=1)
    assert own == same == of_recipe
    assert len(own[0]) == 20
    assert not first[0] & own[0]
    assert len(own[1]) == len(first[1]) > 0
    assert first[1] != own[1]


CHANGES = {
    "items": lambda *_: {"items": 19},
    "decoding": lambda _, task: {"task": replace(task, decoding=replace(task.decoding, media_temperature=0.7))},
    "said": lambda *_: {"said": {"melody": {"media_temperature": 0.7}}},
    "records": lambda _, task: {"task": replace(task, records=lambda n: task.records(n)[::-1])},
    "measure": lambda _, task: {"task": replace(task, measures=(Measure(name="right"),))},
    "weights": reweighed,
    "plugin": with_option,
    "seed": drawn_anew,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_measured_of_something_else_is_given_up(run, monkeypatch, change):
    interrupted(run, monkeypatch)
    task = run.plugins.tasks()["play"][1]
    judge = Counting()
    options = CHANGES[change](run, task)
    report, lines = measure(run, monkeypatch, judge, **options)
    assert len(judge.given) == report["n"] == options.get("items", 20)
    assert not any("going on" in line for line in lines)


@pytest.mark.parametrize("damage", ["cut", "text", "nothing"])
def test_a_line_that_was_being_written_is_dropped(run, monkeypatch, damage):
    expected, _ = measure(run, monkeypatch, Counting())
    interrupted(run, monkeypatch)
    partial = run.folder / "evaluation/play.partial.jsonl"
    content = partial.read_bytes()
    partial.write_bytes({"cut": content[:-9], "text": content + b'{"items": [', "nothing": b""}[damage])
    judge = Counting()
    assert measure(run, monkeypatch, judge)[0] == expected
    assert len(judge.given) == {"cut": 16, "text": 12, "nothing": 20}[damage]


def test_nobody_else_measures_the_same_in_one_place(run, monkeypatch, tmp_path):
    (run.folder / "evaluation").mkdir()
    with locked(run.folder / "evaluation", "", "play.partial.jsonl"):
        with pytest.raises(
            UserError, match=r"another process evaluates `play` here; wait for it, or give another `--o"
        ):
            measure(run, monkeypatch, Counting())
        measure(run, monkeypatch, Counting(), out=tmp_path / "mine")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["evaluation", "samples"]


def test_a_run_that_cannot_be_written_is_measured_and_it_is_said(run, monkeypatch):
    expected, _ = measure(run, monkeypatch, Counting())
    shutil.rmtree(run.folder / "evaluation")
    (run.folder / "evaluation").write_text("in its way")
    report, _ = measure(run, monkeypatch, Counting())
    [problem] = report.pop("failures")
    assert problem.startswith("task `play` of plugin `melody`, no items: ")
    assert report == expected


def test_items_are_sealed_in_the_lock(run, monkeypatch):
    measure(run, monkeypatch, Counting())
    assert "evaluation/play.jsonl" in Lock.read(run.folder).files
    told: list[str] = []
    check_run(run.folder, weights=True, tell=told.append)
    assert told == []
    interrupted(run, monkeypatch)  # the finished one stays, and what is partial is nobody's business
    check_run(run.folder, weights=True, tell=told.append)
    assert told == []


def test_a_line_says_all_that_is_known_of_an_item(run, monkeypatch):
    measure(run, monkeypatch, Counting())
    items = read_items(run.folder / "evaluation/play.jsonl")
    assert [line["item"] for line in items.lines] == list(range(20))
    assert items.description.items() >= {"task": "play", "plugin": "melody", "n": 20, "seed": 0}.items()
    assert items.description["weights"] == {"model.safetensors": Lock.read(run.folder).files["model.safetensors"]}
    first, third = items.lines[0], items.lines[2]
    assert set(third) == {"item", "seed", "prompt", "output", "verdicts"}
    assert set(first) == {*third, "asked", "expected"}, "and of the first ones what they consist of, with files"
    names = [part["path"] for part in first["output"] if "path" in part]
    assert names
    assert all((run.folder / "samples" / name).is_file() for name in names)
    assert {"type": "melody"} in third["output"], "media of later items are not kept"
    values = [line["verdicts"]["accuracy"] for line in items.lines]
    assert items.figures["accuracy"] == round(sum(values) / 20, 4)


def tasks(file):
    return {name: {**figures, "seconds": 0} for name, figures in json.loads(file.read_text())["tasks"].items()}


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_the_same_command_goes_on_with_the_same_figures(run, tmp_path, processes):
    (tmp_path / "melody.py").write_text(WAITING)
    count = tmp_path / "count"
    environment = {**os.environ, "MIO_PLUGINS": f"melody={tmp_path / 'melody.py'}", "MELODY_COUNT": str(count)}
    command = ("evaluate", run.folder, "play", "evaluate.batch=8", "--items", 40, "--devices", processes)
    process = start(*command, env={**environment, "MELODY_WAITS": "yes"})
    partial = run.folder / "evaluation/play.partial.jsonl"
    until = time.monotonic() + 240
    while not (partial.exists() and partial.read_bytes().count(b"\n") > 1):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    there = sum(len(json.loads(line)["items"]) for line in partial.read_text().splitlines()[1:])
    judged = len(count.read_bytes())
    assert 8 <= there <= judged <= 8 * processes
    process = start(*command, "--json", tmp_path / "resumed.json", env=environment)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert f"going on with an evaluation that was ended: {there} of 40 items are there" in err
    assert len(count.read_bytes()) == judged + 40 - there
    assert (
        evaluate(Model.of(run), Options(items=40, tasks=["play"]))["play"] | {"seconds": 0}
        == (tasks(tmp_path / "resumed.json")["play"])
    )
