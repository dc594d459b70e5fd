"""`mio import`: a model in the Hugging Face layout as a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mio.cli.options import Plugin, manager, split
from mio.core.errors import UserError

if TYPE_CHECKING:
    from mio.core.exchange.reading import Imported


def import_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the model.", show_default=False)],
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="[RECIPE]... [KEY=VALUE]...",
            help="Recipe whose plugins declare the model's tokens; none for a text model or an export of mio.",
            show_default=False,
        ),
    ] = [],
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the run; default: the folder's.")] = "",
    token: Annotated[
        list[str],
        typer.Option(
            metavar="OURS=THEIRS",
            help="A token that the model calls otherwise, codes with {} for the number. Repeatable.",
            show_default=False,
        ),
    ] = [],
    text_size: Annotated[
        int, typer.Option(min=0, max=2**31, metavar="N", help="Ids that are text; 0: all below the first other token.")
    ] = 0,
    dtype: Annotated[str, typer.Option(metavar="TYPE", help="keep, bf16, fp16 or fp32.")] = "keep",
    plugin: Plugin = [],
) -> None:
    """Make a run of a model's folder, which stages start from and other commands use like one that was trained.

    mio import 01-ai/Yi-6B --name yi

    mio import m-a-p/MIO-7B-Instruct stage4 scale/mio-7b data/mio --name mio
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give that of a model in the Hugging Face layout")
    names, overrides = split(recipes) if recipes else ([], [])
    plugins = manager(plugin)

    from mio.core.exchange.reading import ImportOptions, import_folder
    from mio.core.terminal import plain

    options = ImportOptions(name=name, tokens=token, text=text_size, dtype=dtype)
    run = import_folder(folder, names, overrides, plugins, options)
    for line in _lines(run):
        typer.echo(plain(line))


def _lines(run: Imported) -> list[str]:
    blocks = run.vocabulary.blocks
    lines = [
        f"{run.folder}: {run.parameters:,} parameters, {run.vocabulary.size} ids, {blocks[0].size} of text"
        f"{' (restored)' if run.restored else ''}"
    ]
    if run.new:
        lines.append(f"new tokens, rows drawn around the mean: {', '.join(run.new)}")
    if run.unmapped:
        more = f" and {len(run.unmapped) - 10} more" if len(run.unmapped) > 10 else ""
        lines.append(f"left out, declared by no plugin: {', '.join(run.unmapped[:10])}{more}")
    if run.unnamed:
        lines.append(f"left out, without a token: {run.unnamed} rows")
    if run.overruled:
        lines.append(f"taken from config.json, not from the recipe: {', '.join(f'model.{n}' for n in run.overruled)}")
    if run.untied:
        lines.append("head and embedding differ, though config.json ties them: both are kept, as transformers does")
    if run.unread:
        lines.append(f"keys of config.json that this family does not read: {', '.join(run.unread)}")
    if run.codes:
        lines.append(f"rows of codes: {', '.join(f'{count} of {name}' for name, count in run.codes.items())}")
    if run.undeclared:
        lines.append(f"left out, rows of codes that no plugin of the recipe declares: {', '.join(run.undeclared)}")
    lines += [f"{fate}: {', '.join(networks)}" for fate, networks in run.beside.items()]
    if run.ignored:
        lines.append(f"not read, for there is a whole file of weights beside: {', '.join(run.ignored)}")
    lines.append(
        f"to start from it: `start_from: {run.folder}` in a recipe, or start_from={run.folder}; the model and the text "
        "tokenizer are then those of the run, where the recipe says nothing else"
    )
    return lines
