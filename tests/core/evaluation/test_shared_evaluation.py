"""Evaluation by the commands, on one process and on two: while a stage trains, after it, and by itself."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from conftest import MELODY, call, fit, start, tunes_in

from mio.cli import app
from mio.core.distributed import forked as forked_ranks
from mio.core.evaluation import processes
from mio.core.evaluation.items import read_items

ASKED = "evaluate: {tasks: [play], items: 40, batch: 7}\n"
SHORT = ("train.steps=6", "train.rows=2", "train.micro_rows=1", "train.precision=fp32", "runtime.checkpoint_every=3")
SHARED = (*SHORT, "runtime.devices=2")
BROKEN = MELODY.joinpath("mio_melody.py").read_text().replace(
    "def judge(answers, records):",
    "def judge(answers, records):\n    import os, time, torch\n"
    "    if (waits := os.environ.get('MELODY_WAITS')): open(waits, 'w').close(); time.sleep(60)\n"
    "    if any(record['notes'] == os.environ.get('MELODY_BREAKS') for record in records): raise ValueError('flat')\n"
    "    assert not torch.distributed.is_initialized()  # it would take the ranks for those of one training",
)  # fmt: skip


@pytest.fixture(scope="module")
def melodies(tmp_path_factory):
    """A folder with the recipe, which asks for a task, and a plugin whose judge can be made to wait and to fail."""
    folder = tmp_path_factory.mktemp("melodies")
    with tunes_in(folder), pytest.MonkeyPatch.context() as patch:
        (folder / "melody.py").write_text(BROKEN)
        patch.setenv("MIO_PLUGINS", f"melody={folder / 'melody.py'}")
        (folder / "tunes.yaml").write_text((folder / "tunes.yaml").read_text() + ASKED)
        yield folder


@pytest.fixture(scope="module")
def trained(melodies):
    """Run folder of what two ranks trained, and looked at while they did."""
    validate = ("validate.every=3", "validate.tasks=[play]", "validate.task_items=9")
    code, out, err = call("fit", "tunes.yaml", "runtime.runs=two", *SHARED, *validate)
    assert code == 0, err
    assert out.count("play: ") == 1  # told once
    assert "tasks/play" in out
    return melodies / "two/tunes"


def tasks(file):
    return {name: {**figures, "seconds": 0} for name, figures in json.loads(file.read_text())["tasks"].items()}


@pytest.mark.parametrize(("devices", "batch"), [(1, 7), (2, 7), (3, 7), (1, 40), (2, 5), (1, 1)])
def test_figures_are_those_that_the_ranks_found_when_they_had_trained(trained, melodies, capsys, devices, batch):
    """And so are items and samples, however many are answered together, in however many processes."""
    before = {path: path.read_bytes() for path in (trained / "samples").glob("*.*")}
    items = read_items(trained / "evaluation/play.jsonl")
    assert len(before) == 3
    options = ("evaluate", str(trained), "--json", str(melodies / "figures.json"), "--devices", str(devices))
    assert app.run([*options, f"evaluate.batch={batch}"]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [f"play: {tasks(trained / 'summary.json')['play']['accuracy']:.3f} of 40"]
    assert printed.out.count("play") == 1
    assert tasks(melodies / "figures.json") == tasks(trained / "summary.json")
    assert {path: path.read_bytes() for path in (trained / "samples").glob("*.*")} == before
    assert read_items(trained / "evaluation/play.jsonl").lines == items.lines


@pytest.mark.usefixtures("trained")
def test_looking_at_tasks_changes_nothing_of_a_training(melodies):
    """The same stage on one process, without it: not a bit of the weights or of the rows differs."""
    fit("blind", *SHORT, "evaluate.tasks=[]")
    for name in ("model.safetensors", "journal.csv"):
        assert (melodies / "blind/tunes" / name).read_bytes() == (melodies / "two/tunes" / name).read_bytes()
    assert "tasks" not in json.loads((melodies / "blind/tunes/summary.json").read_text())


def test_what_was_looked_at_is_kept_and_told(trained):
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["validation"]["figures"].keys() == {"tasks/play"}
    folders = sorted(path.name for path in (trained / "samples").glob("step-*"))
    assert folders == ["step-00000003", "step-00000006"]
    [sample, _] = json.loads((trained / "samples/step-00000006/play.json").read_text())
    assert [part["type"] for part in sample["answer"]].count("melody") >= 1
    assert (trained / "samples/step-00000006" / sample["answer"][-1].get("path", "play.json")).is_file()


@pytest.mark.usefixtures("trained")
def test_a_judge_that_fails_on_one_rank_ends_all_of_them_with_one_line(melodies):
    last = [record["notes"] for record in melodies_held_out(40)][-1]
    code, _, err = call(
        "evaluate", "two/tunes", "--devices", 2, env={**os.environ, "MELODY_BREAKS": last}, cwd=melodies
    )
    assert code == 2
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: task `play` of plugin `melody`: its judge raised ValueError: flat")


def melodies_held_out(count):
    import importlib.util

    spec = importlib.util.spec_from_file_location("melody_for_test", MELODY / "mio_melody.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.mio_tasks()[0].records(count)


def test_an_evaluation_that_was_stopped_goes_on_by_the_same_command(trained, melodies):
    waits = melodies / "waits"
    process = start(
        "fit", "tunes.yaml", "runtime.runs=stopped", *SHARED, env={**os.environ, "MELODY_WAITS": str(waits)}
    )
    until = time.monotonic() + 120
    while not waits.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=50)
    assert process.returncode == 130, (out, err)
    assert err.splitlines()[-1].startswith("interrupted: ")
    folder = melodies / "stopped/tunes"
    assert (folder / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert not (folder / "summary.json").exists()
    assert "going on from" in fit("stopped", *SHORT)  # on one process
    assert (folder / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert tasks(folder / "summary.json") == tasks(trained / "summary.json")


def test_what_one_process_has_trained_it_evaluates_with_copies_of_itself(melodies, monkeypatch):
    """As many as the items pay for, and with the figures of one."""
    made = []
    monkeypatch.setattr(forked_ranks, "cores", lambda: 2)
    monkeypatch.setattr(processes, "cores", lambda: 2)
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: made.append(fork()) or made[-1])
    fit("copies", *SHORT, "evaluate.items=800", "evaluate.batch=20")
    assert len(made) == 1
    folder = melodies / "copies/tunes"
    assert app.run(["evaluate", str(folder), "--devices", "1", "--json", str(melodies / "alone.json")]) == 0
    assert len(made) == 1
    assert tasks(melodies / "alone.json") == tasks(folder / "summary.json")
    assert tasks(melodies / "alone.json")["play"]["n"] > 40
