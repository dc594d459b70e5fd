"""Plugins that others need beside them: what `mio_requires` may answer, and how it is met."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mio.core.errors import PluginError, nearest

if TYPE_CHECKING:
    from mio.core.contract.plugins import PluginManager


def requires_problems(owner: str, names: Sequence[Any]) -> list[str]:
    """Everything wrong with an answer of `mio_requires`."""
    problems = [f"{name!r} must be the name of a plugin" for name in names if not isinstance(name, str) or not name]
    return problems + ([f"`{owner}` names itself"] if owner in names else [])


def check_requires(lacking: Sequence[tuple[str, str]], known: Collection[str]) -> None:
    """Raises `PluginError` with the line to add for each (plugin, name) that a recipe lacks; `known` are the plugins at
    hand."""
    problems = []
    for owner, name in lacking:
        add = f"add `{name}: {{}}` under `plugins:`"
        if name not in known:
            add = f"no plugin `{name}` is installed{nearest(name, known)}; install its package, and {add}"
        problems.append(f"plugin `{owner}` needs `{name}`, which is not among the recipe's plugins; {add}")
    if problems:
        raise PluginError("; ".join(problems))


def completed(manager: PluginManager, plugins: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """`plugins`, with options by name, and before them all that they need beside them, which gets no options. Raises
    `PluginError` where a plugin is missing or broken."""
    chosen = dict(plugins)
    while lacking := manager.enable(chosen).lacking():
        check_requires([(owner, name) for owner, name in lacking if name not in manager.candidates], manager.candidates)
        chosen = {**{name: {} for _, name in lacking}, **chosen}
    return chosen
