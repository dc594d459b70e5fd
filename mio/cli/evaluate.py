"""`mio evaluate`: held-out figures of a trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mio.cli.options import Average, Plugin, RunFolder, open_run, writable_file


def evaluate(
    run: RunFolder,
    tasks: Annotated[list[str], typer.Argument(metavar="[TASK]...", help="Tasks; default: the recipe's.")] = [],
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here.")] = None,
    items: Annotated[int, typer.Option(min=0, max=10_000_000, help="Held-out items per task; 0: the recipe's.")] = 0,
    average: Average = False,
    plugin: Plugin = [],
) -> None:
    """Measure a trained model on held-out data, task by task."""
    writable_file("--json", json_file)
    trained = open_run(run, plugin, average or None)

    from mio.core.files import naming, write_json
    from mio.core.generation.evaluation import evaluate as measure
    from mio.core.generation.evaluation import results_table
    from mio.core.terminal import console

    status = console(stderr=True)
    report = measure(trained, tasks, items, progress=lambda line: status.print(line, highlight=False))
    console().print(results_table(report))
    if json_file is None:
        return
    if json_file.exists() and not json_file.is_file():  # as /dev/stdout
        with naming(json_file), json_file.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"tasks": report}, indent=1) + "\n")
    else:
        write_json(json_file.resolve(), {"tasks": report})
