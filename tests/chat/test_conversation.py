"""Conversations: what the model is given, what is seen of its answer, and what can be taken back."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hosted import ONE, SEVEN, ask, host, picture, sound, told
from PIL import Image

from mio.chat.composing import Composed, Placed, marked, placed
from mio.chat.conversation import Conversation, Growing
from mio.core.errors import UserError


@pytest.fixture
def one(tmp_path):
    return Conversation(host(tmp_path))


def prompts(one):
    return one.host.run.model.transformer.prompts


def test_text_and_media_are_in_the_order_in_which_the_model_says_them(one):
    ask(one, "both")
    assert told(one) == ["so ", "picture", " and ", "tone"]
    image = one.last.answer[1]
    assert np.array_equal(np.asarray(Image.open(image.path)).reshape(4) // 85, SEVEN)
    assert image.path.is_relative_to(one.folder)
    assert (one.problem, one.last.reply.reason) == ("", "stop")


def test_a_later_question_has_the_turns_before_it_in_the_codes_of_their_answers(one, tmp_path):
    ask(one, "both")
    ask(one, "what is {1}?", picture(tmp_path, *SEVEN))
    assert told(one) == ["a seven"]
    assert prompts(one)[-1].startswith(f"<im_start>user\nboth<im_end>\n<im_start>assistant\nso {list(SEVEN)} and ")
    assert prompts(one)[-1].endswith(f"<im_start>user\nwhat is {list(SEVEN)}?<im_end>\n")
    ask(one, "again", alone=True)
    assert prompts(one)[-1] == "<im_start>user\nagain<im_end>\n"


def test_files_go_where_the_text_names_them_and_others_behind_or_before_it(one, tmp_path):
    seven, other = picture(tmp_path, *SEVEN, name="7.png"), picture(tmp_path, *ONE, name="1.png")
    ask(one, "{2} then {1}", seven, other)
    assert told(one) == ["two"]
    ask(one, "look", seven, other, first=True)
    assert told(one) == ["both before"]
    assert placed(Composed("a {1} b", (seven, other))) == ["a ", Placed(seven), " b", Placed(other)]
    assert placed(Composed("{tone:1}", (seven,))) == [Placed(seven, "tone")]
    assert placed(Composed("{1} of nothing")) == ["{1} of nothing"]
    assert marked(["a ", seven, other, " b"]) == Composed("a {1}{2} b", (seven, other))
    assert [getattr(part, "path", part) for part in placed(marked(["a ", seven, " b"]))] == ["a ", seven, " b"]


def test_what_cannot_be_asked_is_one_line_and_no_part_of_the_conversation(one, tmp_path):
    ask(one, "both")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    notes = tmp_path / "notes.csv"
    notes.write_text("a")
    seven = picture(tmp_path, *SEVEN)
    for text, files, message in (
        ("", (), "write something, or add a file"),
        ("{2}", (seven,), "{2}: there is 1 file"),
        ("{tone:3}", (), "{tone:3}: there are no files"),
        ("{dance:1}", (seven,), "picture.png: this run does not read `dance`; it reads picture, tone, clip"),
        ("", (notes,), "notes.csv: this run reads no such files; it reads .gif"),
        ("", (broken,), "broken.png: cannot be read as picture"),
        ("x" * 5000, (), "they do not fit the 400 positions"),
    ):
        ask(one, text, *files)
        assert message in one.problem
        assert "\n" not in one.problem
        assert str(one.folder) not in one.problem
        assert one.refused.text == text
        assert len(one.refused.files) == len(files)
        assert len(one.exchanges) == 1
    ask(one, "again")
    assert (one.problem, one.refused, told(one)) == ("", None, ["more"])


def test_a_defect_is_one_line_too(one, monkeypatch):
    monkeypatch.setattr(one.host.run.model.transformer, "fails", True)
    ask(one, "both")
    assert one.problem == "AssertionError:"
    assert one.exchanges == []
    monkeypatch.setattr(one.host.run.model.transformer, "fails", False)
    ask(one, "both")
    assert told(one)[0] == "so "


def test_an_answer_is_seen_while_it_grows_and_stops_when_it_is_told_to(one, monkeypatch):
    monkeypatch.setattr("mio.chat.conversation.PAUSE", 0.0)
    seen = []
    for _ in one.ask(Composed("both"), one.host.settings("", {}, 0)):
        seen.append([*(one.last.answer if one.last else ())])
    growing = [answer[-1] for answer in seen if answer and isinstance(answer[-1], Growing)]
    assert [(part.modality, part.tokens) for part in growing[:3]] == [("picture", 0), ("picture", 1), ("picture", 2)]
    assert seen[1] == ["s"]
    assert not any(isinstance(part, Growing) for part in one.last.answer)
    for steps, _ in enumerate(one.ask(Composed("long"), one.host.settings("", {}, 0))):
        if steps == 5:
            one.stop()
    assert one.last.reply.reason == "cancelled"
    assert 0 < len(one.last.reply.text) < 20
    assert not one.answering
    ask(one, "again")
    assert f"assistant\n{one.exchanges[1].reply.text}<im_end>" in prompts(one)[-1]


def test_who_leaves_has_the_answer_called_off(one, monkeypatch):
    monkeypatch.setattr("mio.chat.conversation.PAUSE", 0.0)
    steps = one.ask(Composed("long"), one.host.settings("", {}, 0))
    for _ in range(4):
        next(steps)
    steps.close()
    engine = one.host.run.running._engine
    engine.step()
    assert not engine.running
    assert not one.answering


def test_the_last_turn_can_be_given_anew_changed_and_taken_back(one, tmp_path):
    seven = picture(tmp_path, *SEVEN)
    ask(one, "both")
    ask(one, "what is {1}?", seven)
    list(one.regenerate(one.host.settings("text", {}, 5)))
    assert told(one) == ["a seven"]
    assert one.last.settings.output == "text"
    assert len(one.exchanges) == 2
    composed = one.undo()
    assert composed.text == "what is {1}?"
    assert composed.files[0].read_bytes() == seven.read_bytes()
    ask(one, composed.text, *composed.files)
    assert told(one) == ["a seven"]
    one.undo()
    ask(one, "again")
    assert prompts(one)[-1].count("<im_start>user") == 2
    one.clear()
    ask(one, "again")
    assert prompts(one)[-1] == "<im_start>user\nagain<im_end>\n"
    one.clear()
    assert one.undo().empty
    one.close()
    assert not one.folder.exists()


def test_a_modality_of_parts_and_an_answer_of_nothing(one):
    ask(one, "clip", output="clip")
    assert told(one) == ["clip"]
    ask(one, "nothing")
    assert told(one) == []
    ask(one, "again")
    assert "nothing" not in prompts(one)[-1]


def test_models_without_turns_are_asked_each_question_alone(tmp_path):
    one = Conversation(host(tmp_path, {"a=": "b", "c=": "d"}, form="plain"))
    ask(one, "a=")
    ask(one, "c=")
    assert (told(one, 0), told(one, 1)) == (["b"], ["d"])
    assert not one.host.turns


def test_several_people_are_answered_by_one_engine(tmp_path):
    shared = host(tmp_path, rows=4)
    shared.run.model.transformer.delay = 0.002
    people = [Conversation(shared) for _ in range(3)]
    threads = [threading.Thread(target=ask, args=(one, "both")) for one in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(told(one) == ["so ", "picture", " and ", "tone"] for one in people)
    assert len({one.folder for one in people}) == 3
    passes = [shape for shape in shared.run.model.transformer.passes if shape[1] == 1]
    assert max(shape[0] for shape in passes) > 1


def test_options_that_differ_from_the_recipes_are_the_ones_that_change(one, tmp_path):
    settings = one.host.settings("picture", {"temperature": 0.0, "media_temperature": 0.2, "unknown": 1}, 4)
    assert settings.decoding == one.host.run.decoding("picture", {"media_temperature": 0.2})
    assert (settings.seed, settings.output) == (4, "picture")
    assert one.host.settings("", {}, -1).seed != one.host.settings("", {}, None).seed
    ask(one, "what is {1}?", picture(tmp_path, *SEVEN), top_p=7.0)
    assert "top_p" in one.problem
    with pytest.raises(UserError, match="temprature"):
        one.host.run.decoding("", {"temprature": 1})


def test_files_are_kept_as_they_were_given_for_as_long_as_the_conversation(one, tmp_path):
    tone = sound(tmp_path, 1, 2)
    content = tone.read_bytes()
    ask(one, "hear ", tone)
    tone.unlink()
    assert told(one) == ["low"]
    assert one.last.asked[1].path.read_bytes() == content
    list(one.regenerate(one.host.settings("", {}, 0)))
    assert told(one) == ["low"]
