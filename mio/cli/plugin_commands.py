"""Commands that plugins bring: `mio PLUGIN NAME`, beside mio's own, which win."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from mio.core.contract.calling import naming_plugin
from mio.core.contract.discovery import discover, refuse_broken, unnamed
from mio.core.errors import PluginError

if TYPE_CHECKING:
    from mio.core.contract.plugins import PluginManager

_OPTION = "--plugin"


class WithPlugins(TyperGroup):
    """mio's commands, and behind them those of working plugins. Plugins are imported where a name is not mio's own, and
    for help."""

    @cached_property
    def _manager(self) -> PluginManager:
        from mio.core.contract.plugins import PluginManager

        return PluginManager(discover())

    @cached_property
    def _groups(self) -> dict[str, Any]:
        from mio.core.contract.plugins import PluginManager

        found = PluginManager(unnamed(self._manager.candidates.values())).commands()
        return {name: _group(name, commands) for name, commands in found.items() if commands}

    def list_commands(self, ctx: Any) -> list[str]:
        """mio's own in their order, then plugins."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in self._groups if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """None where nobody has a command of that name."""
        return super().get_command(ctx, cmd_name) or self._groups.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Raises `PluginError` where a plugin of MIO_PLUGINS does not work, unless the command is mio's own: that one
        says so itself, where it uses plugins."""
        if super().get_command(ctx, args[0]) is None:
            refuse_broken(self._manager.candidates.values())
            if args[0] not in self._groups:
                self._manager.commands()  # a plugin that was named may answer with none that can be
        return super().resolve_command(ctx, args)


def advice(arguments: Sequence[str], own: Sequence[str], message: str) -> str:
    """What to do about a message on a command of a plugin that was given by the option of mio's `own`; empty for
    another."""
    words = list(arguments)
    places = [word.partition("=")[2] for word in words if word.startswith(f"{_OPTION}=")]
    places += [place for word, place in pairwise(words) if word == _OPTION]
    if not places or words[0] in own or not message.startswith(("No such command", f"No such option: {_OPTION}")):
        return ""
    return f"; commands of plugins take no `{_OPTION}`: put `MIO_PLUGINS={os.pathsep.join(places)}` before `mio`"


def _group(plugin: str, commands: Mapping[str, Callable[..., Any]]) -> Any:
    app = typer.Typer(
        name=plugin, help=f"Commands of the plugin `{plugin}`.", no_args_is_help=True, add_completion=False
    )
    app.callback()(_root)
    for name, function in commands.items():
        app.command(name)(_naming(plugin, name, function))
    try:
        return typer.main.get_command(app)
    except Exception as error:  # an annotation that is none, say
        raise PluginError(f"plugin `{plugin}`: typer cannot read its commands: {error}") from error


def _naming(plugin: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with the plugin's name in its errors."""

    @functools.wraps(function)
    def command(*values: Any, **named: Any) -> Any:
        with naming_plugin(f"plugin `{plugin}`", f" in `mio {plugin} {name}`"):
            return function(*values, **named)

    return command


def _root() -> None:
    """A group even of one command."""
