"""`mio evaluate`: held-out figures of a trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mio.cli.options import Plugin, RunFolder, manager


def evaluate(
    run: RunFolder,
    tasks: Annotated[list[str], typer.Argument(metavar="[TASK]...", help="Tasks; default: the recipe's.")] = [],
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here.")] = None,
    items: Annotated[int, typer.Option(min=0, help="Held-out items per task; 0: the recipe's.")] = 0,
    plugin: Plugin = [],
) -> None:
    """Measure a trained model on held-out data, task by task."""
    from rich.console import Console
    from rich.table import Table

    from mio.core.evaluation import evaluate as measure
    from mio.core.run import Run

    status = Console(stderr=True)
    report = measure(
        Run.open(run, manager(plugin)), tasks, items, progress=lambda line: status.print(line, highlight=False)
    )
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    columns = list(dict.fromkeys(name for figures in report.values() for name in figures))
    table = Table("task", *columns, box=None, pad_edge=False)
    for task, figures in report.items():
        table.add_row(task, *(f"{figures[name]:g}" if name in figures else "" for name in columns))
    Console().print(table)
