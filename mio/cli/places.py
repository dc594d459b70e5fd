"""What a person types for a recipe or a run, as a path: bundles are opened, pinned places are fetched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mio.core.errors import UserError

if TYPE_CHECKING:
    from mio.core.recipe.schema import RuntimeConfig


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


def refuse_foreign_folders(
    names: Sequence[str], overrides: Sequence[str], runtime_of: Callable[[], RuntimeConfig]
) -> None:
    """Raises `UserError` where a recipe that was fetched says by itself that something is written out of the working
    folder. `runtime_of` gives what it says."""
    from mio.core.recipe.origins import inside, root_of

    foreign = next((name for name in names if root_of(Path(name)) is not None), None)
    if foreign is None:
        return
    told, runtime = {override.partition("=")[0] for override in overrides}, runtime_of()
    for key, folder in (("runtime.runs", runtime.runs), ("runtime.tokens", runtime.tokens)):
        if key not in told and not inside(Path(), Path(), folder):
            raise UserError(
                f"{foreign}: writes to `{folder:.200}`, out of the working folder; say where with `{key}=FOLDER`"
            )


def _is_bundle(path: Path) -> bool:
    from mio.core.runs.bundles import is_bundle

    return is_bundle(path)
