"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mio.core.plugins import PluginManager

Recipes = Annotated[
    list[str],
    typer.Argument(
        metavar="RECIPE... [KEY=VALUE...]",
        help="Recipe files, or names that a plugin ships, merged left to right; then values for single keys.",
        show_default=False,
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, as in runs/stage4.", show_default=False)]
Plugin = Annotated[
    list[str],
    typer.Option(
        "--plugin",
        metavar="[NAME=]FILE_OR_MODULE",
        help="A plugin that is not installed. Repeatable; MIO_PLUGINS lists further ones.",
        show_default=False,
    ),
]


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Recipes and `key=value` overrides. Raises `typer.BadParameter` if there is no recipe."""
    recipes = [argument for argument in arguments if "=" not in argument]
    if not recipes:
        raise typer.BadParameter("give at least one recipe before key=value")
    return recipes, [argument for argument in arguments if "=" in argument]


def manager(local: Sequence[str]) -> PluginManager:
    """The plugins at hand."""
    from mio.core.plugins import PluginManager

    return PluginManager.discover(local)
