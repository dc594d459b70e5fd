"""`mio evaluate`: held-out figures of trained models."""

from __future__ import annotations

import json
import os
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
    is_place,
    open_run,
    refuse_no_run,
    writable_file,
    writable_folder,
)
from mio.cli.places import run_place

if TYPE_CHECKING:
    from mio.core.distributed.ranks import Ranks
    from mio.core.evaluation.compare import Comparison, Side
    from mio.core.evaluation.evaluation import Report
    from mio.core.evaluation.judging import OwnedTask
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
    show: Annotated[
        int, typer.Option(min=0, max=10_000_000, help="Items of each task to print on which compared runs disagree.")
    ] = 0,
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
    how = _How(asked, items, devices, average, kind, dtype, plugin)
    names = _names(asked.runs)
    measured = [how.measured(folder, out, name, ranks) for folder, name in zip(asked.runs, names, strict=True)]
    if ranks.first:
        compared = _compared(measured)
        _print(measured, compared, show)
        _write(json_file, measured, compared)
        if nothing := next((one.problems for one in compared if not one.rows), []):
            from mio.core.errors import UserError

            raise UserError(nothing[0])


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

        overrides = [one for one in arguments if not is_place(one) and not is_run(one)]
        names = [_opened(one) for one in arguments if one not in overrides]
        if not names:
            raise typer.BadParameter("give a run folder before key=value")
        refuse_no_run(Path(names[0]))
        count = next((number for number, name in enumerate(names) if not is_run(name)), len(names))
        folders = {Path(name).resolve().parent for name in names[:count]}
        for name in names[count:]:
            if os.sep in name and (is_run(name) or Path(name).resolve().parent in folders):
                refuse_no_run(Path(name))
                raise typer.BadParameter(f"{name}: run folders come before tasks")
        return cls([Path(name) for name in names[:count]], names[count:], overrides)


def _opened(name: str) -> str:
    """The folder of what is a bundle or a pinned place; any other argument as it is."""
    place = run_place(name)
    return name if place == Path(name) else str(place)


@dataclass(frozen=True)
class _Measured:
    """One of the runs."""

    name: str
    """As it was given."""
    tasks: Sequence[OwnedTask]
    report: Report
    side: Side | None
    """Its items, of one of several; on the first rank."""


@dataclass(frozen=True)
class _How:
    """How runs are measured."""

    asked: _Asked
    items: int
    devices: int
    average: bool
    kind: str
    dtype: str
    plugin: Sequence[str]

    def measured(self, folder: Path, out: Path | None, name: str, ranks: Ranks) -> _Measured:
        """A run with its figures, which the first rank has. Of several, each has its own folder `name` in `out`."""

        def opened() -> tuple[Run, Said]:
            from mio.core.evaluation.overrides import overridden

            run = open_run(folder, self.plugin, ranks.first, self.average or None)
            return overridden(run, self.asked.overrides)

        run, said = ranks.all_or_none(opened)

        import torch

        from mio.core.evaluation.compare import Side
        from mio.core.evaluation.evaluation import Options, owned_tasks
        from mio.core.evaluation.evaluation import evaluate as measure
        from mio.core.generation.model import Model
        from mio.core.recipe.places import EVALUATION
        from mio.core.terminal import console

        if self.kind == "cpu" and ranks.size > 1:
            torch.set_num_threads(max(1, torch.get_num_threads() // ranks.local_size))
        place = torch.device(self.kind, ranks.local_rank) if self.kind == "cuda" else torch.device(self.kind)
        status = console(stderr=True)
        several = len(self.asked.runs) > 1
        if several and ranks.first:
            status.print(f"{folder}:", highlight=False)
        kept = out / name if several and out is not None else out
        options = Options(
            tasks=self.asked.tasks,
            items=self.items,
            processes=self.devices if self.kind == "cpu" else 1,
            said=said,
            out=kept,
            finished=several,
        )
        with ranks.process_group(f"evaluate {folder}", self.kind):
            model = Model.of(run, place, self.dtype, ranks)
            report = measure(model, options, lambda line: status.print(line, highlight=False))
            ranks.barrier()
        tasks = owned_tasks(model, list(report))
        side = None
        if several and ranks.first:  # before others take their place, as those of a checkpoint of the same run
            side = Side.read(str(folder), (kept or model.folder) / EVALUATION, report)
        return _Measured(str(folder), tasks, report, side)


def _gpus(kind: str) -> int:
    import torch

    return torch.cuda.device_count() if kind == "cuda" else 1


def _names(folders: Sequence[Path]) -> list[str]:
    """What runs are called beside each other: by their folders, or where two are called alike by their whole paths."""
    short = [folder.resolve().name for folder in folders]
    if len(set(short)) == len(short):
        return short
    return [str(folder).replace("/", "-").strip(".-") for folder in folders]


def _compared(measured: Sequence[_Measured]) -> list[Comparison]:
    """Each of the other runs with the first. What cannot be written is told."""
    sides = [one.side for one in measured if one.side is not None]
    if not sides:
        return []
    from mio.core.evaluation.compare import compare
    from mio.core.runs.lock import warn

    names = _names([Path(one.name) for one in measured])
    first, *others = (side._replace(name=name) for name, side in zip(names, sides, strict=True))
    compared = []
    for side in others:
        comparison = compare(measured[0].tasks, first, side)
        try:
            comparison.save()
        except OSError as error:
            warn(f"{error.filename or comparison.path}: {error.strerror or error}; the comparison is not kept")
        compared.append(comparison)
    return compared


def _print(measured: Sequence[_Measured], compared: Sequence[Comparison], show: int) -> None:
    from mio.core.evaluation.table import notes, results_table
    from mio.core.terminal import console, printable

    for one in measured:
        if len(measured) > 1:
            console().print(one.name, highlight=False)
        console().print(results_table(one.report))
        for note in notes(one.report):
            console().print(note, highlight=False)
    for comparison in compared:
        if not comparison.rows:
            continue
        console().print(comparison.table())
        for line in (*comparison.lines(), *comparison.shown(show)):
            console().print(printable(line), highlight=False)


def _write(json_file: Path | None, measured: Sequence[_Measured], compared: Sequence[Comparison]) -> None:
    from mio.core.files import naming, write_json

    if json_file is None:
        return
    content: dict[str, Any] = {"tasks": measured[0].report}
    if compared:
        runs = [{"run": one.name, "tasks": one.report} for one in measured]
        content = {"runs": runs, "compared": [comparison.to_json() for comparison in compared]}
    if json_file.exists() and not json_file.is_file():  # as /dev/stdout
        with naming(json_file), json_file.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1) + "\n")
    else:
        write_json(json_file.resolve(), content)
