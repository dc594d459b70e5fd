"""Runs compared by their items: each figure by hand or by the test that is checked elsewhere."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from rich.console import Console

from mio import Measure, Task, Template
from mio.core.evaluation import paired
from mio.core.evaluation.compare import Side
from mio.core.evaluation.compare import compare as compared
from mio.core.evaluation.judging import OwnedTask

TEMPLATE = Template(direction="count", prompt="{number}", response="{number}")
ABOUT = {"plugin": "counter", "records": "r", "weights": {"model": "1"}, "precision": "float32", "seed": 0,
         "decoding": {"temperature": 0.0, "by": {}}}  # fmt: skip


def owned(name="count", *measures):
    task = Task(
        name=name, template=TEMPLATE, records=lambda n: [{"number": n, "item": k} for k in range(n)], output="text",
        judge=lambda *_: [], measures=measures or (Measure(),),
    )  # fmt: skip
    return OwnedTask("counter", task)


def write(folder, one, verdicts, prompts=None, **about):
    """Items as an evaluation leaves them; None of an item without a verdict."""
    measures = {measure.name: measure.better for measure in one.task.measures}
    first = {"task": one.task.name, "n": len(verdicts), "measures": measures, **ABOUT, **about, "figures": {}}
    lines = [first]
    for item, said in enumerate(verdicts):
        prompt = prompts[item] if prompts else f"p{item}"
        line = {"item": item, "prompt": prompt, "output": [{"type": "text", "text": str(said)}]}
        if said is None:
            line["failure"] = "cannot"
        else:
            line["verdicts"] = said if isinstance(said, dict) else {one.task.measure.name: said}
        lines.append(line)
    file = folder / f"{one.task.name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def sides(tmp_path):
    return [Folder(name, tmp_path / name / "evaluation") for name in ("first", "second")]


class Folder(NamedTuple):
    name: str
    folder: Path


def compare(tasks, first, second):
    return compared(tasks, *(Side.read(*one, [task.task.name for task in tasks]) for one in (first, second)))


def printed(comparison):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(comparison.table())
    return console.export_text()


def test_right_or_wrong_is_compared_item_by_item(sides):
    one = owned()
    ours, theirs = [1.0] * 150 + [0.0] * 50, [1.0] * 140 + [0.0] * 10 + [1.0] * 30 + [0.0] * 19 + [None]
    write(sides[0].folder, one, ours)
    write(sides[1].folder, one, theirs)
    comparison = compare([one], *sides)
    [row] = comparison.rows
    assert (row.n, row.first, row.second, row.differ) == (200, 0.75, 0.85, 40)
    assert row.found == paired.right_or_wrong(30, 10, 200)
    assert row.p_holm == row.found.p == pytest.approx(0.0015654, abs=1e-6)
    assert row.winner == 2
    told = printed(comparison)
    assert told.split()[:10] == ["task", "first", "second", "diff", "95", "%", "p", "Holm", "differ", "better"]
    assert told.splitlines()[1].split()[:3] == ["count", "0.75", "0.85"]
    assert "  +0.100  +0.040 +0.164  0.002  0.002      40  second" in told
    apart = comparison.apart["count"]
    assert [line["item"] for line in apart] == [*range(140, 180), 199]  # one could not be judged: it is wrong in both
    assert apart[0] == {
        "item": 140,
        "prompt": "p140",
        "first": {"output": [{"type": "text", "text": "1.0"}], "verdicts": {"accuracy": 1.0}},
        "second": {"output": [{"type": "text", "text": "0.0"}], "verdicts": {"accuracy": 0.0}},
    }
    assert list(comparison.shown(1)) == [
        "count, item 140: p140",
        "  first: 1.0 [accuracy 1.0]",
        "  second: 0.0 [accuracy 0.0]",
    ]
    assert apart[-1]["second"] == {"output": [{"type": "text", "text": "None"}], "failure": "cannot"}


def test_each_measure_has_its_own_test(sides):
    rng = np.random.default_rng(0)
    wer = Measure(name="wer", better="lower", most=math.inf, worst=lambda record: (record["number"], record["number"]))
    level = Measure(name="level", least=0, most=10)
    spread = Measure(name="spread", overall=lambda said, _: float(np.std(said)), better="lower")
    share = Measure(name="share", overall=lambda said, _: [one / max(said) for one in said])
    one = owned("all", level, wer, spread, share)
    values = []
    for shift, side in zip((0, 1), sides, strict=True):
        words = np.random.default_rng(1).integers(3, 9, 60)
        wrong, levels = rng.binomial(words, 0.2 + 0.1 * shift), rng.uniform(0, 8, 60) + shift
        said = [{"level": float(a), "wer": [int(b), int(c)], "spread": float(a), "share": float(a)}
                for a, b, c in zip(levels, wrong, words, strict=True)]  # fmt: skip
        said[7] = None if shift else said[7]
        write(side.folder, one, said)
        values.append((levels, np.stack([wrong, words], 1).astype(float)))
    rows = {row.measure: row for row in compare([one], *sides).rows}
    (a, pairs), (b, others) = values
    at_worst, whole = b.copy(), np.delete(np.arange(60), 7)
    at_worst[7], others[7] = 0, (60, 60)
    assert rows["level"].found == paired.numbers(a, at_worst, 0, 10)
    assert rows["wer"].found == paired.ratios(pairs, others)
    assert rows["wer"].second == pytest.approx(others[:, 0].sum() / others[:, 1].sum())
    assert rows["spread"].n == rows["share"].n == 59  # what has no verdict is left out of both
    assert rows["spread"].found.difference == pytest.approx(b[whole].std() - a[whole].std())
    shares = (one[whole] / one[whole].max() for one in (a, b))
    assert rows["share"].found == paired.numbers(*shares, -math.inf, math.inf)
    assert [row.p_holm for row in rows.values()] == paired.holm([row.found.p for row in rows.values()])
    assert {row.better for row in rows.values()} == {"higher", "lower"}


def test_which_is_better_depends_on_the_measure(sides):
    for better, winner in (("higher", 1), ("lower", 2)):
        one = owned("errors", Measure(name="errors", better=better))
        write(sides[0].folder, one, [1.0] * 40)
        write(sides[1].folder, one, [0.0] * 40)
        [row] = compare([one], *sides).rows
        assert row.winner == winner


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdicts": [1.0] * 5}, "one run has 4 items, the other 5; give both the same `--items`"),
        ({"prompts": ["p0", "p1", "other", "p3"]}, "item 2 is 'p2' in one run and 'other' in the other"),
        ({"records": "s"}, "its records differ between the runs, though not its prompts; evaluate `count`"),
        ({"measures": {"accuracy": "lower"}}, "its measures differ between the runs: {'accuracy': 'higher'} and"),
        ({"plugin": "other"}, "its plugins differ between the runs: counter and other"),
    ],
)  # fmt: skip
def test_items_that_are_not_the_same_are_not_compared(sides, change, message):
    one, other = owned(), owned("other")
    for side in sides:
        write(side.folder, one, [1.0, 0.0, 1.0, 0.0])
        write(side.folder, other, [1.0, 0.0, 1.0, 0.0])
    write(sides[1].folder, one, **{"verdicts": [1.0, 0.0, 1.0, 0.0], **change})
    comparison = compare([one, other], *sides)
    assert [row.task for row in comparison.rows] == ["other"]
    [problem] = comparison.problems
    assert problem.startswith(f"task `count` is not compared: {message}")
    (sides[1].folder / "count.jsonl").unlink()
    comparison = compare([one], *sides)
    assert not comparison.rows
    assert comparison.problems[0].startswith("task `count` is not compared: ")
    assert comparison.problems[0].endswith("count.jsonl: no such file; give `mio evaluate` again")


def test_what_else_is_not_the_same_is_said(sides):
    one, other = owned(), owned("more")
    for task in (one, other):
        write(sides[0].folder, task, [1.0, 0.0])
        changed = {"precision": "bfloat16", "decoding": {"temperature": 0.5, "by": {}}, "weights": {"model": "2"}}
        write(sides[1].folder, task, [1.0, 0.0], **changed)
    comparison = compare([one, other], *sides)
    assert list(comparison.lines()) == [
        "not the same in all tasks: precision: float32 and bfloat16",
        "not the same in all tasks: decoding.temperature: 0.0 and 0.5",
    ]
    write(sides[1].folder, one, [1.0, 0.0])
    assert list(compare([one], *sides).lines()) == ["the weights of both runs are the same"]


def test_it_is_kept_beside_the_second_run(sides):
    one = owned("counter/far")
    write(sides[0].folder, one, [1.0, 0.0, 1.0])
    write(sides[1].folder, one, [1.0, 1.0, 1.0])
    comparison = compare([one], *sides)
    comparison.save()
    kept = json.loads((sides[1].folder / "compared/first.json").read_text())
    assert kept == json.loads(json.dumps(comparison.to_json()))
    assert kept["first"] == str(sides[0].folder.parent)
    figures = kept["tasks"]["counter/far"]["accuracy"]
    assert figures.keys() == {"n", "first", "second", "difference", "interval", "p", "p_holm", "differ", "better"}
    assert (figures["first"], figures["second"], figures["differ"]) == (0.666667, 1.0, 1)
    [line] = (sides[1].folder / "compared/first/counter/far.jsonl").read_text().splitlines()
    assert json.loads(line)["item"] == 1
