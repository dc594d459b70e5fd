"""Several runs side by side: their figures with differences, recipes, samples, and comparisons item by item."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mio.core.recipe.resolved import diff
from mio.report.charts import HELD_OUT, TRAINING, Chart, Section
from mio.report.numbers import count, duration, fixed
from mio.report.reading import ReportedRun, mapping, number
from mio.report.samples import Part, Sample

if TYPE_CHECKING:
    from mio.report.page import Shown


ALONE = "Figures that only one of the runs has"


def split_by_label(parts: Sequence[Section], runs: Sequence[ReportedRun]) -> list[Section]:
    """A chart for each label, in which every run has its lines. What only one run has logged comes last."""
    logged = [{name for step in run.metrics.values() for name in step} for run in runs]
    shared, alone = [Section(part.title) for part in parts], Section(ALONE)
    for section, part in zip(shared, parts, strict=True):
        for chart in part.charts:
            for one in _labels(chart):
                having = sum(any(line.metric in names for line in one.lines) for names in logged)
                (section if having > 1 else alone).charts.append(one)
    return [section for section in (*shared, alone) if section.charts]


def _labels(chart: Chart) -> list[Chart]:
    if any(line.label in (TRAINING, HELD_OUT) for line in chart.lines):
        return [chart]
    labels = list(dict.fromkeys(line.label for line in chart.lines))
    return [
        replace(
            chart,
            title=chart.title if len(labels) == 1 else f"{chart.title}: {label}",
            lines=tuple(line for line in chart.lines if line.label == label),
            ordered=False,
        )
        for label in labels
    ]


@dataclass(frozen=True)
class Cell:
    """One run's figure, and how it differs from the first run's."""

    text: str
    interval: str = ""
    change: str = ""
    sense: str = ""
    """`better`, `worse`, or empty where neither can be said."""


@dataclass(frozen=True)
class Row:
    name: str
    cells: Sequence[Cell]
    detail: bool = False
    """Whether it is one of many parts of another row."""


def table(runs: Sequence[Shown]) -> list[Row]:
    """Figures that at least one of the runs has."""
    rows = []
    for key, name, form in (
        ("steps", "steps", lambda value: f"{value:,.0f}"),
        ("tokens", "tokens", count),
        ("parameters", "parameters", count),
        ("train_seconds", "training", duration),
        ("tokens_per_second", "tokens per second", lambda value: f"{value:,.0f}"),
    ):
        values = [number(shown.run.summary.get(key)) for shown in runs]
        rows.append(Row(name, [Cell("–" if value is None else form(value)) for value in values]))
    rows += _tasks(runs)
    for name, values in _validations(runs):
        row = _row(f"held-out {name}", values, 4, None if name.startswith("tasks/") else True)
        rows.append(replace(row, detail=name.count("/") > 1))
    return [row for row in rows if any(cell.text != "–" for cell in row.cells)]


def _validations(runs: Sequence[Shown]) -> list[tuple[str, list[float | None]]]:
    last = []
    for shown in runs:
        listed = mapping(mapping(shown.run.summary.get("validation")).get("figures"))
        values = {name: number(mapping(figure).get("last")) for name, figure in listed.items()}
        if not values:
            names = dict.fromkeys(name for step in shown.run.metrics.values() for name in step)
            found = {name: _last(shown.run, name) for name in names if name.startswith("validation/")}
            values = {name.removeprefix("validation/"): value for name, value in found.items() if name.count("/") < 4}
        last.append({name: value for name, value in values.items() if name != "seconds"})
    names = dict.fromkeys(name for values in last for name in values)
    return [(name, [values.get(name) for values in last]) for name in names]


def _last(run: ReportedRun, name: str) -> float | None:
    values = [run.metrics[step][name] for step in sorted(run.metrics) if name in run.metrics[step]]
    return values[-1] if values and math.isfinite(values[-1]) else None


def _row(name: str, values: Sequence[float | None], places: int, lower: bool | None) -> Row:
    cells, first = [], values[0]
    for place, value in enumerate(values):
        change = sense = ""
        if place and value is not None and first is not None:
            change = f"{value - first:+.{places}f}"
            if lower is not None and value != first:
                sense = "better" if (value < first) == lower else "worse"
        cells.append(Cell(fixed(value, places), change=change, sense=sense))
    return Row(name, cells)


def _tasks(runs: Sequence[Shown]) -> list[Row]:
    """Figures of tasks. Which direction is better, a figure does not say by itself."""
    by_run = [{(figure.task, figure.measure): figure for figure in shown.figures} for shown in runs]
    rows = []
    for key in dict.fromkeys(key for figures in by_run for key in figures):
        found = [figures.get(key) for figures in by_run]
        row = _row(f"{key[0]}: {key[1]}", [one.value if one else None for one in found], 3, None)
        cells = [
            replace(cell, interval=f"{fixed(one.low)} to {fixed(one.high)}") if one and one.low is not None else cell
            for cell, one in zip(row.cells, found, strict=True)
        ]
        rows.append(Row(row.name, cells))
    return rows


def recipe_differences(runs: Sequence[ReportedRun]) -> list[tuple[str, list[str]]]:
    """What each further run's recipe has otherwise than the first one's, in what is learnt."""
    return [(run.name, diff(runs[0].recipe, run.recipe)) for run in runs[1:]]


@dataclass(frozen=True)
class Beside:
    """Answers of several runs to one prompt."""

    prompt: Sequence[Part]
    expected: Sequence[Part]
    answers: Sequence[tuple[str, Sample | None]]


def side_by_side(runs: Sequence[Shown]) -> list[tuple[str, list[Beside]]]:
    """Samples of which several runs have the same prompt, by task or stream."""
    found: dict[str, dict[str, dict[str, Sample]]] = {}
    for shown in runs:
        for samples in (*shown.tasks, *shown.completed):
            prompts = found.setdefault(samples.where or samples.name, {})
            for sample in samples.items:
                prompts.setdefault(_key(sample.prompt), {}).setdefault(shown.run.name, sample)
    names = [shown.run.name for shown in runs]
    result = []
    for name, prompts in found.items():
        shared = [answers for answers in prompts.values() if len(answers) > 1]
        rows = []
        for answers in shared:
            any_of = next(iter(answers.values()))
            rows.append(Beside(any_of.prompt, any_of.expected, [(run, answers.get(run)) for run in names]))
        if rows:
            result.append((name, rows))
    return result


def _key(parts: Sequence[Part]) -> str:
    return "".join(f"{part.text}{part.named}{part.title}{part.media.uri if part.media else ''}" for part in parts)
