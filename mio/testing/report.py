"""What was checked of a plugin and came of it, for people who review it and for programs."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import mio
from mio.core.contract.overview import overview
from mio.core.contract.plugins import EnabledPlugins, PluginManager
from mio.core.errors import UserError
from mio.core.files import write_text
from mio.core.terminal import plain
from mio.testing.outcomes import FAILED, PASSED, SKIPPED, Result

FORMATS = (".md", ".json")
"""Suffixes of files that a report is written to."""
_PACKAGES = ("numpy", "torch")


@dataclass(frozen=True)
class Report:
    """The results of all checks of one plugin, in the order in which they were made."""

    plugin: str
    origin: str
    """Distribution and version, or where the local module lies."""
    options: Mapping[str, Any]
    beside: Mapping[str, Mapping[str, Any]]
    """The plugins that were in use beside it, with their options."""
    versions: Mapping[str, str]
    declarations: Sequence[tuple[str, str, str]]
    """(kind, name, detail) of what the plugin supplies, as `mio plugins show` lists it."""
    results: Sequence[Result]

    @classmethod
    def of(
        cls,
        manager: PluginManager,
        name: str,
        options: Mapping[str, Any],
        plugins: EnabledPlugins | None,
        results: Sequence[Result],
    ) -> Report:
        """Of the results; `plugins` as they were enabled, None if they could not be."""
        candidate = manager.candidates.get(name)
        return cls(
            name,
            candidate.origin if candidate else "not installed",
            options,
            {other: own for other, own in plugins.options.items() if other != name} if plugins else {},
            _versions(),
            _declared(plugins, name) if plugins else (),
            results,
        )

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    @property
    def failed(self) -> list[Result]:
        """The checks that found a fault."""
        return [result for result in self.results if result.outcome == FAILED]

    def summary(self) -> str:
        """One line."""
        counts = {outcome: sum(one.outcome == outcome for one in self.results) for outcome in (PASSED, FAILED, SKIPPED)}
        listed = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        return f"plugin `{self.plugin}`: {listed}, in {sum(one.seconds for one in self.results):.1f} s"

    def markdown(self) -> str:
        """The report as Markdown."""
        verdict = "does not conform" if self.failed else "conforms"
        lines = [
            f"# Plugin `{self.plugin}` {verdict} to mio's contract",
            "",
            self.summary() + ".",
            "",
            "| | |",
            "| --- | --- |",
            _row("package", self.origin),
            _row("options", _told(self.options) or "none"),
            _row("beside it", ", ".join(f"{one} {_told(own)}".strip() for one, own in self.beside.items()) or "none"),
            *(_row(package, version) for package, version in self.versions.items()),
            "",
            "## Declarations",
            "",
            "| kind | name | |",
            "| --- | --- | --- |",
            *(_row(*line) for line in self.declarations),
            "",
            "## Checks",
            "",
            "| check | outcome | s | |",
            "| --- | --- | --- | --- |",
            *(_row(one.check, one.outcome, f"{one.seconds:.2f}", one.detail) for one in self.results),
        ]
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "format": "mio-conformance",
            "version": 1,
            "plugin": self.plugin,
            "origin": self.origin,
            "conforms": not self.failed,
            "options": dict(self.options),
            "beside": dict(self.beside),
            "versions": dict(self.versions),
            "declarations": [{"kind": kind, "name": name, "detail": told} for kind, name, told in self.declarations],
            "checks": [{**asdict(one), "seconds": round(one.seconds, 3)} for one in self.results],
        }

    def write(self, path: Path) -> None:
        """Writes Markdown or JSON, by the suffix. Raises `UserError` for another one."""
        check_format(path)
        as_json = path.suffix.lower() == ".json"
        content = json.dumps(self.to_json(), indent=1, ensure_ascii=False, default=str) + "\n"
        write_text(path, content if as_json else self.markdown())


def check_format(path: Path) -> None:
    """Raises `UserError` for a file that no report is written to."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path}: a report is Markdown or JSON: give a file that ends in {' or '.join(FORMATS)}")


def _row(*cells: str) -> str:
    return f"| {' | '.join(plain(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _told(options: Mapping[str, Any]) -> str:
    return json.dumps(dict(options), ensure_ascii=False, default=str) if options else ""


def _versions() -> dict[str, str]:
    found = {"python": f"{platform.python_version()}, {platform.system()} {platform.machine()}"}
    found["mio"] = mio.__version__
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _declared(plugins: EnabledPlugins, name: str) -> list[tuple[str, str, str]]:
    beside = {other: own for other, own in plugins.options.items() if other != name}
    try:
        return list(overview(plugins.manager, name, plugins.options[name], beside))
    except Exception as error:
        own = [("modality", modality.name, "") for owner, modality in plugins.modalities() if owner == name]
        return [*own, ("the rest", "cannot be listed", str(error) or type(error).__name__)]
