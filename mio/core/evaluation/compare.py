"""Two runs compared at the same items: differences of figures, intervals, paired tests, and where they disagree."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from rich.table import Table

from mio.core.contract.tasks import HIGHER, Measure
from mio.core.contract.values import Record
from mio.core.errors import DataError
from mio.core.evaluation import paired
from mio.core.evaluation.figures import Overall, counted, is_ratio
from mio.core.evaluation.items import Items, Line, read_items
from mio.core.evaluation.judging import OwnedTask
from mio.core.evaluation.paired import Difference
from mio.core.evaluation.statistics import replicates
from mio.core.files import write_bytes, write_json

COMPARED = "compared"
"""Folder of comparisons, in that of an evaluation."""
ALPHA = 0.05
"""Chance of any false alarm that is accepted."""
_SAME = ("task", "plugin", "n", "records", "measures")
"""Of a description, what has to be the same."""
_UNTOLD = (*_SAME, "weights", "template")


class Side(NamedTuple):
    """A run that is compared."""

    name: str
    folder: Path
    """Of its evaluation."""
    items: Mapping[str, Items]
    """By task. They may be replaced in the folder since, as by those of a checkpoint of the same run."""
    problems: Mapping[str, str]
    """By task, why there are none."""

    @classmethod
    def read(cls, name: str, folder: Path, tasks: Iterable[str]) -> Side:
        """What is finished of these tasks."""
        items, problems = {}, {}
        for task in tasks:
            try:
                items[task] = read_items(folder / f"{task}.jsonl")
            except DataError as error:
                problems[task] = str(error)
            except OSError as error:
                problems[task] = f"{error.filename}: {error.strerror}"
        return cls(name, folder, items, problems)

    def of(self, task: str) -> Items:
        """Raises `DataError` where there are none."""
        if task not in self.items:
            raise DataError(self.problems.get(task, f"{self.name} has no items of it"))
        return self.items[task]


@dataclass(frozen=True)
class Row:
    """One measure of a task."""

    task: str
    measure: str
    better: str
    n: int
    """Items that count in both."""
    first: float
    second: float
    found: Difference
    """Of the second run from the first."""
    differ: int
    """Items that the judge says something else of."""
    p_holm: float = 1.0
    """p as it counts among all of the comparison."""

    def to_json(self) -> dict[str, Any]:
        interval = self.found.interval
        return {
            "n": self.n,
            "first": _rounded(self.first),
            "second": _rounded(self.second),
            "difference": _rounded(self.found.difference),
            "interval": None if interval is None else [_rounded(bound) for bound in interval],
            "p": float(f"{self.found.p:.4g}"),
            "p_holm": float(f"{self.p_holm:.4g}"),
            "differ": self.differ,
            "better": self.better,
        }

    @property
    def winner(self) -> int:
        """Which run is better beyond doubt (at 5 % among all tests): 1 or 2; 0 for none."""
        if self.p_holm > ALPHA or not self.found.difference:
            return 0
        return 2 if (self.found.difference > 0) == (self.better == HIGHER) else 1


@dataclass
class Comparison:
    """Of a second run with a first one."""

    first: Side
    second: Side
    rows: list[Row] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    """By task, what else is not the same, such as decoding and precision."""
    same: bool = False
    """Whether the weights of both runs are the same."""
    problems: list[str] = field(default_factory=list)
    """Why tasks are not compared."""
    apart: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By task the items that they disagree on, with their answers."""

    def to_json(self) -> dict[str, Any]:
        """`tasks`: by task and measure, what `Row` has; `notes` and `problems`."""
        tasks: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            tasks.setdefault(row.task, {})[row.measure] = row.to_json()
        sides = {"first": str(self.first.folder.parent), "second": str(self.second.folder.parent)}
        return {**sides, "tasks": tasks, "notes": self.notes, "problems": self.problems}

    @property
    def path(self) -> Path:
        """Where it is kept: `compared/FIRST.json`, in the second run's evaluation."""
        return self.second.folder / COMPARED / f"{self.first.name}.json"

    def save(self) -> None:
        """Writes figures to `path`, and beside it what the runs disagree on, `compared/FIRST/TASK.jsonl`. Raises
        `OSError` where that cannot be done."""
        for task, lines in self.apart.items():
            file = self.path.with_suffix("") / f"{task}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            write_bytes(file, content.encode(errors="surrogatepass"))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.to_json())

    def table(self) -> Table:
        """To print, one row per measure."""
        table = Table("task", box=None, pad_edge=False)
        several = any(row.measure != "accuracy" for row in self.rows)
        names = [self.first.name, self.second.name]
        for column in (*(["measure"] if several else []), *names, "diff", "95 %", "p", "Holm", "differ", "better"):
            justify: Literal["left", "right"] = "left" if column in ("measure", "better") else "right"
            table.add_column(column, justify=justify, no_wrap=column not in ("measure", "better"))
        for row in self.rows:
            interval = row.found.interval
            cells = [row.measure] if several else []
            cells += [f"{row.first:.4g}", f"{row.second:.4g}", f"{row.found.difference:+.3f}"]
            cells += [f"{interval[0]:+.3f} {interval[1]:+.3f}" if interval else ""]
            cells += [_p(row.found.p), _p(row.p_holm), f"{row.differ}"]
            table.add_row(row.task, *cells, ("", *names)[row.winner])
        return table

    def lines(self) -> Iterator[str]:
        """What is to be said beside the table."""
        yield from self.problems
        told: dict[tuple[str, ...], list[str]] = {}
        for task, notes in self.notes.items():
            told.setdefault(tuple(notes), []).append(task)
        for several, tasks in told.items():
            every = "all tasks" if len(tasks) == len({row.task for row in self.rows}) else ", ".join(tasks)
            for note in several:
                yield f"not the same in {every}: {note}"
        if self.same:
            yield "the weights of both runs are the same"

    def shown(self, most: int) -> Iterator[str]:
        """The first items of each task that the runs disagree on, with what each said."""
        for task, lines in self.apart.items():
            for line in lines[:most]:
                yield f"{task}, item {line['item']}: {line['prompt']}"
                for name, said in ((self.first.name, line["first"]), (self.second.name, line["second"])):
                    yield f"  {name}: {_told(said)}"


