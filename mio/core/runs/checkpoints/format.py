"""The form of a checkpoint on disk.

    checkpoints/step-00000200/
        index.json                  tensors (shape, dtype, chunks), files (size, checksum), step, loss, run
        state.json                  all that is no tensor
        rank-00000.safetensors      the chunks that rank 0 wrote; one file per rank that holds any

A chunk is a box of a tensor. While it is written the folder has another name, `step-00000200.partial-ATTEMPT`; taking
its final one is what makes it a checkpoint. Nothing in it is executed when it is read.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from mio.core.recipe.places import INDEX, STEP_FOLDER

VERSION = 1
STATE = "state.json"


def step_name(step: int) -> str:
    """Folder of the checkpoint after so many steps."""
    return f"step-{step:08d}"


def rank_file(rank: int) -> str:
    """Tensors of a rank."""
    return f"rank-{rank:05d}.safetensors"


def checksum(path: Path) -> str:
    """BLAKE2b of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def sync(path: Path) -> None:
    """Makes sure that a file or a folder's entries are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def listed(folder: Path) -> list[Path]:
    """Whole checkpoints in a folder, by step."""
    if not folder.is_dir():
        return []
    paths = [path for path in folder.iterdir() if STEP_FOLDER.fullmatch(path.name) and (path / INDEX).is_file()]
    return sorted(paths, key=lambda path: int(path.name.removeprefix("step-")))


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder."""
    return next(reversed(listed(folder)), None)
