"""Names of what a run folder holds, which `docs/architecture.md` explains, and where recipes and runs lie. No torch."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mio.core.errors import UserError, nearest

if TYPE_CHECKING:
    from mio.core.contract.plugins import PluginManager

RECIPE = "recipe.yaml"
"""A folder that holds this file is a run folder."""
LOCK = "recipe.lock"
VOCABULARY = "vocabulary.json"
TOKENIZERS = "tokenizers"
WEIGHTS = "model.safetensors"
BASE = "base.safetensors"
"""The frozen weights that a run's adapters belong to; `WEIGHTS` then holds what was trained beside them."""
AVERAGE = "average.safetensors"
SUMMARY = "summary.json"
METRICS = "metrics.csv"
JOURNAL = "journal.csv"
SKIPPED = "skipped_steps.jsonl"
SOURCES = "sources.json"
SAMPLES = "samples"
EVALUATION = "evaluation"
LOGGED_SAMPLES = "samples.jsonl"
COMPLETIONS = "completions.jsonl"
"""In a folder of a step in `SAMPLES`: held-out records that the model completed."""
REPORT = "report.html"
CHECKPOINTS = "checkpoints"
PLACES = "places"
BUNDLE = "bundle.json"
"""A folder that holds this file is a bundle, which is a lean run folder: it names the bundle's files."""
CHAIN = "training.lock"
"""In a bundle: lock file of the run and of what it builds on."""

_SHOWN = 6
"""Names of shipped recipes that a message lists."""

STEP_FOLDER = re.compile(r"step-(\d{8,})")
"""A checkpoint's folder in `CHECKPOINTS`."""
INDEX = "index.json"
"""In a checkpoint's folder; its presence marks the checkpoint as whole."""


def locate(name: str, manager: PluginManager) -> Path:
    """Path of a recipe, by its path or by the name that a plugin ships it under. Raises `UserError` with near names."""
    path = Path(name)
    if is_file(path):
        return path
    if is_file(path / RECIPE):
        raise UserError(f"{name}: is a run folder; its recipe is {path / RECIPE}")
    shipped = manager.recipes()
    if name in shipped:
        return shipped[name][1]
    beside = [str(path.parent / file) for file in recipes_in(path.parent)]
    exact = [file for file in beside if file == f"{name}.yaml"]
    hint = f"; did you mean `{exact[0]}`?" if exact else _pinned(name) or nearest(name, [*beside, *shipped])
    raise UserError(f"no recipe {name:.200}{_there(path)}{hint or _known(shipped)}")


def _pinned(name: str) -> str:
    """How a pinned place is written, of a name that looks like one without being it; empty for another."""
    if re.match(r"(https|ssh|file)://", name):
        return f"; a pinned place of Git begins with `git+`: `git+{name:.200}`"
    match = re.fullmatch(r"(?P<repository>[^:].*)@(?P<rest>[^/@:]+:.+)", name)
    if match is None:
        return ""
    repository, rest = match["repository"], match["rest"]
    if is_folder(Path(repository)):
        return f"; a repository of this machine is `git+{Path(repository).absolute().as_uri():.200}@{rest:.200}`"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        return f"; of the Hub it is `hf:{name:.200}`, of Git `git+https://HOST/{name:.200}`"
    return "; a pinned place is `git+https://HOST/REPOSITORY@COMMIT:FILE` or `hf:OWNER/NAME@COMMIT:FILE`"


def _known(shipped: Mapping[str, tuple[str, Path]]) -> str:
    """Where recipes are listed, with some that plugins ship."""
    if not shipped:
        return ""
    names = sorted(shipped, key=lambda one: ("/" in one, one))
    owners = ", ".join(dict.fromkeys(owner for owner, _ in shipped.values()))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    listed = f"{', '.join(names[:_SHOWN])}{more}"
    return f"; plugins ship {listed}: `mio plugins show PLUGIN` lists those of each ({owners})"


def is_file(path: Path) -> bool:
    """Whether a file is there; a path that no file can have is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether a folder is there; a path that no folder can have is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def recipes_in(folder: Path) -> list[str]:
    """Names of the recipe files of a folder, in order; none of one that cannot be read."""
    try:
        return sorted(file.name for file in folder.glob("*.yaml"))
    except (OSError, ValueError):
        return []


def _there(path: Path) -> str:
    """What is in the place of a recipe."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        return f" ({getattr(error, 'strerror', None) or error})"
    return " (a folder)" if stat.S_ISDIR(mode) else " (no regular file)"


def run_of_checkpoint(path: Path) -> Path | None:
    """The run folder of a folder that is a checkpoint, else None."""
    if not is_file(path / INDEX):
        return None
    of_run = path.resolve().parents[1]
    return of_run if is_file(of_run / RECIPE) else None
