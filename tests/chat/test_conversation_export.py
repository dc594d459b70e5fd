"""Conversations as files, which are read back as prompts and as training data."""

from __future__ import annotations

import json
import zipfile

import pytest
from hosted import ONE, SEVEN, ask, host, picture, told

from mio.api.answer_prompts import PromptAnswering
from mio.api.prompt_file import read_prompts
from mio.chat.conversation import Conversation
from mio.chat.export import export, export_zip
from mio.core.errors import UserError
from mio.core.generation.generate import Question


@pytest.fixture
def one(tmp_path):
    one = Conversation(host(tmp_path))
    ask(one, "both", seed=5, temperature=0.5)
    ask(one, "what is {1}?", picture(tmp_path, *SEVEN), output="text")
    ask(one, "{1} then {2}", picture(tmp_path, *ONE, name="one.png"), picture(tmp_path, *SEVEN))
    assert one.problem == ""
    return one


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_messages_are_in_the_form_of_data_sets(one, tmp_path):
    export(one, tmp_path / "out")
    [record] = lines(tmp_path / "out" / "conversation.jsonl")
    roles = [message["role"] for message in record["messages"]]
    assert roles == ["user", "assistant"] * 3
    first = record["messages"][1]["content"]
    assert [part["type"] for part in first] == ["text", "picture", "text", "tone"]
    assert record["messages"][2]["content"] == [
        {"type": "text", "text": "what is "},
        {"type": "picture", "path": "media/2-picture.png"},
        {"type": "text", "text": "?"},
    ]
    for message in record["messages"]:
        for part in message["content"]:
            assert "path" not in part or (tmp_path / "out" / part["path"]).is_file()


def test_prompts_are_read_back_and_answered_as_they_were(one, tmp_path):
    export(one, tmp_path / "out")
    run = one.host.run
    prompts = read_prompts(run, tmp_path / "out" / "prompts.jsonl", Question(content=()), {})
    assert [line.problem for line in prompts] == ["", "", ""]
    for line, exchange in zip(prompts, one.exchanges, strict=True):
        assert line.question.seed == exchange.settings.seed
        assert line.question.decoding == exchange.settings.decoding
        assert line.question.output == exchange.settings.output
    found = {}
    answering = PromptAnswering(run, tmp_path / "answers", None, lambda number, answer: found.update({number: answer}))
    assert answering.answer(prompts) == {}
    for number, exchange in enumerate(one.exchanges, 1):
        assert found[number]["tokens"] == len(exchange.reply.tokens)
        texts = [part["text"] for part in found[number]["parts"] if part["type"] == "text"]
        assert texts == [text for name, text in exchange.reply.parts if name == "text"]


def test_messages_are_given_to_generate_as_they_are(one, tmp_path, monkeypatch):
    export(one, tmp_path / "out")
    [record] = lines(tmp_path / "out" / "conversation.jsonl")
    monkeypatch.chdir(tmp_path / "out")
    answer = one.host.run.generate(record["messages"][:-1])
    assert answer.text == one.exchanges[-1].reply.text
    script = one.host.run.model.transformer
    assert script.prompts[-1] == script.prompts[-2]  # every code of what was answered is that of its file


def test_a_zip_has_the_same_in_one_folder(one):
    with zipfile.ZipFile(export_zip(one)) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert {"made-3/conversation.jsonl", "made-3/prompts.jsonl", "made-3/media/2-picture.png"} <= {*names}
    assert all(name.startswith("made-3/") for name in names)


def test_there_is_nothing_to_export_without_an_answer(tmp_path):
    one = Conversation(host(tmp_path))
    with pytest.raises(UserError, match="no question was answered yet"):
        export(one, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_of_one_name_stay_apart(one, tmp_path):
    (tmp_path / "other").mkdir()
    other = picture(tmp_path / "other", *ONE)
    one.clear()
    ask(one, "{1} then {2}", other, picture(tmp_path, *SEVEN))
    assert told(one) == ["two"]
    export(one, tmp_path / "out")
    [record] = lines(tmp_path / "out" / "conversation.jsonl")
    paths = [part["path"] for part in record["messages"][0]["content"] if "path" in part]
    assert len({*paths}) == 2
    assert (tmp_path / "out" / paths[0]).read_bytes() == other.read_bytes()
