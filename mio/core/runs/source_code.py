"""Which code trains a run: digests of its files, the git commit where there is one, the packages it imports. No torch.

Nothing is imported to find out: files are hashed, and read for their `import` statements.
"""

from __future__ import annotations

import ast
import importlib.util
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import mio
from mio.core.checksums import file_sum, json_sum
from mio.core.contract.discovery import Candidate
from mio.core.contract.plugins import PluginManager

_GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false")


def code(manager: PluginManager, plugins: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The code of mio and of each plugin that is no part of it, by name: `files`, a digest of all of them, and, where
    they are tracked by git, `commit` and whether the working tree is `dirty`."""
    home = Path(mio.__file__).parent
    folders = {"mio": home}
    for name in plugins:
        place = place_of(manager.candidate(name))
        if place is not None and not place.is_relative_to(home):
            folders[name] = place
    return {name: {"files": _digest(place), **_revision(place)} for name, place in folders.items()}


def packages(manager: PluginManager, plugins: Iterable[str]) -> dict[str, str]:
    """Version of each distribution that a module of one of the plugins imports, by name."""
    names: set[str] = set()
    for place in (place_of(manager.candidate(name)) for name in plugins):
        for file in _files(place) if place is not None else ():
            if file.suffix == ".py":
                names |= _imported(file)
    found = sorted({owner for name in names for owner in _distributions().get(name, ()) if owner != "mio"})
    return {name: metadata.version(name) for name in found}


def place_of(candidate: Candidate) -> Path | None:
    """The file or folder of a plugin's module; None where nothing says it."""
    place = Path(candidate.target)
    if place.exists():
        return place.resolve()
    try:
        spec = importlib.util.find_spec(candidate.target.partition(":")[0])
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin).resolve()
    return origin.parent if origin.name == "__init__.py" else origin


def _files(place: Path) -> Iterator[Path]:
    """Files of a package in order, without what Python and editors leave there."""
    if place.is_file():
        yield place
        return
    for file in sorted(place.rglob("*")):
        inside = file.relative_to(place).parts
        if (
            file.is_file()
            and file.suffix != ".pyc"
            and not any(part[0] in "._" and part[:2] != "__" for part in inside)
        ):
            yield file


@cache
def _digest(place: Path) -> str:
    return json_sum({str(file.relative_to(place.parent)): file_sum(file) for file in _files(place)})


@cache
def _revision(place: Path) -> dict[str, Any]:
    """Empty where git does not track the place, or is not installed."""
    folder, name = (place.parent, place.name)

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                [*_GIT, *words], cwd=folder, capture_output=True, text=True, timeout=20, check=True, errors="replace"
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if not git("ls-files", "--", name):
        return {}
    commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", name)
    return {"commit": commit, "dirty": bool(changed)} if commit and changed is not None else {}


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


@cache
def _imported(file: Path) -> frozenset[str]:
    """First names of the absolute imports of a module."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return frozenset(names)
