"""`mio export`: a model as transformers opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mio.cli.options import Average, Plugin, RunFolder, open_run, writable_folder


def export(
    run: RunFolder,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write.", show_default=False)],
    shard_size: Annotated[str, typer.Option(metavar="SIZE", help="Most bytes of one file of weights.")] = "5GB",
    dtype: Annotated[str, typer.Option(metavar="TYPE", help="keep, bf16, fp16 or fp32.")] = "keep",
    merge: Annotated[bool, typer.Option("--merge", help="Fold adapters in, instead of writing them beside.")] = False,
    license: Annotated[str, typer.Option(metavar="SPDX", help="Of the model; default: the recipe's.")] = "",
    average: Average = False,
    plugin: Plugin = [],
) -> None:
    """Write a trained model in the Hugging Face layout; `mio import DIR` restores the run.

    Adapters go into DIR/adapter in PEFT's layout, with `--merge` into the model.

    mio export runs/stage4 exported/stage4 --dtype bf16
    """
    trained = open_run(run, plugin, average=average)
    writable_folder("DIR", folder)

    from mio.core.exchange.writing import export_run

    exported = export_run(trained, folder, shard_size=shard_size, dtype=dtype, merge=merge, license=license)
    typer.echo(
        f"{exported.folder}: {exported.family}, {exported.parameters:,} parameters, {exported.size} ids, "
        f"{exported.bytes / 1e6:.1f} MB in {exported.files} file{'s' if exported.files > 1 else ''}"
    )
    if (adapter := exported.adapter) is not None:
        rows = f" and {adapter.rows} vocabulary rows" if adapter.rows else ""
        typer.echo(
            f"{folder / adapter.folder.name}: adapters of {adapter.layers} layers{rows}, {adapter.bytes / 1e6:.1f} MB"
        )
    if (networks := exported.networks) is not None:
        typer.echo(
            f"{folder / networks.path.parent.name / networks.path.name}: networks of plugins, "
            f"{', '.join(networks.names)}, {networks.bytes / 1e6:.1f} MB, which only mio reads; other programs "
            f"open the language model alone ({folder / 'README.md'})"
        )
