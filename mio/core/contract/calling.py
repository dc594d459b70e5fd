"""Calls of hooks, one plugin at a time, and what is wrong with their answers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pluggy

from mio.core.contract import hookspecs
from mio.core.contract.layouts import ModelLayout
from mio.core.contract.loggers import LoggerFactory
from mio.core.contract.validation import PATH_NAME, kind, layout_problems, preset_problems
from mio.core.contract.values import Modality
from mio.core.errors import PluginError, UserError


def registered(plugins: Mapping[str, object]) -> pluggy.PluginManager:
    """A registry of these plugins by name, which calls their hooks in this order."""
    registry = pluggy.PluginManager("mio")
    registry.add_hookspecs(hookspecs)
    for name in reversed(list(plugins)):  # pluggy calls what was registered last first
        registry.register(plugins[name], name)
    return registry


def calls(registry: pluggy.PluginManager, hook: str, **arguments: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(plugin, call) of each implementation: `tryfirst` ones, then the others in the plugins' order, then `trylast`."""
    for implementation in reversed(getattr(registry.hook, hook).get_hookimpls()):
        values = [arguments[name] for name in implementation.argnames]
        yield implementation.plugin_name, _noting(implementation.plugin_name, hook, implementation.function, values)


def _noting(owner: str, hook: str, function: Callable[..., Any], values: Sequence[Any]) -> Callable[[], Any]:
    def call() -> Any:
        with naming_plugin(f"plugin `{owner}`", f" in `{hook}`"):
            return function(*values)

    return call


@contextlib.contextmanager
def naming_plugin(who: str, where: str = "") -> Iterator[None]:
    """Names the plugin whose code runs in an error's message, or in a note where the error is a defect."""
    try:
        yield
    except PluginError:
        raise
    except UserError as error:
        raise PluginError(f"{who}: {error}") from error
    except Exception as error:
        error.add_note(f"raised by {who}{where}")
        raise


def refuse(owner: str, hook: str, what: str, problems: Sequence[str]) -> None:
    """Raises `PluginError` for `what` a hook has answered, if there are problems with it."""
    if problems:
        raise PluginError(f"plugin `{owner}`, hook `{hook}`, {what}: {'; '.join(problems)}")


def sequence(owner: str, hook: str, answer: Any) -> Sequence[Any]:
    """A hook's answer that is to be a list or tuple. Raises `PluginError` for another."""
    if isinstance(answer, str) or not isinstance(answer, Sequence):
        refuse(owner, hook, "answer", [f"{kind(answer)} must be a list or tuple"])
    return answer


def mapping(owner: str, hook: str, answer: Any) -> Mapping[str, Any]:
    """A hook's answer that is to be a mapping by name. Raises `PluginError` for another."""
    if not isinstance(answer, Mapping):
        refuse(owner, hook, "answer", [f"{kind(answer)} must be a mapping by name"])
    return answer


def check_name(owner: str, hook: str, name: Any) -> None:
    """Raises `PluginError` for a name that recipes cannot hold."""
    if not isinstance(name, str) or not PATH_NAME.fullmatch(name):
        refuse(owner, hook, "answer", [f"the name {name!r} must be letters, digits, `_`, `-`, `.` and `/`"])


def named_backbones(owner: str, answer: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, fields of `TransformerConfig`) of each preset that `mio_backbones` answers. Raises `PluginError`."""
    for name, preset in mapping(owner, "mio_backbones", answer).items():
        check_name(owner, "mio_backbones", name)
        refuse(owner, "mio_backbones", f"preset `{name}`", preset_problems(preset))
        yield name, preset


def named_recipes(owner: str, answer: Any) -> Iterator[tuple[str, Path]]:
    """(name, file) of each recipe that `mio_recipes` answers. Raises `PluginError`, also for a file that is missing."""
    for name, path in mapping(owner, "mio_recipes", answer).items():
        check_name(owner, "mio_recipes", name)
        if not isinstance(path, str | Path) or not Path(path).is_file():
            refuse(owner, "mio_recipes", f"recipe `{name}`", [f"{path!r} is no file"])
        yield name, Path(path)


def named_loggers(owner: str, answer: Any) -> Iterator[tuple[str, LoggerFactory]]:
    """(name, what makes it) of each logger that `mio_loggers` answers. Raises `PluginError`."""
    for name, factory in mapping(owner, "mio_loggers", answer).items():
        check_name(owner, "mio_loggers", name)
        if not callable(factory):
            refuse(owner, "mio_loggers", f"logger `{name}`", [f"{factory!r} must be a function"])
        yield name, factory


def named_layouts(owner: str, answer: Any) -> Iterator[tuple[str, ModelLayout]]:
    """(`model_type`, layout) of each layout that `mio_layouts` answers. Raises `PluginError`."""
    for name, layout in mapping(owner, "mio_layouts", answer).items():
        check_name(owner, "mio_layouts", name)
        refuse(owner, "mio_layouts", f"layout `{name}`", layout_problems(layout))
        yield name, layout


def named_commands(owner: str, answer: Any) -> Iterator[tuple[str, Mapping[str, Callable[..., Any]]]]:
    """(plugin, function of each command by name), once, of what `mio_commands` answers. Raises `PluginError`."""
    commands = mapping(owner, "mio_commands", answer)
    for name, function in commands.items():
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            refuse(owner, "mio_commands", "answer", [f"the name {name!r} must be lower-case letters, digits and `-`"])
        if not callable(function):
            refuse(owner, "mio_commands", f"command `{name}`", [f"{function!r} must be a function"])
    yield owner, commands


def check_parts(declared: Sequence[tuple[str, Modality]]) -> None:
    """Raises `PluginError` for a modality whose parts are none that can be parts. `declared`: (plugin, modality)."""
    known = {modality.name: modality for _, modality in declared}
    for owner, modality in declared:
        for name in modality.part_names:
            part = known.get(name)
            if part is None or part.text or part.parts:
                raise PluginError(
                    f"plugin `{owner}`, hook `mio_modalities`, modality `{modality.name}`: `parts`: no plugin of the "
                    f"recipe declares a modality `{name}` with codebooks or an encoder; add its plugin under "
                    "`plugins:`"
                )
