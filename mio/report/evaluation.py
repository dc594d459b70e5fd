"""Figures of tasks with their intervals and ceilings, as tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mio.core.errors import MioError
from mio.core.files import read_json
from mio.core.recipe.places import EVALUATION
from mio.report.reading import ReportedRun, json_lines, listed, mapping, number, numbers_in
from mio.report.samples import Part, text_parts

COMPARED = "compared"
"""Folder of comparisons in a run's `EVALUATION`."""
_WORST = 5
"""Items of a task that are shown."""
_MOST_LINES = 200_000
"""Items of a task that are looked at."""
_LONGEST = 400
"""Characters of an answer."""

_OTHER = ("n", "intervals", "failed", "ceiling", "judge", "copied", "seconds", "failures")
"""Keys of a task's report that are no measures."""
_PARTS = ("ceiling/", "judge/")


@dataclass(frozen=True)
class Figure:
    """One measure of one task."""

    task: str
    measure: str
    """Empty for a further row of the same task without a name."""
    own: bool
    """Whether it is the task's own figure, its first measure."""
    value: float | None
    low: float | None = None
    high: float | None = None
    """Its 95 % interval."""
    ceiling: float | None = None
    judge: float | None = None
    items: int = 0
    failed: int = 0
    copied: float | None = None
    seconds: float | None = None

    @property
    def drawn(self) -> bool:
        """Whether it goes from 0 to 1, as a bar does."""
        values = (self.value, self.low, self.high, self.ceiling)
        return self.value is not None and all(value is None or 0 <= value <= 1 for value in values)

    @property
    def of_ceiling(self) -> float | None:
        """The figure as a share of its ceiling, which says little of an error."""
        if self.value is None or not self.ceiling or not self.drawn:
            return None
        return self.value / self.ceiling


def figures(tasks: Mapping[str, Any]) -> list[Figure]:
    """Of the report of an evaluation, `tasks` of `summary.json`; its own measure of each task comes first."""
    return [figure for name, report in tasks.items() for figure in _of_task(str(name), mapping(report))]


def _of_task(name: str, report: Mapping[str, Any]) -> Iterator[Figure]:
    intervals = mapping(report.get("intervals"))
    measures = [key for key in report if key not in _OTHER and not key.startswith(_PARTS)]
    for place, measure in enumerate(measures):
        own = place == 0
        low, high = _bounds(intervals.get(measure))

        def of(key: str, own: bool = own, measure: str = measure) -> float | None:
            value = number(report.get(f"{key}/{measure}"))
            return number(report.get(key)) if value is None and own else value

        yield Figure(
            task=name,
            measure=measure,
            own=own,
            value=number(report[measure]),
            low=low,
            high=high,
            ceiling=of("ceiling"),
            judge=of("judge"),
            items=int(number(report.get("n")) or 0),
            failed=int(number(report.get("failed")) or 0),
            copied=number(report.get("copied")) if own else None,
            seconds=number(report.get("seconds")) if own else None,
        )


def task_reports(run: ReportedRun) -> dict[str, Any]:
    """What the evaluation at the end of the stage says of each task, and in its place what `mio evaluate` has measured
    since."""
    reports = dict(mapping(run.summary.get("tasks")))
    for path in _item_files(run):
        first = next(json_lines(path), {})
        if isinstance(name := first.get("task"), str) and (found := mapping(first.get("figures"))):
            reports[name] = found
    return reports


def _item_files(run: ReportedRun) -> list[Path]:
    """`TASK.jsonl` of finished evaluations; names of tasks may have slashes."""
    folder = run.folder / EVALUATION
    files = sorted(folder.rglob("*.jsonl"))
    return [
        path for path in files if COMPARED not in path.relative_to(folder).parts and ".partial" not in path.suffixes
    ]


@dataclass(frozen=True)
class Worst:
    """An item of a task that the judge did not find right."""

    item: int
    prompt: Sequence[Part]
    output: str
    verdict: str


