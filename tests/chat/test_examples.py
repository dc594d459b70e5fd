"""Examples: prompts of a run's own tasks, as somebody would compose them."""

from __future__ import annotations

import numpy as np
import pytest
from hosted import ONE, SEVEN, ask, host, told

import mio
from mio.chat.conversation import Conversation
from mio.chat.examples import EACH, Examples
from mio.core.evaluation.judging import OwnedTask

PIXELS = (np.array(SEVEN, np.uint8) * 85).reshape(2, 2)


def task(name, prompt, records, output="text"):
    template = mio.Template(direction="x", prompt=prompt, response="{answer}")
    return OwnedTask(
        "made",
        mio.Task(name=name, template=template, records=lambda n: records[:n], output=output, judge=list),
    )


@pytest.fixture
def examples(tmp_path, monkeypatch):
    picture = mio.Media("picture", PIXELS, "a")
    codes = mio.Codes("picture", np.array([ONE]))
    tasks = [
        task("name", "what is {picture}?", [{"picture": picture, "answer": "x"}] * 3),
        task("pair", "{first} then {second}", [{"first": codes, "second": picture, "answer": "x"}]),
        task("told", "{control:state1}{picture}", [{"picture": picture, "answer": "x"}]),
        task("broken", "{missing}", [{"picture": picture, "answer": "x"}]),
        task("many", "say {number}", [{"number": number, "answer": "x"} for number in range(20)]),
        task("dance", "dance", [{"answer": "x"}], output="dance"),
    ]
    shared = host(tmp_path)
    found = {one.task.name: (one.plugin, one.task) for one in tasks}
    monkeypatch.setattr(type(shared.run.model.plugins), "tasks", lambda self: found)  # noqa: ARG005
    return Examples(shared, tmp_path / "examples"), shared


def test_an_example_is_asked_as_it_is_composed(examples):
    made, shared = examples
    [example] = made.of("name")  # the same question is one example
    assert example.composed.text == "what is {1}?"
    one = Conversation(shared)
    ask(one, example.composed.text, *example.composed.files)
    assert told(one) == ["a seven"]
    assert shared.run.model.transformer.prompts[-1] == f"<im_start>user\nwhat is {list(SEVEN)}?<im_end>\n"


def test_codes_are_shown_and_asked_as_their_media(examples):
    made, shared = examples
    [example] = made.of("pair")
    assert example.composed.text == "{1} then {2}"
    assert example.html.count("<img") == 2
    one = Conversation(shared)
    ask(one, example.composed.text, *example.composed.files)
    assert told(one) == ["two"]


def test_there_are_a_few_of_each_task_whose_answers_the_run_can_give(examples):
    made, _ = examples
    assert made.tasks == ["name", "pair", "told", "broken", "many"]
    assert [one.composed.text for one in made.of("many")] == [f"say {number}" for number in range(EACH)]
    assert made.of("nothing") == []


def test_what_cannot_be_composed_is_told(examples):
    made, _ = examples
    assert made.of("told") == []
    assert made.left_out["told"] == "an example with Control cannot be composed"
    assert made.of("broken") == []
    assert "needs field `missing`" in made.left_out["broken"]
