"""Paths in options of plugins and sources: a relative one begins beside the recipe file that gives it. No torch.

As with `include` and `start_from`, what is not there is looked for in the working folder, and a resolved recipe has the
path that was found, so that it stands for itself. A recipe that was fetched, or unpacked from a bundle, names only what
lies in what was fetched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mio.core.contract.calling import calls, refuse, registered, sequence
from mio.core.contract.checker import Key
from mio.core.contract.plugins import PluginManager
from mio.core.errors import UserError
from mio.core.recipe.origins import inside, root_of
from mio.core.recipe.schema import Recipe
from mio.core.terminal import printable

HOOK = "mio_paths"
OF_READERS: Mapping[str, Sequence[str]] = {
    "jsonl": ("path", "folder"),
    "parquet": ("path", "folder"),
    "arrow": ("path", "folder"),
    "webdataset": ("path", "folder"),
    "folder": ("path", "folder"),
    "hub": ("folder",),
}
"""Options of the core's readers that are paths."""


def path_options(plugins: Mapping[str, Mapping[str, Any]], manager: PluginManager) -> dict[str, list[str]]:
    """Names of options that are paths, by plugin, of those that are at hand and work. Raises `PluginError` for what is
    no list of names."""
    found: dict[str, list[str]] = {}
    for name, options in plugins.items():
        candidate = manager.candidates.get(name)
        if candidate is not None and not candidate.problem:
            for owner, answer in calls(registered({name: candidate.plugin}), HOOK, options=dict(options or {})):
                names = sequence(owner, HOOK, answer())
                wrong = [one for one in names if not isinstance(one, str) or not all(one.split("."))]
                refuse(owner, HOOK, "answer", [f"{one!r} must be the name of an option" for one in wrong])
                found[owner] = list(names)
    return found


def path_keys(recipe: Recipe, manager: PluginManager) -> Iterator[Key]:
    """Keys of a recipe whose values, if it has them, are paths. Plugins that are not at hand are passed over."""
    of_corpora: dict[str, list[str]] = {}
    for plugin, names in path_options(recipe.plugins, manager).items():
        for name in names:
            yield "plugins", plugin, *name.split(".")
            corpus, _, option = name.rpartition(".")
            of_corpora.setdefault(corpus, []).append(option)
    for group, config in recipe.data.groups.items():
        for source, one in config.sources.items():
            for option in (*OF_READERS.get(one.dataset, ()), *of_corpora.get(one.dataset, ())):
                yield "data", "groups", group, "sources", source, "options", option


def place_paths(content: Any, keys: Iterable[Key], folder: Callable[[Key], Path]) -> None:
    """Puts in place of the paths at `keys` of a recipe's content, a mapping of mappings, what they stand for.

    Args:
        folder: of the file that gives the value of a key.

    Raises:
        UserError: a recipe that was fetched names a path elsewhere.
    """
    for key in keys:
        inner = content
        for name in key[:-1]:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and key[-1] in inner:
            value, place = inner[key[-1]], folder(key)
            try:
                if isinstance(value, str):
                    inner[key[-1]] = beside(place, value)
                elif isinstance(value, list):
                    inner[key[-1]] = [beside(place, one) if isinstance(one, str) else one for one in value]
            except UserError as error:
                dotted = ".".join(key)
                raise UserError(f"`{dotted}`: {error}; give one of yours with `{dotted}=PATH`") from None


def beside(folder: Path, path: str) -> str:
    """A path, or shell-style pattern, of a file in `folder`: where that is, if it is there; otherwise as it is.

    Raises `UserError` for a path out of what was fetched, where `folder` is in that.
    """
    if not path:
        return path
    if (root := root_of(folder)) is not None and not inside(root, folder, path):
        raise UserError(
            f"`{printable(path):.200}` is not in what was fetched, and a fetched recipe may name nothing else"
        )
    if path.startswith("~") or Path(path).is_absolute():
        return path
    if _there(folder, path):
        return os.path.normpath(folder / path)
    if root is not None and _there(Path(), path):
        raise UserError(f"`{printable(path):.200}` is not in what was fetched, only in the working folder")
    return path


def _there(folder: Path, path: str) -> bool:
    try:
        return any(folder.glob(path)) if any(one in path for one in "*?[") else (folder / path).exists()
    except (OSError, ValueError, NotImplementedError):  # no path that a file can have
        return False