def _told(said: Mapping[str, Any]) -> str:
    """What a run said of an item, on one line."""
    parts = said.get("output", ())
    output = " ".join(
        part["text"] if "text" in part else f"{{{part['type']}:{part.get('path') or part.get('name', '')}}}"
        for part in parts
    )
    verdicts = said.get("verdicts", {}).items()
    judged = ", ".join(f"{name} {value}" for name, value in verdicts if not isinstance(value, dict))
    return f"{output} [{said.get('failure') or judged}]"


def compare(tasks: Sequence[OwnedTask], first: Side, second: Side) -> Comparison:
    """Compares the items that two runs have of these tasks. A task whose items are not there, or not the same, is
    among the `problems`.

    Raises `PluginError` where a task's functions break the contract.
    """
    comparison = Comparison(first, second)
    for owned in tasks:
        name = owned.task.name
        try:
            ours, theirs = first.of(name), second.of(name)
            _check_same(name, ours, theirs)
            records = owned.records(len(ours.lines))
            rows = [row for one in owned.task.measures if (row := _row(owned, one, records, ours, theirs)) is not None]
        except DataError as error:
            comparison.problems.append(f"task `{name}` is not compared: {error}")
            continue
        comparison.rows += rows
        comparison.notes |= {name: notes} if (notes := _notes(ours, theirs)) else {}
        comparison.same = ours.description.get("weights") == theirs.description.get("weights")
        comparison.apart[name] = [
            {"item": a["item"], "prompt": a.get("prompt"), "first": _said(a), "second": _said(b)}
            for a, b in zip(ours.lines, theirs.lines, strict=True)
            if a.get("verdicts") != b.get("verdicts")
        ]
    adjusted = paired.holm([row.found.p for row in comparison.rows])
    comparison.rows = [replace(row, p_holm=p) for row, p in zip(comparison.rows, adjusted, strict=True)]
    return comparison


