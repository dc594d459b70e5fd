"""Figures of an evaluation as a table to print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from mio.core.evaluation.evaluation import Report

_ALSO = ("ceiling", "judge", "copied", "failed", "seconds")
"""What a report has of every task beside its measures."""


def results_table(report: Report) -> Table:
    """The figures as a table to print: a row per task, and one for each further measure of it."""
    rows = [row for task, figures in report.items() for row in _rows(task, figures)]
    shown = [name for name in _ALSO if any(name in row for row in rows)]
    table = Table(box=None, pad_edge=False)
    table.add_column("task", no_wrap=True)
    names = dict.fromkeys(row["measure"] for row in rows)
    same = len(names) == 1
    columns = [*([] if same else ["measure"]), "value", "interval", "n", *shown]
    for column in columns:
        title = {"value": next(iter(names)) if same else "value", "interval": "95 %"}.get(column, column)
        table.add_column(title, justify="left" if column == "measure" else "right", no_wrap=True)
    for row in rows:
        table.add_row(row["task"], *(row.get(column, "") for column in columns))
    return table


def _rows(task: str, figures: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Of a task, what each column has."""
    intervals = figures.get("intervals", {})
    known = {"n", *_ALSO, "searched"}
    measures = [
        name
        for name, value in figures.items()
        if isinstance(value, int | float) and name not in known and not name.startswith(("ceiling/", "judge/"))
    ]
    for place, name in enumerate(measures):
        row = {"task": "" if place else task, "measure": name, "value": f"{figures[name]:.3f}"}
        if name in intervals:
            low, high = intervals[name]
            row["interval"] = f"{low:.3f}-{high:.3f}"
        for also in ("ceiling", "judge"):
            if (value := figures.get(f"{also}/{name}" if place else also)) is not None:
                row[also] = f"{value:.3f}"
        if not place:
            row |= {also: f"{figures[also]:g}" for also in ("n", *_ALSO[2:]) if also in figures}
        yield row


def notes(report: Report) -> Iterator[str]:
    """What is to be known of the figures beside them."""
    searched = {tuple(figures["searched"]) for figures in report.values() if "searched" in figures}
    for some, every in searched:
        yield f"copied: looked for among {some:,} of {every:,} training records, the first of each source"
