"""The whole way at reduced size: four shipped stages are trained by one call, then used by the other commands."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import ROOT, call
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.evaluation.evaluation import Options, evaluate
from mio.core.generation.model import Model
from mio.core.recipe.compose import compose
from mio.core.runs.checkpoints.reading import Checkpoint
from mio.core.runs.run import Run
from mio.core.stages.fit import fit_chain

STAGES = (1, 2, 3, 4)
STEPS, ROWS, CONTEXT = 8, 4, 256
RATIOS = {
    1: {"image_text": 12 / 16, "text": 2 / 16, "speech_text": 2 / 16},
    2: {"image_text": 2 / 16, "text": 2 / 16, "interleaved": 6 / 16, "speech_text": 6 / 16},
    3: {"image_text": 2 / 16, "text": 1 / 16, "interleaved": 1 / 16, "speech_text": 12 / 16},
    4: {},
}
"""Table 9 of arXiv 2409.17692 v4; the shares of instruction tuning are unpublished."""


@dataclass
class Chain:
    """The four stages of the digits world at reduced size."""

    runs: Path
    arguments: tuple[list[str], list[str]]
    printed: str

    def folder(self, stage: int) -> Path:
        return self.runs / f"stage{stage}"


@pytest.fixture(scope="module")
def trained_chain(tmp_path_factory):
    """All four shipped stages, trained by one call: eight steps of four rows, corpora of 240 records."""
    folder = tmp_path_factory.mktemp("chain")
    manager = PluginManager.discover()
    groups = compose([str(ROOT / "recipes/stage4.yaml")], [], manager).data.groups
    shorter = {
        group: {"sources": {name: {"options": {"length": 240}} for name in config.sources}}
        for group, config in groups.items()
    }
    small = {
        "data": {"groups": shorter},
        "train": {"steps": 8, "rows": 4},
        "evaluate": {"tasks": ["caption", "draw"], "items": 8},
        "runtime": {"runs": str(folder / "runs"), "threads": 1, "accelerator": "cpu", "log_every": 4},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    arguments = ([str(ROOT / "recipes/stage4.yaml"), str(folder / "small.yaml")], [])
    printed = io.StringIO()
    last = fit_chain(*arguments, manager, Console(file=printed, width=200))
    assert last == folder / "runs" / "stage4"
    return Chain(folder / "runs", arguments, printed.getvalue())


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def summary(chain, stage):
    return json.loads((chain.folder(stage) / "summary.json").read_text())


def test_missing_stages_are_trained_first_in_order(trained_chain):
    assert sorted(path.name for path in trained_chain.runs.iterdir()) == [f"stage{stage}" for stage in STAGES]
    lines = trained_chain.printed.splitlines()
    announced = [line for line in lines if "builds on" in line]
    assert [line.split(",")[0] for line in announced] == [f"stage4 builds on stage{stage}" for stage in (1, 2, 3)]
    assert sum("training tokenizers: text, image, speech" in line for line in lines) == 1


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_folder_is_complete(trained_chain, stage):
    folder = trained_chain.folder(stage)
    for name in ("recipe.yaml", "recipe.lock", "vocabulary.json", "metrics.csv", "model.safetensors"):
        assert (folder / name).stat().st_size > 0, name
    assert list(folder.glob("events.out.tfevents.*"))
    assert not list(folder.rglob("*.partial"))


def test_tokenizers_are_trained_once_and_shared(trained_chain):
    first = digests(trained_chain.folder(1) / "tokenizers")
    assert {name.split("/")[0] for name in first} >= {"text", "image", "speech"}
    locks = [json.loads((trained_chain.folder(stage) / "recipe.lock").read_text()) for stage in STAGES]
    for stage in STAGES[1:]:
        assert digests(trained_chain.folder(stage) / "tokenizers") == first
        assert summary(trained_chain, stage)["tokenizers"] == {}
    assert summary(trained_chain, 1)["tokenizers"].keys() == {"text", "image", "speech"}
    assert len({json.dumps([lock["vocabulary"], lock["tokenizers"]]) for lock in locks}) == 1


@pytest.mark.parametrize("stage", STAGES)
def test_the_summary_says_what_was_done(trained_chain, stage):
    figures = summary(trained_chain, stage)
    positions = STEPS * ROWS * CONTEXT
    assert figures["steps"] == STEPS
    assert 0.9 * positions < figures["tokens"] <= positions
    assert figures["tokens_per_second"] == pytest.approx(figures["tokens"] / figures["train_seconds"], rel=0.01)
    assert figures["wall_seconds"] >= figures["train_seconds"] > 0
    assert figures["packing"]["fill"] == pytest.approx(figures["tokens"] / positions, abs=1e-4)
    assert figures["packing"]["truncated"] == 0
    assert figures["packing"]["skipped"] == {}
    ratios = RATIOS[stage]
    if not ratios:
        asked = yaml.safe_load((ROOT / "recipes/stage4.yaml").read_text())["mixture"]["ratios"]
        ratios = {group: ratio / sum(asked.values()) for group, ratio in asked.items()}
    assert figures["mixture"].keys() == ratios.keys()
    for group, target in ratios.items():
        # 32 rows are two whole cycles of ratios that add up to 16: what was asked for is what was trained on
        assert figures["mixture"][group]["target"] == pytest.approx(target, abs=1e-6)
        within = 1e-6 if stage < 4 else CONTEXT / positions  # rows that mix groups are off by a row at most
        assert figures["mixture"][group]["achieved"] == pytest.approx(target, abs=within)
    assert figures["tasks"].keys() == {"caption", "draw"}
    for task in figures["tasks"].values():
        assert 0 <= task["accuracy"] <= 1
        assert 0.5 < task["ceiling"] <= 1
        assert task["n"] == 8
    assert 0 <= figures["tasks"]["draw"]["copied"] <= 1


def test_the_figures_of_training_are_logged(trained_chain):
    with (trained_chain.folder(2) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [4, 8]
    books = ["image/codebook0", *(f"speech/codebook{index}" for index in range(4))]
    losses = [*(f"loss/{group}" for group in RATIOS[2]), *(f"modality/{name}" for name in (*books, "text", "special"))]
    for row in rows:
        for name in ("loss", "lr", "grad_norm", "tokens_per_second", "mfu", *losses):
            assert math.isfinite(float(row[name])), name
            assert float(row[name]) >= 0, name
        assert 0 < float(row["mfu"]) < 1
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])


def test_the_same_figures_are_in_the_tensorboard_events(trained_chain):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained_chain.folder(2))).Reload()
    with (trained_chain.folder(2) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in (
        "loss",
        "loss/interleaved",
        "modality/speech/codebook3",
        "lr",
        "grad_norm",
        "tokens_per_second",
        "mfu",
    ):
        assert [event.step for event in events.Scalars(name)] == [4, 8]
        assert [event.value for event in events.Scalars(name)] == pytest.approx([float(row[name]) for row in rows])


def test_checkpoint_and_weights_hold_no_code_and_agree(trained_chain):
    folder = trained_chain.folder(4)
    path = folder / f"checkpoints/step-{STEPS:08d}"
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}
    weights, checkpoint = load_file(folder / "model.safetensors"), Checkpoint(path)
    assert checkpoint.state["global_step"] == STEPS
    saved = {name.removeprefix("model.") for name in checkpoint.names if name.startswith("model.")}
    assert saved == weights.keys()
    assert all(torch.equal(checkpoint.read(f"model.{name}"), weights[name]) for name in weights)


def test_a_stage_starts_from_the_weights_of_the_one_before(trained_chain):
    """Eight small steps move a weight by little; weights that were drawn anew would not be related at all."""
    first, second = (load_file(trained_chain.folder(stage) / "model.safetensors") for stage in (3, 4))
    for name in ("embedding.weight", "layers.0.attention.output.weight"):
        both = torch.stack([first[name].flatten(), second[name].flatten()])
        assert torch.corrcoef(both)[0, 1] > 0.8, name


def test_a_finished_chain_is_left_alone(trained_chain):
    before = {path: path.stat().st_mtime_ns for path in trained_chain.runs.rglob("*")}
    printed = io.StringIO()
    fit_chain(*trained_chain.arguments, PluginManager.discover(), Console(file=printed, width=200))
    lines = printed.getvalue().splitlines()
    assert len(lines) == 1
    assert "stage4 is finished; nothing to do" in lines[0]
    assert {path: path.stat().st_mtime_ns for path in trained_chain.runs.rglob("*")} == before


# the other commands on the trained stage


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (20, 30), dtype=np.uint8)).save(folder / "a.png")
    soundfile.write(folder / "b.wav", rng.normal(0, 0.1, 9000).astype(np.float32), 16000)
    return folder


def answered(capsys, *arguments):
    assert app.run([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_generate_answers_an_interleaved_prompt(trained_chain, media, tmp_path, capsys):
    prompt = f"Is {{image:{media / 'a.png'}}} what you hear? {{speech:{media / 'b.wav'}}} Say {{it}}."
    out = answered(capsys, "generate", trained_chain.folder(4), prompt, "--json", "--out", tmp_path)
    parts = json.loads(out)["parts"]
    assert all(part.keys() == {"type", "text" if part["type"] == "text" else "path"} for part in parts)


@pytest.mark.parametrize("output", ["text", "image", "speech", "video"])
def test_generate_makes_media_that_open_again(trained_chain, tmp_path, capsys, output):
    run = trained_chain.folder(4)
    arguments = ("--output", output, "--out", tmp_path, "--json", "--temperature", "1", "--seed", "3")
    parts = json.loads(answered(capsys, "generate", run, "three", *arguments))["parts"]
    kinds = {part["type"] for part in parts} - {"text"}
    if output == "text":
        assert not kinds
        return
    assert kinds == {output}
    files = [part["path"] for part in parts if part["type"] == output]
    plugins = PluginManager.discover().enable(Run.open(run, PluginManager.discover()).recipe.plugins)
    read = plugins.datamodule(output).read
    for file in files:
        content = read(tmp_path / file)
        if output == "image":
            assert np.asarray(content).size > 0
        elif output == "speech":
            assert len(content[0]) > 0
        else:
            assert 3 <= len(content) <= 5
    answered(capsys, "generate", run, f"What is this? {{{output}:{files[0]}}}", "--out", tmp_path / "again")


def test_generate_gives_the_same_again_by_seed(trained_chain, tmp_path, capsys):
    made = []
    for index, seed in enumerate((1, 1, 2)):
        out = tmp_path / str(index)
        answered(capsys, "generate", trained_chain.folder(4), "four", "--output", "image", "--out", out, "--seed", seed)
        made.append(list(digests(out).values()))
    assert made[0] == made[1] != made[2]


def test_a_damaged_picture_in_a_prompt_of_the_real_command(trained_chain, tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    code, out, err = call("generate", trained_chain.folder(4), f"What is {{image:{tmp_path / 'a.png'}}}?")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: \S+a\.png: .*\n", err)


def test_evaluate_writes_the_figures_that_the_summary_has(trained_chain, tmp_path, capsys):
    file = tmp_path / "figures.json"
    out = answered(capsys, "evaluate", trained_chain.folder(4), "--json", file)
    report = json.loads(file.read_text())
    before = summary(trained_chain, 4)["tasks"]
    assert report.keys() == {"tasks"}
    for task, figures in report["tasks"].items():
        assert {**figures, "seconds": 0} == {**before[task], "seconds": 0}
        assert task in out
    assert report["tasks"].keys() == before.keys()


def test_other_tasks_can_be_asked_for(trained_chain):
    report = evaluate(
        Model.of(Run.open(trained_chain.folder(4), PluginManager.discover())), Options(tasks=["video_caption"], items=3)
    )
    assert report.keys() == {"video_caption"}
    assert report["video_caption"]["n"] == 3
