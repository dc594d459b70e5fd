"""`mio fit`: trains."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from mio.cli.options import Plugin, Recipes, check_stages, manager, split, writable_folder
from mio.core.errors import UserError
from mio.core.terminal import plain


def fit(recipes: Recipes, plugin: Plugin = []) -> None:
    """Train a recipe, and first the earlier stages of its chain that are missing. Continues an interrupted run.

    mio fit recipes/stage4.yaml

    mio fit recipes/stage4.yaml train.steps=200 runtime.runs=short

    torchrun --nnodes 2 --nproc-per-node 8 ... -m mio fit recipes/stage4.yaml
    """
    from mio.core.distributed.launch import follow_launcher
    from mio.core.distributed.ranks import launched

    follow_launcher()
    names, overrides = split(recipes)
    plugins = manager(plugin)
    stages = None
    if not launched():  # else the launcher decides about the devices
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
            command = [sys.executable, "-m", "mio", "fit", *recipes, *options]
            raise typer.Exit(launch(command, runtime.devices, runtime.restarts))

    from mio.core.stages.fit import fit_chain

    fit_chain(names, overrides, plugins, stages=stages, finished=_report)


def _report(folder: Path) -> None:
    """Writes the report of a stage that has been trained. What is wrong with it is no failure of the training."""
    try:
        from mio.report import write_report

        print(f"report: {write_report([folder]).path}", flush=True)
    except Exception as error:
        print(plain(f"no report was written: {type(error).__name__}: {' '.join(str(error).split())}"), flush=True)
