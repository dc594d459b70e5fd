"""Figures of tasks with their intervals and ceilings, as tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mio.report.reading import ReportedRun, mapping, number

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
        bounds = intervals.get(measure)
        low, high = bounds if isinstance(bounds, Sequence) and len(bounds) == 2 else (None, None)

        def of(key: str, own: bool = own, measure: str = measure) -> float | None:
            value = number(report.get(f"{key}/{measure}"))
            return number(report.get(key)) if value is None and own else value

        yield Figure(
            task=name,
            measure=measure,
            own=own,
            value=number(report[measure]),
            low=number(low),
            high=number(high),
            ceiling=of("ceiling"),
            judge=of("judge"),
            items=int(number(report.get("n")) or 0),
            failed=int(number(report.get("failed")) or 0),
            copied=number(report.get("copied")) if own else None,
            seconds=number(report.get("seconds")) if own else None,
        )


def failures(run: ReportedRun) -> list[str]:
    """Why items could not be asked, decoded or judged, and figures that are missing."""
    reports = (mapping(report) for report in mapping(run.summary.get("tasks")).values())
    lines = (report.get("failures") for report in reports)
    return [str(line) for listed in lines if isinstance(listed, list) for line in listed]


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
