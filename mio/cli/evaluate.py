"""`mio evaluate`: held-out figures of trained models."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mio.cli.options import (
    Average,
    Device,
    Plugin,
    Precision,
    device_and_precision,
    open_run,
    refuse_no_run,
    writable_file,
    writable_folder,
)

if TYPE_CHECKING:
    from mio.core.distributed.ranks import Ranks
    from mio.core.evaluation.evaluation import Report
    from mio.core.evaluation.overrides import Said
    from mio.core.runs.run import Run


def evaluate(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... [TASK...] [KEY=VALUE...]",
            help="Run folders, as runs/stage4; tasks, by default the recipe's; values for single keys of the recipe.",
            show_default=False,
        ),
    ],
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here.")] = None,
    items: Annotated[int, typer.Option(min=0, max=10_000_000, help="Held-out items per task; 0: the recipe's.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for items and samples, in place of the run's.", show_default=False),
    ] = None,
    devices: Annotated[
        int,
        typer.Option(
            min=0, max=1024, help="Devices, or cores, that share the items; 0: all GPUs, or as many cores as pay off."
        ),
    ] = 0,
    average: Average = False,
    device: Device = "auto",
    precision: Precision = "recipe",
    plugin: Plugin = [],
) -> None:
    """Measure trained models on held-out data, task by task; several of them are compared item by item.

    mio evaluate runs/stage4 caption draw --items 500

    mio evaluate runs/stage3 runs/stage4 caption

    mio evaluate runs/stage4 coco_captions plugins.benchmarks.coco=/data/coco

    An evaluation that was ended goes on when the same command is given again.

    torchrun --nproc-per-node 8 -m mio evaluate runs/stage4
    """
    from mio.core.distributed.launch import follow_launcher, launch
    from mio.core.distributed.ranks import Ranks, launched

    follow_launcher()
    asked = _Asked.of(arguments)
    writable_file("--json", json_file)
    if out is not None:
        writable_folder("--out", out)
    kind, dtype = device_and_precision(device, precision)
    if kind != "cpu" and not launched() and (processes := devices or _gpus(kind)) > 1:
        command = [sys.executable, "-m", "mio", *sys.argv[1:]]
        raise typer.Exit(launch(command, processes, restarts=0, advice="give the same command again to go on"))

    ranks = Ranks.join() if launched() else Ranks()
    reports: dict[str, Report] = {}
    for folder in asked.runs:
        place = (out / folder.resolve().name if len(asked.runs) > 1 else out) if out is not None else None
        measured = _Measured(folder, asked, items, place, devices, average, kind, dtype, plugin)
        reports[str(folder)] = measured.report(ranks)
    if ranks.first:
        _print(reports)
        _write(json_file, reports)


@dataclass(frozen=True)
class _Asked:
    """What the arguments are."""

    runs: Sequence[Path]
    tasks: Sequence[str]
    overrides: Sequence[str]

    @classmethod
    def of(cls, arguments: Sequence[str]) -> _Asked:
        """Leading run folders, tasks, and `key=value` anywhere. Raises `UserError` where there is no run."""
        from mio.core.recipe.places import RECIPE, is_file, run_of_checkpoint

        def is_run(name: str) -> bool:
            return is_file(Path(name) / RECIPE) or run_of_checkpoint(Path(name)) is not None

        overrides = [one for one in arguments if "=" in one and not is_run(one)]
        names = [one for one in arguments if one not in overrides]
        if not names:
            raise typer.BadParameter("give a run folder before key=value")
        refuse_no_run(Path(names[0]))
        count = next((number for number, name in enumerate(names) if not is_run(name)), len(names))
        for name in names[count:]:
            if Path(name).parent != Path() and (is_run(name) or Path(name).parent.resolve() in _parents(names[:count])):
                refuse_no_run(Path(name))
                raise typer.BadParameter(f"{name}: run folders come before tasks")
        return cls([Path(name) for name in names[:count]], names[count:], overrides)


def _parents(names: Sequence[str]) -> set[Path]:
    return {Path(name).parent.resolve() for name in names}


@dataclass(frozen=True)
class _Measured:
    """One of the runs."""

    folder: Path
    asked: _Asked
    items: int
    out: Path | None
    devices: int
    average: bool
    kind: str
    dtype: str
    plugin: Sequence[str]

    def report(self, ranks: Ranks) -> Report:
        """Its figures, on the first rank."""

        def opened() -> tuple[Run, Said]:
            from mio.core.evaluation.overrides import overridden

            return overridden(
                open_run(self.folder, self.plugin, ranks.first, self.average or None), self.asked.overrides
            )

        run, said = ranks.all_or_none(opened)

        import torch

        from mio.core.evaluation.evaluation import Options
        from mio.core.evaluation.evaluation import evaluate as measure
        from mio.core.generation.model import Model
        from mio.core.terminal import console

        if self.kind == "cpu" and ranks.size > 1:
            torch.set_num_threads(max(1, torch.get_num_threads() // ranks.local_size))
        place = torch.device(self.kind, ranks.local_rank) if self.kind == "cuda" else torch.device(self.kind)
        status = console(stderr=True)
        several = len(self.asked.runs) > 1
        if several and ranks.first:
            status.print(f"{self.folder}:", highlight=False)
        options = Options(
            tasks=self.asked.tasks,
            items=self.items,
            processes=self.devices if self.kind == "cpu" else 1,
            said=said,
            out=self.out,
            finished=several,
        )
        with ranks.process_group(f"evaluate {self.folder}", self.kind):
            model = Model.of(run, place, self.dtype, ranks)
            report = measure(model, options, lambda line: status.print(line, highlight=False))
            ranks.barrier()
        return report


def _gpus(kind: str) -> int:
    import torch

    return torch.cuda.device_count() if kind == "cuda" else 1


def _print(reports: dict[str, Report]) -> None:
    from mio.core.evaluation.table import notes, results_table
    from mio.core.terminal import console

    for folder, report in reports.items():
        if len(reports) > 1:
            console().print(folder, highlight=False)
        console().print(results_table(report))
        for note in notes(report):
            console().print(note, highlight=False)


def _write(json_file: Path | None, reports: dict[str, Report]) -> None:
    from mio.core.files import naming, write_json

    if json_file is None:
        return
    [*several] = ({"run": folder, "tasks": report} for folder, report in reports.items())
    content: dict[str, Any] = {"tasks": several[0]["tasks"]} if len(several) == 1 else {"runs": several}
    if json_file.exists() and not json_file.is_file():  # as /dev/stdout
        with naming(json_file), json_file.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1) + "\n")
    else:
        write_json(json_file.resolve(), content)
