"""`mio evaluate`: runs, tasks and `key=value` in one line, and what is told about mistakes in it."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from conftest import MELODY

from mio import DataError
from mio.cli import app
from mio.core.evaluation.items import read_items

SCALES = """
import mio

MEASURES = (mio.Measure(name="right"), mio.Measure(name="notes", better="lower", most=float("inf"), worst=lambda _: 9))


@mio.hookimpl
def mio_tasks(options):
    def records(count):
        return [{"notes": name} for name in (options or {}).get("names", ["do", "re"])][:count]

    def judge(answers, records):
        return [{"right": not answer.text, "notes": (len(answer.text), 2)} for answer in answers]

    name = mio.Template(direction="name", prompt="{notes}", response="{notes}")
    look = mio.Template(direction="look", prompt="{notes}", response="{picture}")
    asked = {"records": records, "judge": judge, "measures": MEASURES, "ceiling": lambda *_: {"right": 1, "notes": 0.5}}
    return [
        mio.Task(name="scales/name", template=name, output="text", decoding=mio.Decoding(max_tokens=4), **asked),
        mio.Task(name="scales/look", template=look, output="picture", **asked),
    ]
"""
"""A plugin with tasks and nothing else."""


@pytest.fixture(scope="module")
def scales(tmp_path_factory):
    path = tmp_path_factory.mktemp("scales") / "scales.py"
    path.write_text(SCALES)
    return path


@pytest.fixture
def runs(finished, tmp_path, monkeypatch, scales):
    """Two run folders alike, in the working directory, and the plugin."""
    for name in ("one", "two"):
        shutil.copytree(finished, tmp_path / name)
    monkeypatch.setenv("MIO_PLUGINS", f"melody={MELODY / 'mio_melody.py'}{os.pathsep}scales={scales}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def figures(file):
    return json.loads(file.read_text())["tasks"]


def test_a_task_of_a_plugin_that_the_recipe_does_not_list(runs, capsys):
    names = "plugins.scales.names=[do, re, mi]"
    assert app.run(["evaluate", "one", "scales/name", names, "--json", "figures.json"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["task", "measure", "value", "95", "%", "n", "ceiling", "judge", "seconds"]
    assert [line.split()[0] for line in out[1:3]] == ["scales/name", "notes"]
    assert max(map(len, out)) <= 100
    found = figures(runs / "figures.json")["scales/name"]
    assert found.items() >= {"n": 3, "ceiling": 1, "ceiling/notes": 0.5}.items()
    assert set(found["intervals"]) == {"right", "notes"}
    items = read_items(runs / "one/evaluation/scales/name.jsonl")
    assert items.description["plugins"]["scales"] == {"names": ["do", "re", "mi"]}
    assert [line["prompt"] for line in items.lines] == ["do", "re", "mi"]


def test_keys_of_evaluate_and_generate(runs):
    said = ["evaluate.items=3", "evaluate.tasks=[play]", "generate.melody.max_tokens=7", "generate.default.top_k=2"]
    assert app.run(["evaluate", "one", *said]) == 0
    items = read_items(runs / "one/evaluation/play.jsonl")
    assert items.description["n"] == 3
    assert items.description["decoding"].items() >= {"max_tokens": 7, "top_k": 2, "media_temperature": 0.0}.items()


def test_several_runs_are_measured_one_after_the_other_and_not_again(runs, capsys):
    assert app.run(["evaluate", "one", "play", "--items", "5", "--json", "one.json"]) == 0
    capsys.readouterr()
    assert app.run(["evaluate", "one", "two", "play", "--items", "5", "--json", "both.json"]) == 0
    assert capsys.readouterr().err.count("play: ") == 1, "the finished one is read"
    both = json.loads((runs / "both.json").read_text())["runs"]
    assert [one["run"] for one in both] == ["one", "two"]
    assert both[0]["tasks"] == figures(runs / "one.json")
    same = [{**one["tasks"]["play"], "seconds": 0} for one in both]
    assert same[0] == same[1]
    [compared] = json.loads((runs / "both.json").read_text())["compared"]
    assert compared["tasks"]["play"]["accuracy"].items() >= {"difference": 0, "p": 1, "differ": 0, "n": 5}.items()
    assert (runs / "two/evaluation/compared/one.json").is_file()


def test_runs_are_compared_with_the_first(runs, capsys):
    names = "plugins.scales.names=[do, re, mi]"
    assert app.run(["evaluate", "one", "scales/name", names]) == 0
    file = runs / "one/evaluation/scales/name.jsonl"
    first, *items = file.read_text().splitlines()
    line = json.loads(items[1])
    assert line["verdicts"]["notes"][1] == 2
    line["verdicts"]["notes"] = [line["verdicts"]["notes"][0] + 4, 2]
    file.write_text("\n".join([first, items[0], json.dumps(line), *items[2:]]) + "\n")
    capsys.readouterr()

    late = "one/checkpoints/step-00000004"  # whose items take the place of the run's own
    assert app.run(["evaluate", "one", late, "scales/name", names, "--json", "all.json", "--show", "2"]) == 0
    printed = capsys.readouterr().out
    [found] = json.loads((runs / "all.json").read_text())["compared"]
    assert found == json.loads((runs / "one/evaluation/compared/one.json").read_text())
    right, notes = (found["tasks"]["scales/name"][measure] for measure in ("right", "notes"))
    assert (right["differ"], right["p"], notes["differ"], notes["n"]) == (0, 1, 1, 3)
    assert notes["difference"] == pytest.approx(-4 / 6, abs=1e-5)
    [apart] = (runs / "one/evaluation/compared/one/scales/name.jsonl").read_text().splitlines()
    assert json.loads(apart)["first"]["verdicts"] == line["verdicts"]
    assert printed.splitlines()[-3].startswith("scales/name, item 1: re")


def test_runs_without_the_same_items_are_not_compared(runs, capsys, monkeypatch):
    monkeypatch.setattr("mio.core.evaluation.compare._check_same", refuse)
    assert app.run(["evaluate", "one", "two", "play", "--items", "3", "--json", "all.json"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: task `play` is not compared: they differ"
    assert len(json.loads((runs / "all.json").read_text())["runs"]) == 2  # the figures are there


def refuse(*_):
    raise DataError("they differ")


def test_another_folder_for_what_is_kept(runs):
    before = sorted(path.relative_to(runs) for path in (runs / "one").rglob("*"))
    assert app.run(["evaluate", "one", "two", "play", "--items", "3", "--out", "mine"]) == 0
    assert sorted(path.relative_to(runs) for path in (runs / "one").rglob("*")) == before
    for name in ("one", "two"):
        assert read_items(runs / f"mine/{name}/evaluation/play.jsonl").description["n"] == 3
        assert (runs / f"mine/{name}/samples/play.json").is_file()


def test_runs_that_are_called_alike_have_folders_of_their_own(runs):
    (runs / "other").mkdir()
    shutil.copytree(runs / "two", runs / "other/one")
    assert app.run(["evaluate", "one", "other/one", "play", "--items", "3", "--out", "alike"]) == 0
    assert sorted(path.name for path in (runs / "alike").iterdir() if (path / "evaluation/play.jsonl").is_file()) == [
        "one",
        "other-one",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "none: no such run folder"),
        (["evaluate.items=3"], "give a run folder before key=value"),
        (["one", "plai"], "no task `plai`; did you mean `play`?"),
        (
            ["one", "scales/look", "plugins.scales={}"],
            "task `scales/look`: its answers are of `picture`, which the rec",
        ),
        (["one", "play", "./two"], "./two: run folders come before tasks"),
        (["one", "./three"], "three: no such run folder; runs beside it: one, two"),
        (["one", "evaluate.item=3"], "unknown key `evaluate.item`; did you mean `evaluate.items`?"),
        (["one", "evaluate.items=no"], "`evaluate.items` must be a whole number"),
        (
            ["one", "train.steps=3"],
            "`train.steps=3`: `train` belongs to the training; an evaluation is changed by keys",
        ),
        (["one", "plugins.melody.x=1"], "plugin `melody` is part of the trained model, and so are its options"),
        (["one", "plugins.scale.x=1"], "no plugin `scale` is installed; did you mean `scales`?"),
        (["one", "generate.default.temprature=1"], "did you mean `generate.default.temperature`?"),
        (["one", "generate.melodi.top_k=1"], "there is no modality `melodi`; did you mean `melody`?"),
        (["one", "evaluate.average=true"], "one: has no average of its weights"),
        (["one", "--out", "one/recipe.yaml"], "--out one/recipe.yaml: one/recipe.yaml is a file, not a folder"),
    ],
)
def test_a_mistake_is_one_line(runs, capsys, arguments, message):
    assert app.run(["evaluate", *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (runs / "one/evaluation").exists()
