"""`mio talk`: recordings and typed text, what is printed, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from conftest import MELODY
from scripted_model import PARLEY, World

from mio.cli import app, talk
from mio.core.generation.model import Model

ANSWERS = {
    "[0, 1]": "<1>first, second",
    "[2, 3]": "<1>other",
    "[7, 7]": "<2>never shown",
    "hello": "<3>you too",
    "sing": ["<3>", (1, 2, 3), "done"],
    "[5]hello": "<3>seen",
    "so [5][6]": "<3>both",
}
PLUGINS = ("--plugin", f"melody={MELODY / 'mio_melody.py'}", "--plugin", f"parley={PARLEY}")


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """In place of a run: the model with written answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(talk, "open_run", lambda *_, **__: None)
    monkeypatch.setattr(talk, "refuse_no_run", lambda _: None)
    monkeypatch.setattr(Model, "of", lambda *_, **__: World(ANSWERS).model())
    (tmp_path / "tune.txt").write_text("0\n1\n\n\n\n\n\n2\n3\n\n")
    (tmp_path / "five.txt").write_text("sol")
    return tmp_path


def typed(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def run(capsys, *arguments):
    code = app.run(["talk", "run", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.usefixtures("scripted")
def test_a_recording_is_listened_to(capsys):
    code, out, err = run(capsys, "--input", "tune.txt", "--step", 0.1)
    assert (code, err) == (0, "")
    assert out == "[heard 0.00-0.30 s]\nfirst\n[heard 0.70-1.00 s]\n, \n[interrupted]\nother\n"


@pytest.mark.usefixtures("scripted")
def test_events_are_lines_of_json(capsys):
    code, out, err = run(capsys, "--input", "tune.txt", "--step", 0.1, "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [event["event"] for event in events if event["event"] != "text"] == [
        "heard", "control", "heard", "control", "interrupted", "done",
    ]  # fmt: skip
    assert "".join(event["text"] for event in events if event["event"] == "text" and event["query"]) == "other"


def test_lines_of_a_pipe_are_answered_one_by_one(scripted, capsys, monkeypatch):
    typed(monkeypatch, "hello\n\nhello\nso {melody:five.txt}{melody:six.txt}\n")
    (scripted / "six.txt").write_text("la")
    monkeypatch.setitem(ANSWERS, "so [4][5]", "<3>both")
    assert run(capsys) == (0, "you too\nyou too\nboth\n", "")


@pytest.mark.usefixtures("scripted")
def test_media_that_are_shown_are_asked_about(capsys, monkeypatch):
    typed(monkeypatch, "hello\n")
    monkeypatch.setitem(ANSWERS, "[4]hello", "<3>seen")
    assert run(capsys, "--show", "melody:five.txt") == (0, "seen\n", "")


def test_media_of_answers_are_files(scripted, capsys, monkeypatch):
    typed(monkeypatch, "sing\nsing\n")
    code, out, err = run(capsys, "--out", "songs", "--set", "speaks=melody", "--set", "least=2")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "[melody: songs/melody-0.txt]"
    assert sorted(path.name for path in (scripted / "songs").iterdir()) == [f"melody-{n}.txt" for n in range(4)]
    assert (scripted / "songs" / "melody-0.txt").read_text() == "(1, 2, 3)"


@pytest.mark.usefixtures("scripted")
def test_the_world_s_time_gives_the_same_answers(capsys):
    Path("short.txt").write_text("0\n1\n\n")
    code, out, err = run(capsys, "--input", "short.txt", "--real-time")
    assert (code, out, err) == (0, "[heard 0.00-0.30 s]\nfirst, second\n", "")


@pytest.mark.usefixtures("scripted")
def test_a_terminal_talks_in_the_world_s_time(capsys, monkeypatch):
    typed(monkeypatch, "{melodi:x}\nhello\n")
    sys.stdin.isatty = lambda: True
    code, out, err = run(capsys)
    assert (code, out) == (0, "you too\n")
    assert err.startswith("error: prompt: no modality `melodi` in this run; did you mean `melody`?")


def test_what_is_interrupted_by_a_person_says_what_there_is(scripted, capsys, monkeypatch):
    class Interrupting(io.StringIO):
        def __next__(self):
            line = super().__next__()
            if line == "stop\n":
                raise KeyboardInterrupt
            return line

    monkeypatch.setattr(sys, "stdin", Interrupting("hello\nstop\n"))
    code, out, err = run(capsys)
    assert (code, out) == (130, "you too\n")
    assert err == f"interrupted: the conversation ends here; 1 answers were given whole, 0 files are in {scripted}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--input", "none.txt"), "--input none.txt: no such file"),
        (("--input", "words.txt"), "words.txt: invalid literal for int"),
        (("--input", "empty.txt"), "--input empty.txt: holds nothing to listen to"),
        (("--show", "melody"), "--show melody: must be MODALITY:FILE"),
        (("--show", "melody:none.txt"), "none.txt: no such file"),
        (("--show", "melodi:five.txt"), "no modality `melodi` in this run"),
        (("--set", "history"), "--set history: must be KEY=VALUE"),
        (("--set", "history=1", "--set", "history.a=1"), "--set history.a=1: `history` has a value already"),
        (("--set", "history=-1"), "plugin `parley`, hook `mio_session`, answer: `history` is -1"),
        (("--policy", "parlay"), "no plugin `parlay` is installed; did you mean `parley`?"),
        (("--policy", "text"), "plugin `text` does not say how a live conversation goes"),
        (("--out", "five.txt"), "--out five.txt: five.txt is a file"),
        (("--step", "0"), "--step"),
    ],
)
def test_mistakes_are_one_line(scripted, capsys, monkeypatch, arguments, message):
    typed(monkeypatch, "hello\n")
    (scripted / "words.txt").write_text("no notes")
    (scripted / "empty.txt").write_text("")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_recording_in_which_nothing_is_said_is_told(scripted, capsys):
    (scripted / "quiet.txt").write_text("\n\n\n")
    code, out, err = run(capsys, "--input", "quiet.txt")
    assert (code, out, err) == (0, "", "quiet.txt: nothing was heard in it that is a query\n")


