"""`mio plugins`: what is installed, conformance checks, a scaffold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mio.cli.options import Plugin, manager, writable_file
from mio.core.errors import UserError

app = typer.Typer(help="What is installed; conformance checks; a scaffold.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The plugin.", show_default=False)]
Options = Annotated[
    list[str], typer.Argument(metavar="[KEY=VALUE]...", help="Options of the plugin.", show_default=False)
]
Beside = Annotated[
    list[str],
    typer.Option(
        "--with",
        metavar="NAME|NAME.KEY=VALUE",
        help="A plugin that this one needs beside it, or an option of one. Repeatable.",
        show_default=False,
    ),
]

Sources = Annotated[
    list[str],
    typer.Option(
        "--source",
        metavar="NAME.KEY=VALUE",
        help="An option of a corpus, as a recipe gives it. Repeatable.",
        show_default=False,
    ),
]

_WIDE = 1000
"""Columns where nobody looks at a terminal."""


@app.command("list")
def list_plugins(plugin: Plugin = []) -> None:
    """Every plugin at hand, what it supplies, and why it does not work if it does not."""
    from rich.table import Table

    from mio.core.contract.discovery import discover
    from mio.core.terminal import console

    table = Table("plugin", "package", "supplies", box=None, pad_edge=False)
    for candidate in discover(plugin):
        supplies = f"broken: {candidate.problem}" if candidate.problem else ""
        supplies = supplies or ", ".join(name.removeprefix("mio_") for name in candidate.hooks)
        table.add_row(candidate.name, candidate.origin, supplies)
    console().print(table, soft_wrap=True)


@app.command()
def show(
    name: Name,
    options: Options = [],
    beside: Beside = [],
    plugin: Plugin = [],
) -> None:
    """What a plugin supplies with these options: modalities, encoders, adapters, heads, control tokens, corpora, tasks.

    mio plugins show vita tokens=ids
    """
    from mio.core.contract.overview import overview
    from mio.core.terminal import plain

    for kind, supplied, detail in overview(manager(plugin), name, _options(options), _with(beside)):
        typer.echo(plain(f"{kind:14}{supplied}{f': {detail}' if detail else ''}"))


def _with(written: list[str]) -> dict[str, Any]:
    """Plugins by name, with their options."""
    names: dict[str, Any] = {one: {} for one in written if "=" not in one}
    return {**names, **_options([one for one in written if "=" in one])}


def _of_sources(written: list[str]) -> dict[str, Any]:
    """Options of corpora by the corpus. Its name may hold dots, as `corpora/v1.2.path=FILE` has; a key has none."""
    from mio.core.recipe.layers import override_layer

    found: dict[str, Any] = {}
    for one in written:
        place, equals, value = one.partition("=")
        name, dot, key = place.rpartition(".")
        if not (equals and dot and name):
            raise UserError(f"--source {one}: give NAME.KEY=VALUE, as in `--source mine/clips.path=clips.csv`")
        found.setdefault(name, {}).update(override_layer(f"{key}={value}").content)
    return found


def _options(written: list[str]) -> dict[str, Any]:
    """Options of a plugin as they are written on the command line."""
    from mio.core.recipe.layers import override_layer
    from mio.core.recipe.merging import merge

    content: dict[str, Any] = {}
    for option in written:
        content = merge(content, override_layer(option).content)
    return content


@app.command()
def check(
    name: Name,
    options: Options = [],
    beside: Beside = [],
    source: Sources = [],
    plugin: Plugin = [],
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a report: Markdown (.md) or JSON (.json).", show_default=False),
    ] = None,
) -> None:
    """Run the conformance checks on a plugin, the same that `mio.testing.check_plugin` runs in pytest.

    Ends with code 0 if none fails, with 1 if one does, and with 2 where no plugin has the name.
    """
    from rich.table import Table

    from mio.core.contract.discovery import discover, refuse_broken
    from mio.core.contract.plugins import PluginManager
    from mio.core.terminal import console, plain
    from mio.testing import conformance
    from mio.testing.report import check_format

    if report is not None:
        check_format(report)
        writable_file("--report", report)
    out = console()
    if not out.is_terminal:  # each check on one line, however long it is
        out = console(width=_WIDE)
    table = Table(box=None, pad_edge=False)
    for title in ("check", "outcome", "s"):
        table.add_column(title, no_wrap=True)
    table.add_column("")
    plugins = PluginManager(discover(plugin))
    refuse_broken(plugins.candidates.values(), but=name)  # that it is broken itself is a result of the check
    plugins.candidate(name)  # a name that is none is a mistake of who gives it, not of a plugin
    found = conformance(name, _options(options), beside=_with(beside), manager=plugins, sources=_of_sources(source))
    for one in found:
        table.add_row(plain(one.check), one.outcome, f"{one.seconds:.2f}", plain(one.detail))
    out.print(table)
    typer.echo(plain(found.summary()))
    if report is not None:
        found.write(report)
        typer.echo(f"report: {report}")
    if found.failed:
        raise typer.Exit(1)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the plugin.", show_default=False)],
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="What it supplies: a modality of `codes`, one that is `encoded` by a network, one that a `head` "
            "makes, a `corpus`, or a `task`.",
        ),
    ] = "codes",
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Folder that the package is put in.")] = Path(),
    plugin: Plugin = [],
) -> None:
    """Write a package with a plugin that works, to start from: with a recipe, a task, tests and a README."""
    from mio.cli.scaffold import write_package
    from mio.cli.scaffold.taken import taken_names

    package = write_package(name, kind, folder, taken_names(manager(plugin)))
    own = package.name.removeprefix("mio-").replace("-", "_")
    typer.echo(
        f"{package}: `pip install -e {package}` installs it, `mio plugins check {own}` checks it, `mio fit {own}` "
        "trains a model on it; its README.md says more"
    )
