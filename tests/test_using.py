"""The examples of docs/using.md, run one after the other on a model that has learnt nothing."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from test_docs import blocks, commands, section

import mio
from mio.api.forms import to_wav
from mio.cli import app

PAGE = "docs/using.md"


@pytest.fixture(scope="module")
def world(digits):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(digits / "three.png")
    Image.fromarray(pixels).save(digits / "counting.gif", save_all=True, append_images=[Image.fromarray(pixels.T)])
    (digits / "seven.wav").write_bytes(to_wav((np.sin(np.arange(4000) / 5), 8000)))
    return digits


@pytest.fixture
def work(world, monkeypatch):
    monkeypatch.chdir(world)
    return world


def test_the_examples_run_in_order(work, capsys):
    space: dict = {}
    for body in blocks(PAGE, "python"):
        exec(compile(body, PAGE, "exec"), space)
    assert isinstance(space["later"], mio.api.Reply)
    assert isinstance(space["answer"], mio.api.Reply)
    assert len(space["answers"]) == 3
    assert len(space["frames"]) == 2
    assert (work / "seven.png").is_file()
    assert "assistant" in capsys.readouterr().out


@pytest.mark.usefixtures("work")
def test_every_attribute_that_is_listed_is_there():
    run = mio.load("runs/stage4", "cpu")
    answer, score = run.generate("a", max_tokens=3), run.score("a")
    [part] = score.parts
    for heading, objects in (("## What is answered", (answer,)), ("## How likely", (score, part))):
        for row in re.findall(r"^\| (`.*?) \|", section(PAGE, heading), re.MULTILINE):
            for name in re.findall(r"`(\w+)", row):
                assert any(hasattr(one, name) for one in objects), name
    listed = re.findall(r"^\| `(\w+)` \|", section(PAGE, "## As it comes"), re.MULTILINE)
    assert {*listed} == {event.__name__ for event in get_args(mio.api.AnswerEvent)}


def test_every_option_of_decoding_is_listed_with_its_default():
    rows = re.findall(r"^\| `(\w+)` \| (\S*) \|", section(PAGE, "## How it decodes"), re.MULTILINE)
    for (name, default), field in zip(rows, fields(mio.Decoding), strict=True):
        assert name == field.name
        value = getattr(mio.Decoding(), name)
        assert default == (f"{value:g}" if isinstance(value, int | float) else str(value))


def test_the_commands_run(work, capsys):
    [lines] = blocks(PAGE, "json")
    (work / "prompts.jsonl").write_text(lines)
    here = (words for words in commands(PAGE) if "runs/stage4" in words)
    for words in (words for words in here if "--devices" not in words):  # of which tests/cli/test_devices.py is
        assert app.run([*words[1:], "--max-tokens", "200"]) == 0, shlex.join(words)
    found = [json.loads(line) for line in (work / "answers/answers.jsonl").read_text().splitlines()]
    assert [line["line"] for line in found] == [1, 2, 3]
    assert "answers.jsonl" in capsys.readouterr().out


HEAVY = ("sympy", "torch._dynamo", "torch.distributed.tensor", "lightning", "torchmetrics", "datasets", "transformers",
         "scipy", "sklearn", "pandas", "timm", "torchvision", "torchaudio")  # fmt: skip
SCRIPT = f"""
import sys
from mio.cli.app import run
assert run(["generate", "runs/stage4", "Say {{image:three.png}}", "--output", "speech", "--max-tokens", "99"]) == 0
print(" ".join(name for name in {HEAVY} if name in sys.modules))
"""


@pytest.mark.usefixtures("work")
def test_an_answer_imports_nothing_that_takes_long_beside_torch():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ""