@pytest.mark.usefixtures("scripted")
def test_a_closed_standard_input_is_told(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    code, _, err = run(capsys)
    assert (code, err) == (
        2, "error: standard input is closed: there is nothing to answer; give a recording with --input\n"
    )  # fmt: skip


def test_a_run_that_was_trained_answers(finished, tmp_path, monkeypatch, capsys):
    shutil.copytree(finished, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    prompts = ("do re", "melody number", "Please play do re:")
    typed(monkeypatch, "\n".join(prompts))
    options = ("--policy", "parley", *PLUGINS)
    assert app.run(["talk", "run", *options]) == 2
    assert "its model has no control tokens" in capsys.readouterr().err
    assert app.run(["talk", "run", "--set", "answers=all", "--json", *options]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["query"] for event in events if event["event"] == "done"] == [0, 1, 2]
    assert {"text", "media"} & {event["event"] for event in events}
    for query, prompt in enumerate(prompts):
        own = [event for event in events if event["query"] == query]
        decoding = ("--media-temperature", "0", "--max-tokens", "60", "--out", "generated", "--json")
        assert app.run(["generate", "run", prompt, *decoding, *PLUGINS[:2]]) == 0
        parts = json.loads(capsys.readouterr().out)["parts"]
        said = "".join(event["text"] for event in own if event["event"] == "text")
        assert said == "".join(part["text"] for part in parts if part["type"] == "text")
        assert sum(event["event"] == "media" for event in own) == sum(part["type"] == "melody" for part in parts)
    assert app.run(["talk", "nowhere"]) == 2
    assert "nowhere: no such run folder" in capsys.readouterr().err
    assert app.run(["talk", "run", *PLUGINS]) == 2
    assert "no plugin of the run says how a live conversation goes; name one that does" in capsys.readouterr().err
