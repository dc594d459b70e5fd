"""The built-in loggers against their own local stores, read by W&B, MLflow and TensorBoard themselves."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from conftest import fit
from PIL import Image

import mio
from mio import LoggedRun, LoggedStep, Sample, UserError
from mio.core.contract.plugins import PluginManager
from mio.core.errors import Interrupted
from mio.core.recipe.schema import RuntimeConfig
from mio.core.training import metric_files, run_log
from mio.core.training.run_log import check_loggers, make_loggers

SPEED = ("tokens_per_second", "mfu")

KILLED = """
import os, signal, sys, time
from mio.core.runs.checkpoints.format import latest
from mio.core.training import metric_files

add = metric_files.MetricsTable.add

def killing(table, metrics, step):
    add(table, metrics, step)
    if step == 12:  # which is in metrics.csv, and with no logger yet
        while latest(table.path.parent / "checkpoints") is None:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

metric_files.MetricsTable.add = killing
from mio.cli.app import main
main(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network is asked for, and nothing of the user's is read."""
    settings = {
        "WANDB_MODE": "offline",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_CONFIG_DIR": str(tmp_path / "config"),
        "NETRC": str(tmp_path / "netrc"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.delenv(name, raising=False)


def wandb_records(folder):
    """Records of the newest offline run in a run folder, as W&B reads them."""
    newest = max(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(newest)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in printed.splitlines()]


def history_of(records):
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def csv_lines(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in line.items() if value} for line in csv.DictReader(file)]


def mlflow_run(uri, experiment="mio"):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    [run] = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, run


def tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "audio": 0})
    events.Reload()
    return events


