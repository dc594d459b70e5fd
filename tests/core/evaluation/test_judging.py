"""What judges return: one truth value or number from 0 to 1 per answer is taken, anything else is named."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from mio import Answer, DataError, PluginError, Task, Template
from mio.core.evaluation.judging import OwnedTask

ANSWERS = {place: Answer((("text", str(place)),)) for place in range(4)}
RECORDS = [{"number": place} for place in range(4)]


def task(judge=None, ceiling=None, records=lambda n: RECORDS[:n]):
    return Task(
        name="count", template=Template(direction="count", prompt="{number}", response="{number}"), records=records,
        output="text", judge=judge or (lambda answers, _: [True] * len(answers)), ceiling=ceiling,
    )  # fmt: skip


def judged(given, answers=ANSWERS):
    failed = {}
    found = OwnedTask("counter", task(lambda *_: given)).verdicts(answers, RECORDS, failed)
    assert not failed
    return {item: verdict["accuracy"] for item, verdict in found.items()}


@pytest.mark.parametrize(
    "given",
    [
        [True, False, True, True],
        (1, 0, 1, 1),
        [1.0, 0.0, 1.0, 1.0],
        np.array([True, False, True, True]),
        np.array([1, 0, 1, 1], dtype=np.uint8),
        np.array([1, 0, 1, 1], dtype=np.float16),
        torch.tensor([True, False, True, True]),
        torch.tensor([1.0, 0.0, 1.0, 1.0]),
        [np.bool_(True), 0, Fraction(1), np.float32(1)],
        pytest.param((value for value in (True, False, True, True)), id="generator"),
        {0: True, 1: False, 2: True, 3: True}.values(),
    ],
)
def test_truth_values_and_numbers_of_any_kind(given):
    assert judged(given) == {0: 1.0, 1: 0.0, 2: 1.0, 3: 1.0}


def test_numbers_between_are_shares_and_places_are_those_of_the_answers():
    assert judged([0.25, 1], {1: ANSWERS[1], 3: ANSWERS[3]}) == {1: 0.25, 3: 1.0}


def test_an_answer_without_media_is_one_that_the_judge_cannot_tell():
    answers, failed = {0: Answer((("tile", 1), ("text", " or "), ("tile", 2))), 1: ANSWERS[1]}, {}
    owned = OwnedTask("counter", task(lambda answers, _: [answer.first("tile") == 1 for answer in answers]))
    assert owned.verdicts(answers, RECORDS, failed) == {0: {"accuracy": 1.0}}
    assert failed == {1: "the judge cannot tell: the answer has no tile"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([True], "returned 1 values, not one truth value or number from 0 to 1 for each of 4 answers"),
        ([True] * 5, "more than 4 values"),
        pytest.param(iter(lambda: True, None), "more than 4 values", id="endless"),
        ([], "0 values"),
        (None, "returned None"),
        (True, "returned True"),
        (0.5, "returned 0.5"),
        (np.array(0.5), r"returned array\(0.5\)"),
        ("yes!", "returned 'yes!'"),
        ({0: True, 1: True, 2: True, 3: True}, "returned {0: True"),
        ({True}, "returned {True}"),
        ([True, True, 13.47, True], "returned 13.47 for item 2"),
        ([True, True, math.nan, True], "returned nan for item 2"),
        ([True, True, math.inf, True], "returned inf for item 2"),
        ([True, True, -math.inf, True], "returned -inf for item 2"),
        ([True, True, -0.1, True], "returned -0.1 for item 2"),
        ([True, True, None, True], "returned None for item 2"),
        ([True, True, "1", True], "returned '1' for item 2"),
        ([True, True, 1 + 0j, True], r"returned \(1\+0j\) for item 2"),
        ([True, True, [True], True], r"returned \[True\] for item 2"),
        (np.ones((4, 1)), r"returned array\(\[1.\]\) for item 0"),
        (np.ma.masked_array([1, 1, 1, 1], mask=[0, 0, 1, 0]), "returned masked for item 2"),
        (torch.tensor([1.0, math.nan, 1, 1]), r"returned tensor\(nan\) for item 1"),
        ([10**400] * 4, "for item 0"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_anything_else_is_named_with_task_and_plugin(given, message):
    with pytest.raises(PluginError, match=rf"^task `count` of plugin `counter`: its judge .*{message}") as caught:
        judged(given)
    assert "\n" not in str(caught.value)


def test_an_answer_that_the_judge_cannot_tell_costs_this_answer_alone():
    def judge(answers, records):
        for answer, record in zip(answers, records, strict=True):
            if answer.text == "2":
                raise DataError(f"no digit in {record['number']}")
        return [answer.text == "1" for answer in answers]

    failed = {}
    assert OwnedTask("counter", task(judge)).verdicts(ANSWERS, RECORDS, failed) == {
        place: {"accuracy": float(place == 1)} for place in (0, 1, 3)
    }
    assert failed == {2: "the judge cannot tell: no digit in 2"}


def test_an_error_in_the_judges_code_says_where():
    def judge(_, records):
        return [record["name"] for record in records]

    with pytest.raises(PluginError, match=r"`counter`: its judge raised KeyError: 'name' \(.*\.py, line \d+\)"):
        OwnedTask("counter", task(judge)).verdicts(ANSWERS, RECORDS, {})


class Codecs:
    round_trip = staticmethod(lambda items: items)
    originals = staticmethod(lambda items: items)


@pytest.mark.parametrize("given", [math.nan, 1.5, -1, None, "1", [0.5]], ids=str)
def test_a_ceiling_is_a_share(given):
    with pytest.raises(PluginError, match="task `count` of plugin `counter`: `ceiling` gave"):
        OwnedTask("counter", task(ceiling=lambda *_: given)).ceilings(RECORDS, Codecs())


def test_ceilings_of_the_codec_and_of_the_judge():
    made = task(ceiling=lambda _, through: np.float32(0.5) if through is Codecs.originals else 1)
    assert OwnedTask("counter", made).ceilings(RECORDS, Codecs()) == {"ceiling": 1.0, "judge": 0.5}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "it has no held-out records"),
        (None, "`records` gave nothing"),
        ({"number": 1}, "`records` gave dict"),
        ([1], "record 0 is int, not a mapping"),
    ],
    ids=str,
)
def test_records_of_a_task_are_records(given, message):
    with pytest.raises(PluginError, match=f"^task `count` of plugin `counter`: {message}"):
        OwnedTask("counter", task(records=lambda _: given)).records(3)


def test_no_more_records_than_asked_for():
    assert OwnedTask("counter", task(records=lambda _: RECORDS)).records(3) == RECORDS[:3]
