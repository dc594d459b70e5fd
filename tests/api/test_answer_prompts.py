"""`mio generate --prompts`: every line has the answer that it has alone; an interruption changes no byte."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import MELODY

import mio
from mio.api.loaded import Loaded
from mio.cli import app

PLUGIN = f"melody={MELODY / 'mio_melody.py'}"
LINES = [
    '"Please play do re:"',
    '{"prompt": ["again ", {"type": "melody", "path": "tune.txt"}], "output": "melody", "seed": 5}',
    "",
    '{"prompt": "hear {melody:tune.txt}", "decoding": {"temperature": 1.0}}',
    '{"messages": [{"role": "user", "content": "play"}]}',
    '"x"',
]


@pytest.fixture
def work(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "asked").mkdir()
    (tmp_path / "asked/tune.txt").write_text("do mi sol")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(work, lines, name="prompts.jsonl"):
    path = work / "asked" / name
    path.write_text("\n".join(lines) + "\n")
    return f"asked/{name}"


def answer(prompts, *options):
    return app.run(
        ["generate", "run", "--prompts", prompts, "--plugin", PLUGIN, "--device", "cpu", "--output", "melody",
         "--max-tokens", "20", *options]
    )  # fmt: skip


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_every_line_has_the_answer_that_it_has_alone(work):
    assert answer(written(work, LINES), "--out", "out", "--rows", "2", "--seed", "10") == 0
    found = [json.loads(line) for line in (work / "out/answers.jsonl").read_text().splitlines()]
    assert [line["line"] for line in found] == [1, 2, 4, 5, 6]
    run = mio.load("run", "cpu", plugins=[PLUGIN])
    tune = {"type": "melody", "path": "asked/tune.txt"}
    alone = [
        run.generate("Please play do re:", "melody", seed=10, max_tokens=20),
        run.generate(["again ", tune], "melody", seed=5, max_tokens=20),
        run.generate(["hear ", tune], "melody", seed=13, max_tokens=20, temperature=1.0),
        run.generate("play", "melody", seed=14, max_tokens=20),
        run.generate("x", "melody", seed=15, max_tokens=20),
    ]
    for line, expected in zip(found, alone, strict=True):
        [melody] = [part for part in line["parts"] if part["type"] == "melody"]
        [item] = expected.media("melody")
        assert run.model.codecs.opened(run.parts.media("melody", work / "out" / melody["path"])).data == item
        assert (line["tokens"], line["prompt_tokens"]) == (len(expected.tokens), expected.usage.prompt_tokens)
        assert line["reason"] == expected.reason
        assert melody["path"] == f"{line['line']}-melody-{line['parts'].index(melody)}.txt"


def test_answers_are_printed_in_the_order_of_the_lines(work, capsys):
    assert answer(written(work, LINES), "--json", "--out", "out") == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kept = [json.loads(line) for line in (work / "out/answers.jsonl").read_text().splitlines()]
    assert [line["line"] for line in printed] == [1, 2, 4, 5, 6]
    assert [line["tokens"] for line in printed] == [line["tokens"] for line in kept]
    paths = [part["path"] for line in printed for part in line["parts"] if part["type"] == "melody"]
    assert all((work / path).is_file() for path in paths)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_interruption_changes_nothing(work, monkeypatch, after):
    prompts = written(work, LINES)
    assert answer(prompts, "--out", "whole") == 0
    reply, count = Loaded.reply, []

    def interrupted(self, pending):
        if len(count) == after:
            raise KeyboardInterrupt
        count.append(1)
        return reply(self, pending)

    monkeypatch.setattr(Loaded, "reply", interrupted)
    assert answer(prompts, "--out", "cut") == 130
    if after:  # and then killed while it wrote the next line
        with (work / "cut/answers.jsonl").open("a") as file:
            file.write('{"line": 9, "fing')
    monkeypatch.undo()
    monkeypatch.chdir(work)
    made = []
    monkeypatch.setattr(Loaded, "reply", lambda self, pending: made.append(1) or reply(self, pending))
    assert answer(prompts, "--out", "cut") == 0
    assert content(work / "cut") == content(work / "whole")
    assert len(made) == 5 - after
    assert answer(prompts, "--out", "cut") == 0
    assert len(made) == 5 - after  # all is there


def test_bad_lines_are_named_and_cost_no_other(work, capsys):
    bad = ["not json", '{"prompt": 5}', '{"prompt": "a", "ouput": "b"}', '{"prompt": "{melody:none.txt}"}',
           '"' + "x" * 200 + '"', '{"prompt": "a", "seed": -1}', '{"prompt": "a", "messages": []}', "[]"]  # fmt: skip
    prompts = written(work, [*LINES, *bad])
    assert answer(prompts, "--out", "out") == 2
    told = capsys.readouterr().err
    for number, reason in (
        (7, "not valid JSON"),
        (8, "must be a string, media"),
        (9, "unknown key `ouput`; did you mean `output`?"),
        (10, "none.txt: no such file"),
        (11, "the prompt has 201 tokens"),
        (12, "`seed`: -1"),
        (13, "must have one of `prompt` and `messages`"),
        (14, "is empty"),
    ):
        assert any(f"line {number}: " in line and reason in line for line in told.splitlines()), (number, told)
    assert "error: asked/prompts.jsonl: 8 of 13 prompts have no answer; correct them" in told
    lines = [json.loads(line) for line in (work / "out/answers.jsonl").read_text().splitlines()]
    assert ["error" in line for line in lines] == [False] * 5 + [True] * 8
    written(work, LINES)  # corrected: what is there is kept
    assert answer(prompts, "--out", "out") == 0
    assert all("error" not in line for line in map(json.loads, (work / "out/answers.jsonl").read_text().splitlines()))


def test_answers_to_other_questions_are_not_touched(work, capsys):
    prompts = written(work, LINES)
    assert answer(prompts, "--out", "out") == 0
    before = content(work / "out")
    for options in (("--seed", "3"), ("--temperature", "0.5"), ("--precision", "fp32")):
        assert answer(prompts, "--out", "out", *options) == 2
        assert "answers another prompt, or was made by another model or with other options" in capsys.readouterr().err
    (work / "asked/tune.txt").write_text("do")
    assert answer(prompts, "--out", "out") == 2
    (work / "out/answers.jsonl").write_text('{"a": 1}')
    assert answer(prompts, "--out", "out") == 2
    assert "is no answer of `mio generate`" in capsys.readouterr().err
    (work / "out/answers.jsonl").write_bytes(before["answers.jsonl"])
    assert content(work / "out") == before


def test_lines_of_text_are_prompts_as_they_are_typed(work):
    prompts = written(work, ["play", "hear {melody:tune.txt}"], "prompts.txt")
    assert answer(prompts, "--out", "text") == 0
    prompts = written(work, ['"play"', '"hear {melody:tune.txt}"'])
    assert answer(prompts, "--out", "json") == 0
    assert content(work / "text") == content(work / "json")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["generate", "run"], "a prompt or --prompts FILE: give one of them"),
        (["generate", "run", "a", "--prompts", "asked/tune.txt"], "give one of them, not both"),
        (["generate", "run", "--prompts", "asked/tune.txt"], "--prompts needs --out DIR"),
        (["generate", "run", "--prompts", "none.txt", "--json", "--plugin", PLUGIN], "none.txt: no such file"),
        (["generate", "run", "--prompts", "asked/empty", "--json", "--plugin", PLUGIN], "holds no prompts"),
    ],
)
def test_mistakes_are_one_line(work, capsys, arguments, told):
    (work / "asked/empty").write_text("\n \n")
    assert app.run(arguments) == 2
    assert told in capsys.readouterr().err
