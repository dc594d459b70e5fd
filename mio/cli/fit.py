"""`mio fit`: trains."""

from __future__ import annotations

from mio.cli.options import Plugin, Recipes, manager, split


def fit(recipes: Recipes, plugin: Plugin = []) -> None:
    """Train a recipe, and first the earlier stages of its chain that are missing. Continues an interrupted run.

    mio fit recipes/stage4.yaml

    mio fit recipes/stage4.yaml train.steps=200 runtime.runs=short
    """
    from mio.core.recipe import chain

    names, overrides = split(recipes)
    plugins = manager(plugin)
    chain(names, overrides, plugins)  # mistakes are told before the seconds that torch takes to load

    from mio.core.fit import fit_chain

    fit_chain(names, overrides, plugins)
