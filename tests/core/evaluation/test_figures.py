"""Figures of what judges say: means, ratios and what is made of all items at once, with their intervals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mio import DataError, Measure, PluginError, Task, Template
from mio.core.evaluation.figures import Figures, measured
from mio.core.evaluation.judging import OwnedTask
from mio.core.evaluation.verdicts import evidence, read_verdict

RECORDS = [{"words": place + 1} for place in range(6)]
WER = Measure(name="wer", better="lower", most=math.inf, worst=lambda record: (record["words"],) * 2)


def owned(*measures: Measure, ceiling=None):
    return OwnedTask("counter", Task(
        name="count", template=Template(direction="count", prompt="{words}", response="{words}"), output="text",
        records=lambda n: RECORDS[:n], judge=lambda *_: [], measures=measures or (Measure(),), ceiling=ceiling,
    ))  # fmt: skip


def figure(measure: Measure, said):
    task = owned(measure)
    values = [None if one is None else read_verdict(task.task, one)[measure.name] for one in said]
    return measured(task, measure, values, RECORDS)


def test_right_and_wrong_are_a_share_with_wilsons_interval():
    # R 4.3, prop.test(4, 6, correct = FALSE): 0.2999 to 0.9032
    value, interval = figure(Measure(), [True, 1, 0.0, True, None, True])
    assert value == pytest.approx(4 / 6)
    assert interval == pytest.approx((0.29999, 0.90323), abs=1e-5)


def test_numbers_are_averaged_with_students_interval_inside_their_bounds():
    # t of 5 degrees of freedom: 2.570582; mean 3.5, standard error sqrt(3.5 / 6)
    open_ended = Measure(name="level", least=-math.inf, most=math.inf, worst=lambda _: 0)
    value, interval = figure(open_ended, [1, 2, 3, 4, 5, 6])
    half = 2.570582 * math.sqrt(3.5 / 6)
    assert (value, interval) == (3.5, pytest.approx((3.5 - half, 3.5 + half), abs=1e-5))
    # between 0 and 10 the variance of a mean m is as m (10 - m)
    for bound in figure(Measure(name="level", most=10), [1, 2, 3, 4, 5, 6]).interval:
        error = math.sqrt(3.5 / 6 * bound * (10 - bound) / (3.5 * 6.5))
        assert abs(bound - 3.5) == pytest.approx(2.570582 * error, abs=1e-5)
    assert 25 / 6 < figure(Measure(name="level", most=5), [5, 5, 5, 5, 0, 5]).interval[1] < 5


def test_pairs_are_the_ratio_of_their_sums_and_a_missing_one_is_as_bad_as_can_be():
    value, interval = figure(WER, [(0, 1), (1, 2), (0, 3), (2, 4), (0, 5), None])
    assert value == pytest.approx((1 + 2 + 6) / 21)
    assert interval[0] <= value <= interval[1]


def test_one_number_of_all_items_has_an_interval_by_leaving_blocks_out():
    def spread(said, records):
        assert len(said) == len(records)
        return float(np.std(np.concatenate(said)))

    said = [np.array([place], np.float32) for place in range(6)]
    value, interval = figure(Measure(name="spread", overall=spread), said)
    assert value == pytest.approx(np.std(range(6)))
    parts = [np.std([other for other in range(6) if other != place]) for place in range(6)]
    half = 2.570582 * math.sqrt(5 / 6 * np.sum((parts - np.mean(parts)) ** 2))
    assert interval == pytest.approx((value - half, value + half), abs=1e-4)


def test_a_number_per_item_made_of_all_is_averaged_and_what_has_no_verdict_is_left_out():
    def against_all(said, records):
        total = sum(record["words"] for record in records)
        return [one["text"].count("a") * 10 / total for one in said]

    said = [{"text": "a"}, None, {"text": "aa"}, {"text": ""}, {"text": "a"}, {"text": "a"}]
    value, interval = figure(Measure(name="cider", overall=against_all), said)
    assert value == pytest.approx(50 / 19 / 5)
    assert interval is not None


@pytest.mark.parametrize(
    ("overall", "message"),
    [
        (lambda *_: None, "gave None, not a number, or a number for each of 6 items"),
        (lambda *_: math.nan, "gave nan"),
        (lambda *_: [1.0], r"gave \[1.0\]"),
        (lambda *_: "high", "gave 'high'"),
        (lambda *_: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_what_overall_may_not_give_is_named(overall, message):
    with pytest.raises(PluginError, match=rf"task `count` of plugin `counter`: `odd`, `overall`.*{message}"):
        figure(Measure(name="odd", overall=overall), range(6))


def test_worst_is_held_to_what_a_judge_may_say():
    with pytest.raises(PluginError, match="`wer`, `worst` gave -1"):
        figure(Measure(name="wer", better="lower", most=9, worst=lambda _: -1), [1, None, 1, 1, 1, 1])
    with pytest.raises(PluginError, match="`worst` raised KeyError"):
        figure(Measure(name="wer", better="lower", most=9, worst=lambda record: record["text"]), [None] * 6)
    assert figure(Measure(name="wer", better="lower", most=9), [None] * 6).value == 9


def test_numbers_and_pairs_do_not_mix():
    with pytest.raises(PluginError, match="numbers for some items and pairs for others"):
        figure(WER, [1, (1, 2), 1, 1, 1, 1])


def test_arrays_and_values_come_out_as_they_went_in():
    task = owned(Measure(name="features", overall=lambda *_: 0.0)).task
    for said in (np.arange(6, dtype=np.float16).reshape(2, 3), torch.arange(6.0).reshape(2, 3).bfloat16()):
        again = evidence(read_verdict(task, said)["features"])
        assert again.dtype == np.float32
        assert np.array_equal(again, np.arange(6).reshape(2, 3))
    assert evidence(read_verdict(task, {"words": ["a", "b"], "n": 2})["features"]) == {"words": ["a", "b"], "n": 2}


def test_several_figures_of_one_answer_and_their_ceilings():
    kind, exact = Measure(name="kind"), Measure(name="exact")
    task = owned(kind, exact, WER, ceiling=lambda *_: {"kind": 0.9, "wer": 2.5})
    one = Figures(task, RECORDS[:2])
    verdict = read_verdict(task.task, {"kind": True, "exact": 0.5, "wer": (1, 4)})
    ceilings = task.ceilings(RECORDS, type("Codecs", (), {"round_trip": None, "originals": None})())
    lines = [{"item": 0, "verdicts": verdict}, {"item": 1, "failure": "no"}]
    one.add({"items": lines, "problems": [], "seconds": 0.5})
    one.add({"ceilings": ceilings, "problems": [], "seconds": 0.5})
    result = one.result()
    assert (result["kind"], result["exact"]) == (0.5, 0.25)
    assert result["wer"] == pytest.approx((1 + 2) / 6, abs=1e-4)
    assert {name: result[name] for name in ("ceiling", "judge", "ceiling/wer")} == {
        "ceiling": 0.9, "judge": 0.9, "ceiling/wer": 2.5,
    }  # fmt: skip
    assert set(result["intervals"]) == {"kind", "exact", "wer"}
    assert one.lines()[0] == "count: kind 0.500, exact 0.250, wer 0.500 of 2, 1 failed"


@pytest.mark.parametrize("said", [True, {"kind": True}, {"kind": True, "exact": 2}, {"kind": 1, "exact": 1, "more": 1}])
def test_a_verdict_of_several_measures_has_each_by_name(said):
    task = owned(Measure(name="kind"), Measure(name="exact"))
    task = OwnedTask("counter", replace(task.task, judge=lambda *_: [said]))
    with pytest.raises(PluginError, match="not `kind`, one truth value or number from 0 to 1, and `exact`"):
        task.verdicts({0: None}, RECORDS, {})


def test_names_of_a_verdict_that_are_missing_or_too_many_are_told():
    task = owned(Measure(name="kind"), Measure(name="exact"))
    task = OwnedTask("counter", replace(task.task, judge=lambda *_: [{"kind": 1, "more": 1}]))
    with pytest.raises(PluginError, match="which lacks `exact` and has 'more', which is no measure"):
        task.verdicts({0: None}, RECORDS, {})


def test_a_ceiling_of_no_measure_is_named():
    task = owned(ceiling=lambda *_: {"exact": 1.0})
    with pytest.raises(PluginError, match="a figure of `exact`, which is no measure"):
        task.ceilings(RECORDS, type("Codecs", (), {"round_trip": None, "originals": None})())


def test_what_overall_cannot_be_made_of_is_an_error_of_the_data():
    def no_weights(*_):
        raise DataError("no weights")

    with pytest.raises(DataError, match="no weights"):
        figure(Measure(name="fid", overall=no_weights), range(6))
