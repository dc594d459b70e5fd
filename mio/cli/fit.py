"""`mio fit`: trains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mio.cli.options import Plugin, Recipes, check_stages, manager, split, writable_folder
from mio.cli.places import refuse_foreign_folders
from mio.core.errors import UserError
from mio.core.terminal import plain

Drift = Annotated[
    list[str],
    typer.Option(
        "--drift",
        metavar="versions|code|machine|shards",
        help="Train from a lock file in spite of what differs in one of these; the run keeps a note. Repeatable.",
        show_default=False,
    ),
]


def fit(recipes: Recipes, plugin: Plugin = [], drift: Drift = []) -> None:
    """Train a recipe, and first the earlier stages of its chain that are missing. Continues an interrupted run. Of a
    lock file, reproduce what it locks, or refuse with all that differs.

    mio fit recipes/stage4.yaml

    mio fit recipes/stage4.yaml train.steps=200 runtime.runs=short

    mio fit stage4.lock

    torchrun --nnodes 2 --nproc-per-node 8 ... -m mio fit recipes/stage4.yaml
    """
    from mio.core.distributed.launch import follow_launcher
    from mio.core.distributed.ranks import launched
    from mio.core.recipe.chain import links
    from mio.core.recipe.lock_file import LockFile, is_lock, locked_recipes
    from mio.core.recipe.places import locate

    follow_launcher()
    names, overrides = split(recipes)
    plugins = manager(plugin)
    stages = None
    refuse_foreign_folders(names, overrides, lambda: links(names, overrides, plugins)[-1].recipe.runtime)
    if not launched():  # else the launcher decides about the devices
        if is_lock(names[0]):  # which is compared first of all
            path = locate(names[0], plugins)
            runtime = locked_recipes(LockFile.read(path, plugins), path, overrides)[-1].runtime
        else:
            stages = check_stages(names, overrides, plugins)
            runtime = stages[-1].recipe.runtime
        writable_folder("runtime.runs", Path(runtime.runs))
        if runtime.nodes > 1:
            raise UserError(
                f"`runtime.nodes` is {runtime.nodes}: start this command on every node with a launcher, as in "
                f"`torchrun --nnodes {runtime.nodes} --nproc-per-node {runtime.devices} --rdzv-backend c10d "
                "--rdzv-endpoint HOST:PORT -m mio fit ...`, or with `srun`; or give `runtime.nodes=1`"
            )
        if runtime.devices > 1:
            from mio.core.distributed.launch import launch

            options = [word for name in plugin for word in ("--plugin", name)]
            options += [word for group in drift for word in ("--drift", group)]
            command = [sys.executable, "-m", "mio", "fit", *recipes, *options]
            raise typer.Exit(launch(command, runtime.devices, runtime.restarts))

    from mio.core.stages.fit import fit_chain

    fit_chain(names, overrides, plugins, stages=stages, finished=_report, drift=drift)


def _report(folder: Path) -> None:
    """Writes the report of a stage that has been trained. What is wrong with it is no failure of the training."""
    try:
        from mio.report import write_report

        print(f"report: {write_report([folder]).path}", flush=True)
    except Exception as error:
        print(plain(f"no report was written: {type(error).__name__}: {' '.join(str(error).split())}"), flush=True)