def worst_items(run: ReportedRun) -> dict[str, list[Worst]]:
    """Of each task whose items are kept, the worst ones by its own measure, or those that failed."""
    found = {}
    for path in _item_files(run):
        first, *lines = islice(json_lines(path), _MOST_LINES)
        measures = mapping(first.get("measures"))
        measure = next(iter(measures), "")
        lower = measures.get(measure) == "lower"
        graded = [(_badness(mapping(line.get("verdicts")).get(measure), lower), line) for line in lines]
        wrong = sorted(
            (one for one in graded if one[0] > 0), key=lambda one: (-one[0], number(one[1].get("item")) or 0)
        )
        if wrong and isinstance(first.get("task"), str):
            found[first["task"]] = [_worst(line, measure) for _, line in wrong[:_WORST]]
    return found


def _badness(verdict: Any, lower: bool) -> float:
    """0 for what cannot be better; items without a verdict are the worst ones."""
    if isinstance(verdict, list) and len(verdict) == 2:  # a ratio's two sums
        above, below = (number(one) for one in verdict)
        verdict = above / below if above is not None and below else None
    value = float(verdict) if isinstance(verdict, bool) else number(verdict)
    if value is None:
        return math.inf
    return max(0.0, value if lower else 1 - value)


def _worst(line: Mapping[str, Any], measure: str) -> Worst:
    failure, verdict = line.get("failure"), mapping(line.get("verdicts")).get(measure)
    said = "".join(_told(mapping(part)) for part in listed(line.get("output")))
    told = str(failure) if failure else json.dumps(verdict)
    prompt = line.get("prompt")
    parts = text_parts(prompt if isinstance(prompt, str) else "")
    return Worst(int(number(line.get("item")) or 0), list(parts), said, told)


def _told(part: Mapping[str, Any]) -> str:
    if isinstance(text := part.get("text"), str):
        return text[:_LONGEST]
    return f"[{part.get('name') or part.get('type') or '?'}]"


def compared(first: ReportedRun, second: ReportedRun) -> list[Pair]:
    """What `mio evaluate FIRST SECOND` found of each measure."""
    path = second.folder / EVALUATION / COMPARED / f"{first.folder.resolve().name}.json"
    try:
        content = read_json(path, "")
    except MioError:
        return []
    pairs = []
    for task, measures in mapping(content.get("tasks")).items():
        for measure, entry in mapping(measures).items():
            row = mapping(entry)
            low, high = _bounds(row.get("interval"))
            figures = numbers_in(row, "first", "second", "difference", "p", "p_holm", "n", "differ")
            pairs.append(Pair(task=str(task), measure=str(measure), low=low, high=high, **figures))
    return pairs


@dataclass(frozen=True)
class Pair:
    """One measure of two runs, compared item by item."""

    task: str
    measure: str
    first: float | None
    second: float | None
    difference: float | None
    p: float | None
    p_holm: float | None
    """As it counts among all of the comparison."""
    n: float | None
    """Items."""
    differ: float | None
    """Items that the judge says something else of."""
    low: float | None
    high: float | None
    """The difference's 95 % interval."""


def failures(run: ReportedRun) -> list[str]:
    """Why items could not be asked, decoded or judged, and figures that are missing."""
    reports = (mapping(report) for report in task_reports(run).values())
    lines = (report.get("failures") for report in reports)
    return [str(line) for listed in lines if isinstance(listed, list) for line in listed]


def _bounds(value: Any) -> tuple[float | None, float | None]:
    """Both ends of an interval, or neither."""
    bounds = [number(one) for one in listed(value)]
    return (bounds[0], bounds[1]) if len(bounds) == 2 and None not in bounds else (None, None)


def scale_from(found: Sequence[Figure]) -> float:
    """Where the axis of the figures that are drawn begins: 0, or a tenth from which on all of them are."""
    values = [
        value
        for figure in found
        if figure.drawn
        for value in (figure.value, figure.low, figure.ceiling)
        if value is not None
    ]
    return max(0, math.floor(10 * min(values, default=0) - 0.2)) / 10


def mean_of_own(found: Sequence[Figure]) -> float | None:
    """Mean of the tasks' own figures where all of them go from 0 to 1."""
    own = [figure for figure in found if figure.own]
    values = [figure.value for figure in own if figure.drawn and figure.value is not None]
    return sum(values) / len(values) if own and len(values) == len(own) else None
