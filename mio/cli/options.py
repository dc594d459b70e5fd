"""Arguments and options that several commands share."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mio.cli.places import recipe_place, run_place
from mio.core.contract.ranges import range_of
from mio.core.contract.values import Decoding
from mio.core.errors import UserError, nearest

if TYPE_CHECKING:
    from mio.core.contract.plugins import PluginManager
    from mio.core.runs.run import Run
    from mio.core.stages.check_chain import CheckedStage

Recipes = Annotated[
    list[str],
    typer.Argument(
        metavar="RECIPE... [KEY=VALUE...]",
        help="Recipe files, names that a plugin ships, or pinned places (git+URL@COMMIT:FILE, "
        "hf:OWNER/NAME@COMMIT:FILE), merged left to right; a lock file or a bundle alone. Then values for single keys.",
        show_default=False,
    ),
]
RunFolder = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        parser=run_place,
        help="Run folder, as in runs/stage4, or a bundle with weights.",
        show_default=False,
    ),
]
Plugin = Annotated[
    list[str],
    typer.Option(
        "--plugin",
        metavar="[NAME=]FILE_OR_MODULE",
        help="A plugin that is not installed. Repeatable; MIO_PLUGINS lists further ones.",
        show_default=False,
    ),
]
Device = Annotated[
    str,
    typer.Option(metavar="auto|cpu|cuda|mps", help="Where it computes; auto: on a GPU if there is one."),
]
Precision = Annotated[
    str,
    typer.Option(metavar="recipe|bf16|fp32", help="Dtype of weights, keys and values; recipe: as it was trained."),
]


def device_and_precision(device: str, precision: str) -> tuple[str, str]:
    """The kind of device, and the precision or nothing for the recipe's. Raises `typer.BadParameter` for an unknown
    one, `UserError` for a device that is not here."""
    kinds, precisions = ("auto", "cpu", "cuda", "mps"), ("recipe", "bf16", "fp32")
    for option, value, known in (("--device", device, kinds), ("--precision", precision, precisions)):
        if value not in known:
            raise typer.BadParameter(f"{option} {value}: is none of {', '.join(known)}{nearest(value, known)}")
    from mio.core.distributed.devices import device_type

    return device_type(device, f"`--device {device}`"), "" if precision == "recipe" else precision


SessionOptions = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="An option of live talk, as in history=2. Repeatable."),
]
Policy = Annotated[
    str, typer.Option(metavar="PLUGIN", help="Plugin that says how live talk goes; default: the first of the run.")
]
Average = Annotated[bool, typer.Option("--average", help="Use the average of the weights (`train.average`).")]


def session_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Nested options of `key=value` pairs, whose keys are dotted and whose values are YAML. Raises `typer.BadParameter`
    for what is no such pair."""
    import yaml

    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"--set {pair}: must be KEY=VALUE, as in history=2")
        inner = options
        *parents, last = key.split(".")
        for name in parents:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise typer.BadParameter(f"--set {pair}: `{name}` has a value already")
        try:
            inner[last] = yaml.safe_load(value)
        except yaml.YAMLError:
            inner[last] = value
    return options


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Recipes and `key=value` overrides. Raises `typer.BadParameter` if there is no recipe."""
    recipes = [argument for argument in arguments if is_place(argument)]
    if not recipes:
        file = next((one for one in arguments if one.endswith((".yaml", ".lock", ".zip"))), "")
        there = f"; there is no file `{file:.200}`" if file else ""
        raise typer.BadParameter(f"give at least one recipe before key=value{there}")
    return [recipe_place(name) for name in recipes], [argument for argument in arguments if not is_place(argument)]


def is_place(argument: str) -> bool:
    """Whether an argument names a recipe or a run rather than being `key=value`: a path may hold a `=` too."""
    from mio.core.recipe.origins import is_elsewhere
    from mio.core.recipe.places import BUNDLE, RECIPE, is_file

    if "=" not in argument or is_elsewhere(argument):
        return True
    path = Path(argument)
    return any(is_file(place) for place in (path, path / RECIPE, path / BUNDLE))


def manager(local: Sequence[str]) -> PluginManager:
    """The plugins at hand."""
    from mio.core.contract.plugins import PluginManager

    return PluginManager.discover(local)


def open_run(folder: Path, local: Sequence[str], first: bool = True, average: bool | None = False) -> Run:
    """The run in a folder; of several ranks that open it, the `first` compares its weights and tells what it notices.
    `average` as in `Run.open`. Raises `UserError` if there is none."""
    refuse_no_run(folder)
    from mio.core.runs.lock import warn
    from mio.core.runs.run import Run

    tell = warn if first else lambda line: None  # noqa: ARG005
    return Run.open(folder, manager(local), tell, weights=first, average=average)


def refuse_no_run(folder: Path) -> None:
    """Raises `UserError` for what is no run at all, before the seconds that torch takes to load."""
    from mio.core.recipe.places import RECIPE, is_file, run_of_checkpoint

    if not is_file(folder / RECIPE) and run_of_checkpoint(folder) is None:
        try:
            known = sorted(file.parent.name for file in folder.parent.glob(f"*/{RECIPE}"))[:20]
        except (OSError, ValueError):
            known = []
        hint = f"; runs beside it: {', '.join(known)}" if known else "; `mio fit RECIPE` makes one"
        if os.path.isdir(folder):  # noqa: PTH112 - a path that cannot be is no folder
            raise UserError(f"{folder}: holds no finished run ({RECIPE} is missing){hint}")
        raise UserError(f"{folder}: no such run folder{hint}")


def finite(value: float | None) -> float | None:
    """An option's number. Raises `typer.BadParameter` for infinities and NaN, which pass typer's own bounds."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def decoding_option(name: str, told: str) -> Any:
    """An option for a field of `mio.Decoding`, with the same range."""
    allowed = range_of(Decoding, name)
    return typer.Option(min=allowed.least, max=allowed.most, callback=finite, help=told)


def writable_file(option: str, path: Path | None) -> None:
    """Raises `UserError` if a file cannot be written there, before the work that leads to it."""
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{option} {path}: is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}; make it, or give another")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"{option} {path}: cannot be written; give another place, or change its permissions")


def writable_folder(option: str, path: Path) -> None:
    """As `writable_file`, for a folder that is made where it is missing."""
    there = next(place for place in (path, *path.parents, Path()) if place.exists() or place == Path())
    if not there.is_dir():
        raise UserError(f"{option} {path}: {there} is a file, not a folder; give another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: {there} cannot be written; give another, or change its permissions")


def check_stages(
    recipes: Sequence[str], overrides: Sequence[str], plugins: PluginManager, trains: bool = True
) -> list[CheckedStage]:
    """The stages of a chain, after all that `mio recipe check` checks: a second that may save hours. `trains` as in
    `check_chain`."""
    from mio.core.stages.check_chain import check_chain

    return check_chain(recipes, overrides, plugins, trains=trains)