def _check_same(task: str, first: Items, second: Items) -> None:
    """Raises `DataError` unless both are of the same items, measured alike."""
    a, b = first.description, second.description
    if a["n"] != b["n"]:
        raise DataError(f"one run has {a['n']} items, the other {b['n']}; give both the same `--items`")
    for mine, theirs in zip(first.lines, second.lines, strict=True):
        if mine.get("prompt") != theirs.get("prompt"):
            prompts = (f"{str(line.get('prompt'))[:60]!r}" for line in (mine, theirs))
            raise DataError(f"item {mine['item']} is {' in one run and '.join(prompts)} in the other")
    for key, what in (("measures", "its measures"), ("plugin", "its plugins"), ("records", "its records")):
        if a.get(key) != b.get(key):
            told = f": {a.get(key)} and {b.get(key)}" if key != "records" else ", though not its prompts"
            raise DataError(f"{what} differ between the runs{told}; evaluate `{task}` of both again")


def _notes(first: Items, second: Items) -> list[str]:
    """What else is not the same."""
    a, b = (dict(_leaves(items.description)) for items in (first, second))
    return [f"{key}: {a.get(key)} and {b.get(key)}" for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]


def _leaves(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, one in value.items():
        if before or key not in _UNTOLD:
            if isinstance(one, Mapping):
                yield from _leaves(one, f"{before}{key}.")
            else:
                yield f"{before}{key}", one


def _said(line: Line) -> dict[str, Any]:
    """What one run says of an item."""
    return {key: line[key] for key in ("output", "verdicts", "failure") if key in line}


def _row(owned: OwnedTask, measure: Measure, records: Sequence[Record], first: Items, second: Items) -> Row | None:
    values = []
    for items in (first, second):
        said = [line.get("verdicts", {}).get(measure.name) for line in items.lines]
        values.append(counted(owned, measure, said, records))
    both = [item for item in values[0] if item in values[1]]
    if not both:
        return None
    ours, theirs = ({item: one[item] for item in both} for one in values)
    if measure.overall is not None:
        a, b, found = _overall(owned, measure, records, ours, theirs)
    elif is_ratio(owned, measure, [*ours.values(), *theirs.values()]):
        pairs, others = (np.array([*one.values()], np.float64) for one in (ours, theirs))
        if not (pairs[:, 1].sum() > 0 and others[:, 1].sum() > 0):
            return None
        a, b = (float(one[:, 0].sum() / one[:, 1].sum()) for one in (pairs, others))
        found = paired.ratios(pairs, others)
    else:
        a, b = (math.fsum(one.values()) / len(both) for one in (ours, theirs))
        numbers, others = (np.array([*one.values()], np.float64) for one in (ours, theirs))
        found = paired.numbers(numbers, others, measure.least, measure.most)
    differ = sum(ours[item] != theirs[item] for item in both)
    return Row(owned.task.name, measure.name, measure.better, len(both), a, b, found, differ)


def _overall(
    owned: OwnedTask, measure: Measure, records: Sequence[Record], first: Mapping[int, Any], second: Mapping[int, Any]
) -> tuple[float, float, Difference]:
    ours, theirs = (Overall(owned, measure, values, records) for values in (first, second))
    a, b = ours.figure(), theirs.figure()
    if isinstance(a, list) and isinstance(b, list):
        found = paired.numbers(np.array(a), np.array(b), -math.inf, math.inf)
        return float(np.mean(a)), float(np.mean(b)), found
    if isinstance(a, list) or isinstance(b, list):
        raise DataError(f"`{measure.name}` is one number of one run, and a number per item of the other")
    without = (replicates(len(first), side.without) for side in (ours, theirs))
    return a, b, paired.overall(a, b, next(without), next(without), math.inf)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
