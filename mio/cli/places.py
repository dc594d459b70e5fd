"""What a person types for a recipe or a run, as a path: bundles are opened, pinned places are fetched."""

from __future__ import annotations

from pathlib import Path

from mio.core.errors import UserError


def recipe_place(name: str) -> str:
    """What stands for a recipe: a bundle's lock file, a fetched file, or else the name itself. Raises `UserError` for a
    damaged bundle, and for a place that cannot be fetched."""
    from mio.core.recipe.origins import fetched, is_elsewhere
    from mio.core.runs.bundles import CHAIN, is_bundle, opened

    path = fetched(name) if is_elsewhere(name) else Path(name)
    if is_bundle(path):
        return str(opened(path) / CHAIN)
    if is_elsewhere(name) and path.is_dir():
        raise UserError(f"{name:.300}: holds no bundle; name a recipe in it, `{name:.200}:FILE.yaml`")
    return str(path) if is_elsewhere(name) else name


def run_place(name: str | Path) -> Path:
    """The folder of a run: that of a bundle, or the path itself. Raises `UserError` as `recipe_place`, and for a bundle
    without weights."""
    from mio.core.recipe.origins import fetched, is_elsewhere
    from mio.core.runs.bundles import is_bundle, opened, refuse_unweighted

    path = fetched(str(name)) if is_elsewhere(str(name)) else Path(name)
    if is_bundle(path):
        path = opened(path)
        refuse_unweighted(path)
    return path
