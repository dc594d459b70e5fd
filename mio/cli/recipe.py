"""`mio recipe`: resolve, validate, compare, freeze."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mio.cli.options import (
    Plugin,
    Recipes,
    RunFolder,
    check_stages,
    is_place,
    manager,
    refuse_no_run,
    split,
    writable_file,
)
from mio.cli.places import record_place

if TYPE_CHECKING:
    from mio.core.contract.plugins import PluginManager
    from mio.core.recipe.chain import Link

app = typer.Typer(help="Resolve, validate, compare and freeze recipes.", no_args_is_help=True)


@app.command()
def show(
    recipes: Recipes,
    chain: Annotated[bool, typer.Option("--chain", help="All stages, one YAML document each.")] = False,
    plugin: Plugin = [],
) -> None:
    """Print a recipe as it is trained: files merged, every key set."""
    from mio.core.recipe.resolved import fingerprint, to_yaml
    from mio.core.terminal import plain

    stages = _links(recipes, manager(plugin))
    shown = stages if chain else stages[-1:]
    for index, stage in enumerate(shown):
        separator = "---\n" if index else ""
        taken = ", ".join(".".join(key) for key in stage.taken)
        origin = f"# from {stage.start}: {taken}\n" if taken else ""
        recipe = f"# fingerprint {fingerprint(stage.recipe)}\n{origin}{to_yaml(stage.recipe)}"
        typer.echo(plain(f"{separator}{recipe}"), nl=False)


@app.command()
def check(recipes: Recipes, plugin: Plugin = []) -> None:
    """Validate every stage of a recipe's chain without loading or training anything."""
    from mio.core.terminal import plain

    for checked in check_stages(*split(recipes), manager(plugin)):
        stage, mixture = checked.recipe, checked.recipe.mixture
        first, *later = mixture.points()
        groups = list(dict.fromkeys(name for point in (first, *later) for name in point.ratios))
        ratios = ":".join(f"{first.ratios.get(group, 0):g}" for group in groups)
        for point in later:
            ratios += f", at {point.at:g} " + ":".join(f"{point.ratios.get(group, 0):g}" for group in groups)
        typer.echo(
            f"{stage.name}: ok, {stage.train.steps} steps of {stage.train.rows} x {stage.data.packing.context} "
            f"positions, {':'.join(groups)} {ratios} by {mixture.unit}"
        )
        for note in checked.notes:
            typer.echo(plain(f"  {note}"))


@app.command()
def diff(
    first: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe: a file, a shipped name, a run folder, a lock, a bundle or a pinned place.",
            show_default=False,
        ),
    ],
    second: Annotated[str, typer.Argument(metavar="RECIPE", help="Another recipe.", show_default=False)],
    overrides: Annotated[
        list[str], typer.Argument(metavar="[KEY=VALUE]...", help="Values for single keys of both.", show_default=False)
    ] = [],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    plugin: Plugin = [],
) -> None:
    """Print how two recipes differ: stage, vocabulary, model, mixture, data, training, evaluation.

    mio recipe diff runs/stage3 runs/stage4

    mio recipe diff stage4.zip mine.yaml
    """
    import json
    from dataclasses import asdict

    from mio.cli.places import opened_place
    from mio.core.recipe.comparison import compare, modalities
    from mio.core.recipe.described import described
    from mio.core.terminal import plain

    plugins = manager(plugin)
    names = [str(opened_place(name) or name) for name in (first, second)]
    one, other = (described(name, overrides, plugins) for name in names)
    declared, missing = modalities([one, other], plugins)
    for problem in missing:
        typer.echo(plain(f"warning: modalities are not compared: {problem}"), err=True)
    sections = compare(one, other, declared)
    if as_json:
        typer.echo(json.dumps([asdict(section) for section in sections], ensure_ascii=False, indent=2))
        return
    if not sections:
        typer.echo(plain(f"{first} and {second} do not differ"), err=True)
    for section in sections:
        typer.echo(section.title)
        for difference in section.differences:
            typer.echo(plain(f"  {difference}"))


@app.command()
def lock(
    recipes: Recipes,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.lock", help="Where the lock is written; default: NAME.lock here.")
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Of a run: lock it alone, as starting from the run before.")
    ] = False,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Write no lock file: take a run folder as it is, whatever its own lock says."),
    ] = False,
    plugin: Plugin = [],
) -> None:
    """Freeze a recipe or a run, its whole chain: versions, code, machine, data, tokenizers, vocabulary, seed. `mio fit
    FILE.lock` reproduces it, or refuses with all that differs.

    mio recipe lock runs/stage4 --out stage4.lock
    """
    from mio.core.recipe.lock_file import SUFFIX
    from mio.core.recipe.places import LOCK, RECIPE, is_file

    run = record_place(recipes[0]) if is_place(recipes[0]) else Path(recipes[0])
    is_run = is_file(run / RECIPE)
    if is_run and len(recipes) > 1:
        raise typer.BadParameter(f"{run} is a run folder; give it alone")
    if accept and (not is_run or out is not None):
        raise typer.BadParameter("--accept takes a run folder, and writes no other file")
    if out is not None and out.suffix != SUFFIX:
        raise typer.BadParameter(f"--out {out}: must end with `{SUFFIX}`, by which `mio fit` knows it")
    writable_file("--out", out)
    plugins = manager(plugin)
    if accept:
        from mio.core.runs.lock import accept_changes

        for line in accept_changes(run, plugins):
            typer.echo(line)
        typer.echo(run / LOCK)
        return
    from mio.core.stages.locking import lock_recipe, lock_trained
    from mio.core.terminal import plain

    made, notes = lock_trained(run, plugins, alone) if is_run else lock_recipe(*split(recipes), plugins)
    path = out or Path(f"{made.stages[-1].name}{SUFFIX}")
    made.save(path)
    for note in notes:
        typer.echo(plain(note))
    typer.echo(path)


@app.command()
def bundle(
    run: RunFolder,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.zip|FOLDER", help="Where it is written; default: NAME.zip here.", show_default=False
        ),
    ] = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="Pack the weights too: it then answers untrained.")
    ] = False,
    plugin: Plugin = [],
) -> None:
    """Pack a trained run to be passed on: recipe, lock, vocabulary, tokenizers, figures, model card.

    mio recipe bundle runs/stage4 --weights --out stage4.zip
    """
    from mio.cli.options import open_run
    from mio.core.stages.bundling import bundle_run
    from mio.core.terminal import plain

    trained = open_run(run, plugin)
    made = bundle_run(trained, out or Path(f"{trained.recipe.name}.zip"), weights=weights)
    for note in made.notes:
        typer.echo(plain(note))
    typer.echo(f"{made.path}: {made.files} files, {made.bytes / 1e6:.1f} MB")


@app.command()
def verify(run: RunFolder, plugin: Plugin = []) -> None:
    """Compare the journal of a run with the plan of its recipe: whether it saw exactly the rows that it should have."""
    refuse_no_run(run)
    from mio.core.stages.verify import verify as verify_run
    from mio.core.terminal import console

    status = console(stderr=True)
    verified = verify_run(run, manager(plugin), lambda line: status.print(line, highlight=False))
    typer.echo(f"{run}: {verified.steps} steps, each trained on exactly the rows that the recipe plans")


def _links(arguments: list[str], plugins: PluginManager) -> list[Link]:
    from mio.core.recipe.chain import links

    return links(*split(arguments), plugins)
