"""Names of what a run folder holds, which `docs/architecture.md` explains, and where recipes and runs lie. No torch."""

from __future__ import annotations

import re
import stat
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
    hint = f"; did you mean `{exact[0]}`?" if exact else nearest(name, [*beside, *shipped])
    known = f" (names that plugins ship: {', '.join(sorted(shipped))})" if shipped and not hint else ""
    raise UserError(f"no recipe {name:.200}{_there(path)}{hint}{known}")


def is_file(path: Path) -> bool:
    """Whether a file is there; a path that no file can have is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def recipes_in(folder: Path) -> list[str]:
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
