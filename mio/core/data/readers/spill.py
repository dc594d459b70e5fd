"""Media that come as bytes, as files: what reads media of a modality takes paths."""

from __future__ import annotations

import contextlib
import tempfile
import weakref
from pathlib import Path


class _Spilled(type(Path())):  # type: ignore[misc]
    """A path whose file goes when nobody holds it any more."""


def spill(content: bytes, suffix: str) -> Path:
    """A file of `content`, which is removed with the last reference to the path."""
    with tempfile.NamedTemporaryFile(prefix="mio-", suffix=suffix, delete=False) as file:
        file.write(content)
    path: Path = _Spilled(file.name)
    weakref.finalize(path, _remove, file.name)
    return path


def _remove(name: str) -> None:
    with contextlib.suppress(OSError):
        Path(name).unlink()
