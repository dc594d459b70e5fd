"""The recipes of this repository by name: `stage1` to `stage4`, `scale/laptop`, `data/digits`, ..."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mio import hookimpl


def _folder() -> Path:
    """Inside the package where it was built into a wheel, else at the root of the checkout."""
    package = Path(__file__).parent.parent
    shipped = package / "recipes"
    return shipped if shipped.is_dir() else package.parent / "recipes"


@hookimpl
def mio_recipes() -> Mapping[str, str]:
    folder = _folder()
    return {path.relative_to(folder).with_suffix("").as_posix(): str(path) for path in sorted(folder.rglob("*.yaml"))}
