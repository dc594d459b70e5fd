"""`mio plan`: what a recipe takes on hardware that is not here."""

from __future__ import annotations

from typing import Annotated

import typer

from mio.cli.options import Plugin, Recipes, manager, split


def plan(
    recipes: Recipes,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plugin: Plugin = [],
) -> None:
    """Estimate memory, traffic, time and cost of a recipe's training on hardware that is not here.

    mio plan recipes/mio/stage1.yaml world=512

    mio plan recipes/mio/stage1.yaml world=64 gpu=a100 network=efa-400 train.micro_rows=2

    Keys of the plan: world, gpus_per_node, gpu, network, price, efficiency, document, text_tokens, media. All
    others are the recipe's.
    """
    from mio.core.planning.request import Request
    from mio.core.recipe.chain import chain
    from mio.core.stages.check import check_training
    from mio.core.terminal import console, json_text

    names, overrides = split(recipes)
    request, overrides = Request.split(overrides)
    plugins = manager(plugin)
    stages = chain(names, overrides, plugins)  # mistakes come before the seconds that torch takes to load
    hardware = request.resolve(stages[-1].runtime)
    for stage in stages:
        plugins.enable(stage.plugins).modalities()  # which reads their options
    check_training(stages[-1], plugins.enable(stages[-1].plugins), hardware.world)

    from mio.core.planning.plan import plan as make
    from mio.core.planning.report import as_tables, as_values

    result = make(stages, plugins, request)
    if as_json:
        typer.echo(json_text(as_values(result), indent=1))
        return
    console().print(as_tables(result), highlight=False)
