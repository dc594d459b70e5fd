"""Writes docs/gallery.md: the plugins of this repository, as their packages and their own declarations describe them.

    python docs/gallery.py       writes docs/gallery.md

A package is any folder of `PLACES` whose pyproject.toml has an entry point of the group `mio`. Plugins are asked with
default options, with those that they need beside them; no network is made and no weight is read.
"""

from __future__ import annotations

import inspect
import sys
import tomllib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement

from mio import __version__
from mio.core.contract.discovery import GROUP, Candidate, importer
from mio.core.contract.overview import overview
from mio.core.contract.plugins import PluginManager

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "gallery.md"
PLACES = {".": "With mio", "examples": "Examples", "tests/packages": "Worked examples"}
"""Folders of packages, and of a package itself, with the heading of what is found there."""
MOST_NAMED = 12
"""Names of one kind that are written out; of more, the first ones and their number."""
INTRODUCTION = """\
# Plugins

What each plugin of this repository supplies with its default options. Many supply something else with others:
`mio plugins show NAME KEY=VALUE` says what. `python docs/gallery.py` makes the page of the packages' own declarations;
a package joins it by lying in `examples/`. How a plugin is written is in [plugins.md](plugins.md), and
`mio plugins new NAME` writes one to start from.

"""
NAMED = ("requires", "corpus", "task", "preset", "recipe", "layout", "logger", "command")
NETWORKS = ("encoder", "head", "adapters")
PLURALS = {"corpus": "corpora", "requires": "requires"}


class Package(NamedTuple):
    """What a pyproject.toml says."""

    folder: Path
    project: dict[str, Any]
    plugins: dict[str, str]
    """Targets by the plugin's name."""

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.project['name']} {self.project.get('version', __version__)}"

    def candidates(self) -> list[Candidate]:
        """Its plugins, which are imported from its folder, whether it is installed or not."""
        if str(self.folder) not in sys.path:
            sys.path.append(str(self.folder))
        return [Candidate(name, self.label, target, importer(target)) for name, target in self.plugins.items()]


def packages(place: str) -> Iterator[Package]:
    """Packages with plugins in a folder, or the folder itself, in order of their names."""
    pattern = "pyproject.toml" if place == "." else "*/pyproject.toml"
    for file in sorted((ROOT / place).glob(pattern)):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        if plugins := project.get("entry-points", {}).get(GROUP):
            yield Package(file.parent, project, plugins)


def page() -> str:
    """The page as the packages are now. Raises `PluginError` for a plugin that does not work."""
    [own] = packages(".")
    built_in = own.candidates()
    index, sections = ["| plugin | package | |", "| --- | --- | --- |"], []
    for place, heading in PLACES.items():
        found = list(packages(place))
        sections += [f"\n## {heading}\n"] if found else []
        for package in found:
            theirs = [] if package == own else package.candidates()
            manager = PluginManager([*built_in, *theirs])
            sections.append(_about(package, place))
            for candidate in theirs or built_in:
                summary = _summary(candidate)
                index.append(f"| [`{candidate.name}`](#{candidate.name}) | {package.project['name']} | {summary} |")
                sections.append(_section(manager, candidate, summary))
    return INTRODUCTION + "\n".join([*index, *sections])


def _about(package: Package, place: str) -> str:
    licence = package.project.get("license", "no licence given")
    where = "" if place == "." else f", in `{package.folder.relative_to(ROOT)}`"
    needs = [one for one in package.project.get("dependencies", ()) if Requirement(one).name != "mio"]
    needed = f" Needs {', '.join(f'`{one}`' for one in needs)}." if needs and place != "." else ""
    description = package.project.get("description", "")
    return f"**{package.label}**{where}, {licence}.{f' {description}.' if description else ''}{needed}\n"


def _summary(candidate: Candidate) -> str:
    """First sentence of what the plugin's module says of itself."""
    text = inspect.getdoc(candidate.plugin) or ""
    return " ".join(text.split("\n\n")[0].split())


def _section(manager: PluginManager, candidate: Candidate, summary: str) -> str:
    rows = [f"| {kind} | {content} |" for kind, content in _rows(overview(manager, candidate.name, {}))]
    table = ["| | |", "| --- | --- |", *rows, ""] if rows else []
    return "\n".join([f"### {candidate.name}", "", summary, "", *table])


def _rows(lines: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, str]]:
    """Kind and content: what has a detail stands by itself, names alone stand together."""
    for (kind, of_names), several in groupby(lines, lambda line: (line[0], line[0] in NAMED)):
        if not of_names:
            yield from ((kind, _described(kind, name, detail)) for _, name, detail in several)
            continue
        for rest, group in groupby(several, lambda line: bool(line[2])):
            names = [f"`{name}`" for _, name, _ in group]
            what = f"{kind}{' at rest' if rest else ''}" if len(names) == 1 else f"{PLURALS.get(kind, f'{kind}s')}"
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            note = ", at rest until there is what they need" if rest else ""
            yield what, f"{', '.join(names[:MOST_NAMED])}{more}{note}"


def _described(kind: str, name: str, detail: str) -> str:
    """A name with what is said of it, as a cell; of networks without the fingerprint."""
    said = detail if kind not in NETWORKS or detail.startswith("not with") else detail.partition("; ")[2]
    cell = said.replace("|", "\\|").replace("<", "\\<")
    return f"`{name}`: {cell}" if cell else f"`{name}`" if " " not in name else name


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
