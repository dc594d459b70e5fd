"""Figures of an evaluation as a table to print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from mio.core.evaluation.evaluation import Report


def results_table(report: Report) -> Table:
    """The figures as a table to print, one row per task."""
    rows = {task: _cells(figures) for task, figures in report.items()}
    columns = list(dict.fromkeys(name for cells in rows.values() for name in cells))
    table = Table("task", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    for task, cells in rows.items():
        table.add_row(task, *(cells.get(name, "") for name in columns))
    return table


def _cells(figures: Mapping[str, Any]) -> dict[str, str]:
    """What is shown of a task, by column; the interval of a figure stands behind it."""
    intervals = figures.get("intervals", {})
    cells = {name: f"{value:g}" for name, value in figures.items() if isinstance(value, int | float)}
    for name, (low, high) in intervals.items():
        cells[name] += f" ({low:.3f}-{high:.3f})"
    return cells
