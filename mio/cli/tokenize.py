"""`mio tokenize`: media to codes, ahead of training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mio.cli.options import Plugin, Recipes, check_stages, manager, split, writable_folder
from mio.cli.places import refuse_foreign_folders


def tokenize(
    recipes: Recipes,
    engine: Annotated[
        str, typer.Option(help="`local`: this process, or the ranks of torchrun or srun; `ray`: a Ray cluster.")
    ] = "local",
    shard_records: Annotated[int, typer.Option(min=1, max=10_000_000, help="Records of a shard.")] = 4096,
    plugin: Plugin = [],
) -> None:
    """Tokenise the media of a recipe's sources into shards, which training then reads. Continues where it was stopped.

    mio tokenize recipes/stage4.yaml

    torchrun --nproc-per-node 8 -m mio tokenize recipes/stage4.yaml
    """
    from mio.core.recipe.chain import links

    names, overrides = split(recipes)
    plugins = manager(plugin)
    refuse_foreign_folders(names, overrides, lambda: links(names, overrides, plugins)[-1].recipe.runtime)
    for stage in check_stages(names, overrides, plugins, trains=False):
        writable_folder("runtime.tokens", Path(stage.recipe.runtime.tokens))

    from mio.core.stages.tokenize import tokenize as run

    run(names, overrides, plugins, shard_records=shard_records, engine=engine, local_plugins=plugin)
