"""Commands that plugins bring: `mio PLUGIN NAME`, beside mio's own, which win."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import typer
from typer.core import TyperGroup


class WithPlugins(TyperGroup):
    """mio's commands, and behind them those of working plugins. Plugins are imported where a name is not mio's own, and
    for help."""

    @cached_property
    def _groups(self) -> dict[str, Any]:
        from mio.cli.options import manager

        found = manager([]).commands()
        return {name: _group(name, commands) for name, commands in found.items() if commands}

    def list_commands(self, ctx: Any) -> list[str]:
        """mio's own in their order, then plugins."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in self._groups if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """None where nobody has a command of that name."""
        return super().get_command(ctx, cmd_name) or self._groups.get(cmd_name)


def _group(plugin: str, commands: Mapping[str, Callable[..., Any]]) -> Any:
    app = typer.Typer(name=plugin, help=f"Commands of the plugin `{plugin}`.", no_args_is_help=True)
    app.callback()(_root)
    for name, function in commands.items():
        app.command(name)(function)
    return typer.main.get_command(app)


def _root() -> None:
    """A group even of one command."""
