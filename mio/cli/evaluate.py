"""`mio evaluate`: held-out figures of a trained model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mio.cli.options import (
    Average,
    Device,
    Plugin,
    Precision,
    RunFolder,
    device_and_precision,
    open_run,
    refuse_no_run,
    writable_file,
)

if TYPE_CHECKING:
    from mio.core.runs.run import Run


def evaluate(
    run: RunFolder,
    tasks: Annotated[list[str], typer.Argument(metavar="[TASK]...", help="Tasks; default: the recipe's.")] = [],
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here.")] = None,
    items: Annotated[int, typer.Option(min=0, max=10_000_000, help="Held-out items per task; 0: the recipe's.")] = 0,
    devices: Annotated[int, typer.Option(min=1, max=1024, help="Processes that share the items, one device each.")] = 1,
    average: Average = False,
    device: Device = "auto",
    precision: Precision = "recipe",
    plugin: Plugin = [],
) -> None:
    """Measure a trained model on held-out data, task by task.

    mio evaluate runs/stage4 caption draw --items 500 --devices 8

    torchrun --nproc-per-node 8 -m mio evaluate runs/stage4
    """
    from mio.core.distributed.launch import follow_launcher
    from mio.core.distributed.ranks import launched

    follow_launcher()
    if devices > 1 and not launched():
        refuse_no_run(run)
        writable_file("--json", json_file)
        from mio.core.distributed.launch import launch

        options = ["--items", str(items), "--device", device, "--precision", precision]
        options += ["--json", str(json_file)] if json_file else []
        options += ["--average"] if average else []
        options += [word for name in plugin for word in ("--plugin", name)]
        command = [sys.executable, "-m", "mio", "evaluate", *options, "--", str(run), *tasks]
        raise typer.Exit(launch(command, devices, restarts=0, advice="give the same command again"))

    from mio.core.distributed.ranks import Ranks

    ranks = Ranks.join()

    def opened() -> tuple[Run, str, str]:
        writable_file("--json", json_file)
        return open_run(run, plugin, ranks.first, average or None), *device_and_precision(device, precision)

    trained, kind, dtype = ranks.all_or_none(opened)

    import torch

    from mio.core.evaluation.evaluation import Options
    from mio.core.evaluation.evaluation import evaluate as measure
    from mio.core.evaluation.table import results_table
    from mio.core.files import naming, write_json
    from mio.core.generation.model import Model
    from mio.core.terminal import console

    if kind == "cpu" and ranks.size > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // ranks.local_size))
    place = torch.device(kind, ranks.local_rank) if kind == "cuda" else torch.device(kind)
    status = console(stderr=True)
    with ranks.process_group("evaluate", kind):
        model = Model.of(trained, place, dtype, ranks)
        options = Options(tasks=tasks, items=items)
        report = measure(model, options, lambda line: status.print(line, highlight=False))
        ranks.barrier()
    if not ranks.first:
        return
    console().print(results_table(report))
    if json_file is None:
        return
    if json_file.exists() and not json_file.is_file():  # as /dev/stdout
        with naming(json_file), json_file.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"tasks": report}, indent=1) + "\n")
    else:
        write_json(json_file.resolve(), {"tasks": report})
