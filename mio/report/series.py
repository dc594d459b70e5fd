"""Figures over steps as the page's charts take them: few enough to draw, with their extremes.

The page holds points that were logged and no others: where there are too many, each bucket of neighbouring points keeps
its least and its largest one, so that no spike is hidden (as M4 does: Jugel et al. 2014, VLDB 7(10), section 4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mio.report.reading import ReportedRun

MOST_POINTS = 600
"""Of one figure of one run."""
_DIGITS = 6
"""Significant digits of a figure."""

Point = tuple[int, float]


def table_of(run: ReportedRun, most: int = MOST_POINTS) -> list[dict[str, Any]]:
    """Tables of a run for `static/page.js`: `steps`, `tokens` until then (empty where nobody wrote them down) and
    `columns`, by the name of the figure, which share these steps. A figure that is not finite is null, and so is one
    that a step does not have; `notFinite` counts the former by name."""
    points: dict[str, list[Point]] = {}
    for step in sorted(run.metrics):
        for name, value in run.metrics[step].items():
            points.setdefault(name, []).append((step, value))
    tables: dict[tuple[int, ...], dict[str, Any]] = {}
    for name, all_of_it in points.items():
        kept = thinned(all_of_it, most)
        steps = tuple(step for step, _ in kept)
        table = tables.setdefault(
            steps, {"steps": list(steps), "tokens": _tokens(run, steps), "columns": {}, "notFinite": {}}
        )
        table["columns"][name] = [rounded(value) for _, value in kept]
        if lost := sum(not math.isfinite(value) for _, value in all_of_it):
            table["notFinite"][name] = lost
    return list(tables.values())


def thinned(points: Sequence[Point], most: int) -> Sequence[Point]:
    """At most `most` of the points, in order, the first and the last among them. Points that are not finite go before
    the least and the largest of their bucket."""
    if len(points) <= most:
        return points
    inner, buckets = points[1:-1], max(1, (most - 2) // 2)
    kept = [points[0]]
    for bucket in range(buckets):
        part = inner[len(inner) * bucket // buckets : len(inner) * (bucket + 1) // buckets]
        if part:
            low, high = min(part, key=_least), max(part, key=_largest)
            kept += sorted({low, high}, key=lambda point: point[0])
    return [*kept, points[-1]]


def _least(point: Point) -> float:
    return point[1] if math.isfinite(point[1]) else -math.inf


def _largest(point: Point) -> float:
    return point[1] if math.isfinite(point[1]) else math.inf


def rounded(value: float) -> float | None:
    """A figure to as many digits as a page needs; None for one that JSON cannot hold."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def _tokens(run: ReportedRun, steps: Sequence[int]) -> list[int]:
    tokens = [run.tokens_at(step) for step in steps]
    return [round(value) for value in tokens if value is not None] if None not in tokens else []
