"""What a recipe `requires`: distributions and their versions, looked up before anything else of the recipe. No torch.

A requirement has the form of PEP 508 without an address (`mio-mesh>=0.1`, `mio[serve]>=0.2`, `NAME; MARKER`) and its
versions are compared by PEP 440. A plugin that is not installed, but given by `--plugin` or `MIO_PLUGINS`, counts as
the distribution of the `pyproject.toml` above it.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

import mio
from mio.core.contract.checker import Key
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError
from mio.core.terminal import plain

LONGEST, MOST = 200, 200
"""Characters of a requirement, and requirements of a recipe."""
OWN = "mio"
"""This package, by the name that requirements have for it."""
_ABOVE = 3
"""Folders above a local plugin in which the `pyproject.toml` of its distribution is looked for."""


@dataclass(frozen=True)
class Required:
    """A requirement, where it is written."""

    text: Any
    place: str
    """File and line, or the override, for messages."""


def required_of(content: Any, mark: Callable[[Key], str], prefix: Key = ()) -> Iterator[Required]:
    """What the content of a file requires, or a section of it, at the key `prefix`. What is no list is not for this to
    tell. `mark` says where a key stands."""
    listed = content.get("requires") if isinstance(content, Mapping) else None
    for index, text in enumerate(listed if isinstance(listed, list) else ()):
        yield Required(text, mark((*prefix, "requires", str(index))))


def check_requirements(required: Sequence[Required], manager: PluginManager) -> None:
    """Raises `RecipeError` with every requirement that is none or is not met, and the command that installs the latter.
    `manager` has the plugins at hand."""
    problems: list[str] = []
    unmet: dict[str, str] = {}
    places, others, update = [], [], False
    for one in required[:MOST]:
        try:
            lacking = list(_lacking(_parsed(one.text), manager))
        except InvalidRequirement as error:
            problems.append(f"{one.place}: `requires` has {plain(repr(one.text)):.120}: {plain(str(error)):.200}")
            continue
        if lacking:
            places.append(one.place)
        for requirement, what in lacking:
            unmet[str(requirement)] = what
            if canonicalize_name(requirement.name) == OWN and not requirement.specifier.contains(mio.__version__, True):
                update = True
            elif str(requirement) not in others:
                others.append(str(requirement))
    if len(required) > MOST:
        problems.append(f"{required[MOST].place}: more than {MOST} requirements are too many")
    if unmet:
        command = " ".join(f'"{text}"' if shlex.quote(text) != text else text for text in others)
        advice = [f"install with `pip install {command}`"] if others else []
        if update:  # `pip install mio` would fetch another project's package
            advice.append("update mio where it was installed from (not from PyPI, whose `mio` is another project)")
        problems.append(
            f"{places[0]}: the recipe requires {', and '.join(f'{text}, {what}' for text, what in unmet.items())}; "
            + "; ".join(advice)
        )
    if problems:
        raise RecipeError(problems)


def _parsed(text: Any) -> Requirement:
    """Raises `InvalidRequirement` with what is wrong."""
    example = "write a distribution and its versions, as in `mio-mesh>=0.1`"
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequirement(f"is no text; {example}")
    if len(text) > LONGEST:
        raise InvalidRequirement(f"is longer than {LONGEST} characters; {example}")
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise InvalidRequirement(f"is no requirement ({str(error).splitlines()[0]}); {example}") from None
    if requirement.url:
        raise InvalidRequirement(f"names an address, which recipes cannot; {example}")
    return requirement


def _lacking(requirement: Requirement, manager: PluginManager, within: str = "") -> Iterator[tuple[Requirement, str]]:
    """The requirement with what is at hand in its place, if that does not meet it, and what its extras lack."""
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": within}):
        return
    version = _version(requirement.name, manager)
    if version is None:
        yield requirement, "which is not installed"
    elif version and not requirement.specifier.contains(version, prereleases=True):
        yield requirement, f"but {version} is installed"
    for extra in sorted(requirement.extras) if version else ():
        lacking = [one for one in _of_extra(requirement.name, extra) if list(_lacking(one, manager, extra))]
        if lacking:
            names = ", ".join(sorted(one.name for one in lacking))
            yield requirement, f"of whose extra `{extra}` {names} is not installed in a version that it takes"


def _of_extra(name: str, extra: str) -> Iterator[Requirement]:
    """What a distribution requires for one of its extras alone."""
    try:
        texts = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, texts):
        marker = requirement.marker
        if marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            requirement.extras = set()  # one level is looked at
            yield requirement


def _version(name: str, manager: PluginManager) -> str | None:
    """Version of a distribution that is at hand, empty where it is not known; None if it is not."""
    wanted = canonicalize_name(name)
    if wanted == OWN:
        return mio.__version__
    for target in (candidate.target for candidate in manager.candidates.values()):
        local = _project(Path(target))
        if local is not None and canonicalize_name(local[0]) == wanted:
            return local[1]
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError):
        return None


def _project(place: Path) -> tuple[str, str] | None:
    """Name and version, which may be empty, of the project that a local plugin is part of."""
    if not place.exists():
        return None
    for folder in list(place.resolve().parents)[:_ABOVE]:
        try:
            project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            return str(project["name"]), str(project.get("version", ""))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def added_up(lists: Iterable[Sequence[str]]) -> list[str]:
    """All requirements of several recipes, each once."""
    return list(dict.fromkeys(text for one in lists for text in one))