def test_curves_are_those_of_metrics_csv_after_a_kill_and_an_interruption(tunes, monkeypatch):
    """Killed in the middle of an interval between checkpoints, then interrupted, then finished. MLflow writes into a
    folder; W&B is offline."""

    every = (
        "train.steps=24",
        "train.rows=2",
        "train.micro_rows=0",
        "runtime.log_every=2",
        "runtime.checkpoint_every=8",
    )
    overrides = (
        *every,
        "runtime.loggers=[tensorboard,wandb,mlflow]",
        "runtime.logger_options.mlflow.uri=file:mlruns",
    )
    fit("undisturbed", *every)
    undisturbed = tunes / "undisturbed/tunes"
    folder = tunes / "runs/tunes"
    monkeypatch.setenv("WANDB_API_KEY", "ab" * 20)
    arguments = ["fit", "tunes.yaml", "runtime.runs=runs", *overrides]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [line["step"] for line in csv_lines(folder)] == [2, 4, 6, 8, 10, 12]
    first = csv_lines(folder)

    flush = run_log.RunLog.flush

    def interrupting(log, step):
        flush(log, step)
        if step == 17:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run_log.RunLog, "flush", interrupting)
    with pytest.raises(Interrupted):
        fit("runs", *overrides)
    monkeypatch.setattr(run_log.RunLog, "flush", flush)
    printed = fit("runs", *overrides)
    assert "failed" not in printed

    lines, clean = csv_lines(folder), csv_lines(undisturbed)
    assert lines[:6] == first
    assert [{name: line[name] for name in line if name not in SPEED} for line in lines] == [
        {name: line[name] for name in line if name not in SPEED} for line in clean
    ]
    assert (folder / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()

    records = wandb_records(folder)
    logged = [{**line, "step": line["_step"]} for line in history_of(records)]
    assert [{name: line[name] for name in line if name[0] != "_"} for line in logged] == lines

    client, run = mlflow_run("file:mlruns")
    for name in lines[0].keys() - {"step"}:
        history = client.get_metric_history(run.info.run_id, name.replace("/", "."))
        assert [(metric.step, metric.value) for metric in history] == [(line["step"], line[name]) for line in lines]
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "tunes"
    assert run.data.params["train.optimizer.lr"] == "0.003"
    assert run.data.tags["mio.group"] == "tunes"
    assert run.data.tags["runtime.checkpoint_every"] == "8"
    summary = json.loads((folder / "summary.json").read_text())
    assert run.data.metrics["summary.tokens"] == summary["tokens"]
    assert "logger_failures" not in summary

    scalars = tensorboard(folder).Scalars
    for name in lines[0].keys() - {"step"}:
        assert [(event.step, event.value) for event in scalars(name)] == [
            (line["step"], float(np.float32(line[name]))) for line in lines
        ]

    runs = [record["run"] for record in records if record["type"] == "run"]
    lock = json.loads((folder / "recipe.lock").read_text())
    assert (runs[0]["run_id"], runs[0]["display_name"], runs[0]["run_group"]) == (lock["run"], "tunes", "tunes")
    assert all(b"abababab" not in path.read_bytes() for path in Path().rglob("*") if path.is_file())


def run_in(folder, step=0):
    folder.mkdir(exist_ok=True)
    tags = {"mio": mio.__version__, "vocabulary": "f00"}
    recipe = {"name": "made", "train": {"steps": 30}, "runtime": {"workers": step}}
    return LoggedRun(name="made", id="d" * 32, group="chain", folder=folder, step=step, recipe=recipe, tags=tags)


def logger(name, **options):
    runtime = RuntimeConfig(loggers=[name], logger_options={name: options})
    check_loggers(runtime, PluginManager.discover())
    return make_loggers(runtime, PluginManager.discover())[name]


def sample_with_files(folder):
    """A picture, a sound and a moving picture."""
    Image.new("RGB", (4, 3), "red").save(folder / "a.png")
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "c.gif", save_all=True, append_images=frames[1:])
    with wave.open(str(folder / "b.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(200))
    files = tuple(folder / name for name in ("a.png", "b.wav", "c.gif", "gone.png"))
    return Sample(name="digits/draw", prompt="Draw a seven.", answer="Here it is.", files=files)


def test_media_in_tensorboard(tmp_path):
    board = logger("tensorboard")
    board.begin(run_in(tmp_path), ())
    sample = sample_with_files(tmp_path)
    board.log(LoggedStep(step=10, metrics={"loss": 1.0}, samples=(sample, sample)))
    board.end({})
    events = tensorboard(tmp_path)
    tags = events.Tags()
    assert tags["images"] == ["digits/draw/0/0", "digits/draw/0/2", "digits/draw/1/0", "digits/draw/1/2"]
    assert tags["audio"] == ["digits/draw/0/1", "digits/draw/1/1"]
    [image] = events.Images("digits/draw/0/0")
    shown = Image.open(io.BytesIO(image.encoded_image_string))
    assert (image.step, shown.size, shown.getpixel((0, 0))) == (10, (4, 3), (255, 0, 0))
    [moving] = events.Images("digits/draw/0/2")
    assert Image.open(io.BytesIO(moving.encoded_image_string)).n_frames == 2
    [sound] = events.Audio("digits/draw/1/1")
    assert (sound.step, sound.sample_rate, sound.length_frames) == (10, 8000, 100)
    [text] = events.Tensors("digits/draw/0/text_summary")
    assert text.tensor_proto.string_val[0] == b"prompt: Draw a seven.\n\nanswer: Here it is."


def test_midi_is_no_sound_to_tensorboard(tmp_path):
    board = logger("tensorboard")
    board.begin(run_in(tmp_path), ())
    (tmp_path / "tune.mid").write_bytes(b"MThd")
    sample = Sample(name="score/play", prompt="Play a scale.", answer="", files=(tmp_path / "tune.mid",))
    board.log(LoggedStep(step=10, metrics={"loss": 1.0}, samples=(sample,)))
    board.end({})
    assert tensorboard(tmp_path).Tags()["audio"] == []


def wandb_service():
    """Process id of W&B's service, a child of this process."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    others = [int(child) for child in children if "wandb-core" in Path(f"/proc/{child}/comm").read_text()]
    assert others
    return others[-1]


def test_media_in_wandb_and_a_service_that_died(tmp_path):
    """The service is killed, as by a full machine: the next attempt starts another with all that was logged."""
    run = run_in(tmp_path)
    board = logger("wandb", project="digits", tags=["one"])
    sample = sample_with_files(tmp_path)
    steps = [LoggedStep(step=10, metrics={"loss": 1.0}, samples=(sample, sample)), LoggedStep(step=20, metrics={})]
    assert "`wandb sync " in board.begin(run, steps[:1])
    os.kill(wandb_service(), signal.SIGKILL)
    failed = False
    for step in range(11, 1000):
        try:
            board.log(LoggedStep(step=step, metrics={"loss": 0.5}))
        except Exception:  # the client's own, of several kinds
            failed = True
            break
    assert failed
    board.begin(run, [*steps[:1], LoggedStep(step=12, metrics={"loss": float("nan")})])
    board.log(LoggedStep(step=20, metrics={"loss": 0.25}))
    board.end({"tokens": 7, "tasks": {"draw": {"accuracy": 0.5}}})
    records = wandb_records(tmp_path)
    history = history_of(records)
    assert [(line["_step"], line["loss"]) for line in history] == [(10, 1.0), (12, "NaN"), (20, 0.25)]
    for kind, form in (("image", "images/separated"), ("audio", "audio"), ("video", "videos")):
        assert history[0][f"digits/draw/{kind}._type"] == form
        assert history[0][f"digits/draw/{kind}.count"] == 2
    assert history[0]["digits/draw/text.nrows"] == 2
    [first] = [record["run"] for record in records if record["type"] == "run"][:1]
    assert (first["project"], first["run_group"], first["tags"]) == ("digits", "chain", ["one"])
    written = json.dumps(records)
    assert "accuracy" in written
    assert '"steps": 30' in written


def test_mlflow_in_a_database_takes_what_it_lacks(tmp_path, monkeypatch):
    """Half of a step is there, as where a process was killed between two metrics; another is there as a whole."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    sample = sample_with_files(tmp_path)
    steps = [
        LoggedStep(step=10, metrics={"loss": 1.0, "loss/text": 0.1 + 0.2}, samples=(sample,)),
        LoggedStep(step=20, metrics={"loss": 2.0, "loss/text": 3.0}),
        LoggedStep(step=30, metrics={"loss": 4.0, "odd+name": 5.0}),
    ]
    board = logger("mlflow", experiment="digits", tags={"lab": "ours"})
    board.begin(run_in(tmp_path / "run"), ())
    board.log(steps[0])
    board._add_metrics(board._metrics(steps[1])[:1])
    board.end(None)
    client, run = mlflow_run(None, "digits")
    assert run.info.status == "KILLED"

    again = logger("mlflow", experiment="digits")
    again.begin(run_in(tmp_path / "run", step=10), steps[:2])
    again.log(steps[2])
    again.end({"tasks": {"draw": {"accuracy": 0.5}}, "note": "text"})
    client, run = mlflow_run(None, "digits")
    figures = {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        for name in ("loss", "loss/text", "odd_name", "summary/tasks/draw/accuracy")
    }
    assert figures == {
        "loss": [(10, 1.0), (20, 2.0), (30, 4.0)],
        "loss/text": [(10, 0.1 + 0.2), (20, 3.0)],
        "odd_name": [(30, 5.0)],
        "summary/tasks/draw/accuracy": [(0, 0.5)],
    }
    assert run.info.status == "FINISHED"
    assert run.data.params == {"name": "made", "train.steps": "30"}
    assert (run.data.tags["runtime.workers"], run.data.tags["lab"]) == ("10", "ours")
    place = "samples/step-00000010/digits/draw"
    artifacts = [Path(item.path).name for item in client.list_artifacts(run.info.run_id, place)]
    assert artifacts == ["a.png", "b.wav", "c.gif", "samples.json"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wandb", {"projct": "a"}, r"`runtime.logger_options.wandb`: .*has no option `projct`; did you mean `project`"),
        ("wandb", {"mode": "on"}, r"`mode` is `on`, not one of"),
        ("wandb", {"mode": "online"}, r"nobody is logged in to https://.*; `wandb login`, set WANDB_API_KEY, or set"),
        ("wandb", {"settings": {"api_key": "x"}}, r"`settings.api_key` is a secret"),
        ("wandb", {"settings": {"base_ulr": "x"}}, r"`settings`, or a setting in the environment: .*base_ulr"),
        ("mlflow", {"uri": "https://me:word@host"}, r"`uri` holds a name or password"),
        ("mlflow", {"uri": "odd://x"}, r"`runtime.loggers`: mlflow: .*odd"),
        ("tensorboard", {"folder": "x"}, r"has no option `folder`"),
    ],
)
def test_mistakes_are_told_before_anything_is_prepared(name, options, message):
    with pytest.raises(UserError, match=message):
        logger(name, **options)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_names_its_extra(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UserError, match=rf'{name} is not installed; `pip install "mio\[{name}\]"`'):
        logger(name)


@pytest.mark.usefixtures("tunes")
def test_a_full_disk_costs_tensorboard_its_events_and_no_training(monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    printed = fit("runs", "train.steps=4", "train.rows=2", "train.micro_rows=0", "runtime.log_every=2")
    assert printed.count("`tensorboard` failed: OSError: [Errno 28] No space left on device; the training goes") == 1
    assert "It lacks 2 logged steps, from step 2 on" in " ".join(printed.split())
    assert json.loads(Path("runs/tunes/summary.json").read_text())["logger_failures"] == {"tensorboard": 1}
    assert metric_files.MetricsTable(Path("runs/tunes/metrics.csv")).read().keys() == {2, 4}
