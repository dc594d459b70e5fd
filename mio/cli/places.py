"""What a person types for a recipe or a run, as a path: bundles are opened, pinned places are fetched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mio.core.errors import UserError


def recipe_place(name: str) -> str:
    """What stands for a recipe: a bundle's lock file, a fetched file, or else the name itself. Raises `UserError` for a
    damaged bundle, and for a place that cannot be fetched."""
    from mio.core.recipe.origins import is_elsewhere
    from mio.core.recipe.places import CHAIN, is_file

    path = opened_place(name)
    if path is None:
        return name
    if is_file(path / CHAIN):
        return str(path / CHAIN)
    if path.is_dir():
        if is_elsewhere(name) and not _is_bundle(path):
            raise UserError(f"{name:.300}: holds no bundle; name a recipe in it, `{name:.200}:FILE.yaml`")
        raise UserError(
            f"{name:.300}: is the bundle of a model that was imported, so nothing can train it again; "
            f"`start_from={path}` goes on from it"
        )
    return str(path)


def run_place(name: str | Path, weights: bool = True) -> Path:
    """The folder of a run: that of a bundle, or the path itself. Raises `UserError` as `recipe_place`, and for a bundle
    without `weights` where these are needed."""
    from mio.core.runs.bundles import refuse_unweighted

    path = opened_place(str(name)) or Path(name)
    if weights:
        refuse_unweighted(path, str(name))
    return path


def record_place(name: str | Path) -> Path:
    """As `run_place`, for what needs a run's records alone."""
    return run_place(name, weights=False)


def opened_place(name: str) -> Path | None:
    """The file or folder of a pinned place, the folder of a bundle; None for any other name."""
    from mio.core.recipe.origins import fetched, is_elsewhere
    from mio.core.runs.bundles import is_bundle, opened

    path = fetched(name) if is_elsewhere(name) else Path(name)
    if is_bundle(path):
        return opened(path)
    return path if is_elsewhere(name) else None


def refuse_foreign_folder(names: Sequence[str], overrides: Sequence[str], runs: str) -> None:
    """Raises `UserError` where a recipe that was fetched says by itself that runs are written out of the working
    folder."""
    from mio.core.recipe.origins import inside, root_of

    told = any(override.partition("=")[0] in ("runtime.runs", "runtime") for override in overrides)
    foreign = next((name for name in names if root_of(Path(name)) is not None), None)
    if foreign is not None and not told and not inside(Path(), Path(), runs):
        raise UserError(
            f"{foreign}: writes its runs to `{runs:.200}`, out of the working folder; `runtime.runs=runs` says where"
        )


def _is_bundle(path: Path) -> bool:
    from mio.core.runs.bundles import is_bundle

    return is_bundle(path)
