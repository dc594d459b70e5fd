"""The folder that a stage starts from, looked at before anything is loaded. No torch."""

from __future__ import annotations

import json
from pathlib import Path

from mio.core.checksums import read_summed
from mio.core.errors import DataError, UserError
from mio.core.recipe.places import BASE, CHECKPOINTS, INDEX, WEIGHTS, run_of_checkpoint
from mio.core.runs.bundles import refuse_unweighted
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.lock import check_run

LARGEST_HEADER = 10**8
"""Bytes of a safetensors header; the library reads no larger one."""


def check_parent(start: Path, weights: bool = True) -> Path:
    """Compares what a run or a checkpoint is made of with what its run wrote, as far as that takes no time: of weights
    their files' sizes alone, if they are needed. Returns the run's folder.

    Raises:
        UserError: there is no run or no finished one, or a part of it is missing or damaged.
    """
    run = run_of_checkpoint(start)
    if run is None and weights:
        check_finished(start)
    lock = check_run(run or start, weights=False, tell=lambda line: None)  # noqa: ARG005 - no records are read here
    if run is None:
        if weights:
            _check_whole(start / WEIGHTS)
            if BASE in lock.files:
                _check_whole(start / BASE)
        return start
    index = read_summed(start / INDEX, "start from another checkpoint")
    if index.get("run") and lock.run and index["run"] != lock.run:
        raise DataError(f"{start}: is a checkpoint of another run than the folder's; start from one of its own")
    try:
        sizes = {str(name): int(entry["bytes"]) for name, entry in index["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(f"{start / INDEX}: is damaged; start from another checkpoint") from None
    for name, size in sizes.items():
        if not (start / name).is_file() or (start / name).stat().st_size != size:
            raise DataError(f"{start / name}: is missing or cut short; restore it, or start from another checkpoint")
    return run


def check_finished(path: Path) -> None:
    """Raises `UserError` if a folder is no run, or one without a result."""
    if not path.is_dir():
        known = sorted(p.parent.name for p in path.parent.glob(f"*/{WEIGHTS}")) if path.parent.is_dir() else []
        hint = f"; finished runs beside it: {', '.join(known)}" if known else "; `mio fit RECIPE` makes one"
        raise UserError(f"{path}: no such run folder{hint}")
    refuse_unweighted(path)
    if not (path / WEIGHTS).is_file():
        last = latest(path / CHECKPOINTS)
        hint = f", and {last} is its last checkpoint" if last else ""
        raise UserError(f"{path}: holds no finished run ({WEIGHTS} is missing); `mio fit` goes on with it{hint}")


def _check_whole(path: Path) -> None:
    """Raises `DataError` if a safetensors file is shorter or longer than its header says."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            header = json.loads(file.read(length) if length <= min(size, LARGEST_HEADER) else b"")
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0) == size
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        whole = False
    if not whole:
        raise DataError(f"{path}: is damaged or cut short; restore it from a copy, or import or train the run again")
