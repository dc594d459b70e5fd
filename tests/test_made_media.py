"""Runs whose media are made by a head: asked, evaluated, talked with, and decoded by several ranks together."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiles
from conftest import once

import mio
from mio import Answer, Decoding, Media, Task, Template
from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.distributed.ranks import Ranks
from mio.core.evaluation.evaluation import Evaluation
from mio.core.evaluation.judging import OwnedTask
from mio.core.generation.model import Model
from mio.core.generation.replicas import Replicas
from mio.core.generation.requests import Ticket
from mio.core.runs.run import Run

DECODING = Decoding(temperature=1.0, max_tokens=40, steps=2, guidance=1.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`tiles.yaml` after two steps."""

    def make(folder):
        tiles.write(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("MIO_PLUGINS", tiles.plugins_path())
            assert app.run(["fit", "tiles.yaml", "train.steps=2"]) == 0

    return once(tmp_path_factory, "tiles", make)


@pytest.fixture
def work(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MIO_PLUGINS", tiles.plugins_path())


def model():
    return Model.of(Run.open("runs/tiles", PluginManager.discover()), precision="fp32")


def generate(capsys, *arguments):
    capsys.readouterr()
    asked = ["generate", "runs/tiles", "now a{tile:1-0.tile}", "--device", "cpu", "--json", *arguments]
    code = app.run(asked)
    told = capsys.readouterr()
    return json.loads(told.out)["parts"] if code == 0 else told.err


@pytest.mark.usefixtures("work")
def test_a_prompt_is_answered_with_files_of_what_the_head_made(capsys):
    few = ("--output", "tile", "--max-tokens", "30", "--temperature", "1")
    parts = generate(capsys, *few, "--out", "made", "--steps", "2", "--guidance", "1")
    [path] = [Path(part["path"]) for part in parts if part["type"] == "tile"]
    assert (path.parent, path.suffix) == (Path("made"), ".tile")
    assert tiles.read(path).shape == (tiles.SIZE,)
    again = generate(capsys, *few, "--out", "again", "--steps", "2", "--guidance", "1")
    assert [Path(part["path"]).read_text() for part in again if part["type"] == "tile"] == [path.read_text()]
    several = [
        sum(part["type"] == "tile" for part in generate(capsys, *few, "--most", "3", "--seed", str(seed)))
        for seed in range(3)
    ]
    assert all(1 <= count <= 3 for count in several)
    error = generate(capsys, "--output", "tile", "--max-tokens", "4")
    assert "4 tokens are too few for the answer: 1 span(s) of `tile` take 5" in error


class Shown:
    """A judge that keeps what it is shown."""

    def __init__(self):
        self.answers = []

    def __call__(self, answers: list[Answer], records: list[object]) -> list[float]:  # noqa: ARG002
        self.answers += answers
        return [float(len(answer.media("tile")) >= 1) for answer in answers]


@pytest.mark.usefixtures("work")
def test_tasks_are_judged_by_what_heads_make(tmp_path):
    judge, asked = Shown(), model()
    records = [{"text": f"now {number}", "tile": Media("tile", np.full(4, number, np.uint8), f"t{number}")}
               for number in range(5)]  # fmt: skip

    def ceiling(records, through):
        media = through([record["tile"] for record in records])
        return float(
            np.mean([np.array_equal(one, record["tile"].data) for one, record in zip(media, records, strict=True)])
        )

    task = Task(
        name="draw", template=Template(direction="draw", prompt="{text}", response="{tile}"),
        records=lambda count: records[:count], output="tile", judge=judge, ceiling=ceiling,
        decoding=replace(DECODING, most=1), copies=True,
    )  # fmt: skip
    evaluation = Evaluation(asked, 5, 2, tmp_path / "samples", tmp_path / "evaluation")
    figures = evaluation.report([OwnedTask("made", task)])["draw"]
    assert {name: figures[name] for name in ("accuracy", "n", "ceiling", "judge")} == {
        "accuracy": 1.0, "n": 5, "ceiling": 1.0, "judge": 1.0,
    }  # fmt: skip
    assert "copied" not in figures, "there are no codes to compare"
    assert all(len(answer.media("tile")) == 1 for answer in judge.answers)
    samples = json.loads((tmp_path / "samples" / "draw.json").read_text())
    [path] = [part["path"] for part in samples[0]["answer"] if part["type"] == "tile"]
    assert tiles.read(tmp_path / "samples" / path).tolist() == judge.answers[0].media("tile")[0].tolist()


@pytest.mark.usefixtures("work")
def test_ranks_that_hold_a_copy_together_are_told_all_that_one_is_asked(monkeypatch):
    """What the leading rank sends is enough for another to decode the same."""
    sent = []

    class Line:
        def send(self, message):
            sent.append(json.dumps(message))

        def receive(self):
            return json.loads(sent.pop(0))

    asked = model()
    transformer = asked.transformer
    spread = replace(asked, copy=lambda: (transformer, Replicas(Ranks(), 2, Line())))
    answers = []
    finish = Ticket.finish
    monkeypatch.setattr(Ticket, "finish", lambda one, *given: answers.append(one.answer) or finish(one, *given))
    from mio.core.tokens.documents import plain_document

    prompt = spread.renderer.prompt(plain_document(["now", Media("tile", np.arange(4, dtype=np.uint8), "a")], []))
    need = spread.need("tile", only=False, decoding=DECODING)
    spread.answers([prompt], DECODING, need, [3])
    spread.dismiss()
    spread.assist()
    [first, second] = answers
    assert first.tokens == second.tokens
    assert [one.data.tolist() for one in first.made] == [one.data.tolist() for one in second.made] != []


@pytest.mark.usefixtures("work")
def test_media_of_a_conversation_are_events_and_part_of_its_past(monkeypatch):
    policy = mio.SessionPolicy(answers="all", history=3, output="tile", decoding=DECODING)
    monkeypatch.setattr("mio.core.live.session.policy_of", lambda *_: policy)
    asked = model()
    asked.recipe.data.form, asked.recipe.data.packing.context = "chat", 300
    session = mio.Session(asked)
    session.say("now a")
    media = [event for event in session.finish() if event.kind == "media"]
    assert [event.modality for event in media] == ["tile"]
    path = session.saver(media[0]).save(media[0].content, Path("said"))
    assert tiles.read(path).tolist() == media[0].content.tolist()
    reads = session.engine.rows.reused_tokens
    session.say("now b")
    assert [event.kind for event in session.finish() if event.kind in ("media", "done")] == ["media", "done"]
    assert session.engine.rows.reused_tokens - reads > 20, "the first answer is not read again"
