"""Held-out records that the model completes at the end of a stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import TINY, fit

from mio.core.contract.values import Codes
from mio.core.stages import completions
from mio.core.stages.completions import opened
from mio.core.tokens.chat import chat_document
from mio.core.tokens.documents import Document, Special, interleaved_document, plain_document

HELD_OUT = (*TINY, "data.held_out=0.3", "validate.every=2", "validate.items=4")
CODES = Codes("melody", [[1, 2]])


def contents(document: Document) -> tuple[list[object], list[object]]:
    """What comes before the answer, and what is answered, without special tokens."""
    listed = [segment.content for segment in document.segments]
    sides = listed[: document.answer], listed[document.answer :]
    return tuple([one for one in side if not isinstance(one, Special)] for side in sides)


def test_a_document_with_a_prompt_stays_as_it_is():
    for document in (
        plain_document(["Play do:"], [CODES]),
        chat_document([{"role": "user", "content": "hm"}, {"role": "assistant", "content": "yes"}], {}),
    ):
        assert opened(document) is document


@pytest.mark.parametrize(
    ("parts", "given", "asked"),
    [
        (["do", CODES, "re", CODES], ["do", CODES], ["re", CODES]),
        (["one two three four"], ["one two three"], [" four"]),
        (["one two"], ["one"], [" two"]),
        (["one"], [], ["one"]),
        ([CODES], [], [CODES]),
    ],
)
def test_of_what_has_no_prompt_the_first_half_is_given(parts, given, asked):
    assert contents(opened(interleaved_document(parts))) == (given, asked)


@pytest.fixture
def lines(tunes):
    """What is in the folder of a run's last step, of two records of each stream."""
    told = fit("with", *HELD_OUT, "validate.samples=2")
    assert "no held-out records were completed" not in told
    folder = tunes / "with/tunes/samples/step-00000004"
    return [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]


def test_records_are_completed_and_nothing_of_the_training_shows_it(lines, tunes):
    fit("without", *HELD_OUT, "validate.samples=0")
    assert not (tunes / "without/tunes/samples").exists()
    for name in ("model.safetensors", "journal.csv"):
        assert (tunes / "with/tunes" / name).read_bytes() == (tunes / "without/tunes" / name).read_bytes()
    streams = ["melody/tunes/understand", "melody/tunes/generate", "names/lines/text"]
    assert sorted({line["stream"] for line in lines}) == sorted(streams)
    assert all(sum(line["stream"] == stream for line in lines) == 2 for stream in streams)
    folder = tunes / "with/tunes/samples/step-00000004"
    for line in lines:
        assert line["prompt"]
        assert line["expected"]
        for part in (*line["prompt"], *line["expected"], *line["answer"]):
            assert set(part) in ({"type", "text"}, {"type", "path"})
            assert "path" not in part or (folder / part["path"]).is_file()
    media = [part["path"] for line in lines for part in line["expected"] if "path" in part]
    assert media
    assert all(path.startswith("given/") for path in media)


def test_loggers_are_given_the_answers(lines, tunes):
    [logged] = [json.loads(line) for line in (tunes / "with/tunes/samples.jsonl").read_text().splitlines()]
    assert logged["step"] == 4
    names = [f"validation/completions/{line['stream']}" for line in lines]
    assert [sample["name"] for sample in logged["samples"]] == names
    assert all((tunes / "with/tunes" / file).is_file() for sample in logged["samples"] for file in sample["files"])


@pytest.mark.usefixtures("tunes")
def test_what_goes_wrong_ends_no_training(monkeypatch):
    def broken(*_):
        raise RuntimeError("no codec today")

    monkeypatch.setattr(completions, "_answers", broken)
    told = fit("runs", *HELD_OUT)
    assert "no held-out records were completed: no codec today" in told
    assert Path("runs/tunes/summary.json").is_file()
