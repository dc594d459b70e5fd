"""What a run was trained on: which files its sources consisted of when it began, so that it never goes on over others.

The run folder's `sources.json` holds, for each source, its fingerprint and its files with their hashes (of more than
`mio.core.data.contents.NAMED` files, one hash for several). Free of torch.
"""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path
from typing import Any

from mio.core.checksums import read_summed, write_summed
from mio.core.contract.plugins import EnabledPlugins
from mio.core.data.contents import FileList, told_changes
from mio.core.data.shards.store import TokenStore
from mio.core.data.sources import every_source
from mio.core.errors import DataError
from mio.core.recipe.places import SOURCES
from mio.core.recipe.schema import Recipe

_ADVICE = "restore it from a copy, or start a new run with another `name=`"


def check_sources(
    recipe: Recipe, plugins: EnabledPlugins, tokens: TokenStore, folder: Path, begun: bool
) -> dict[str, str]:
    """Fingerprints of the sources of a run by label, after they were compared with those that it began with.

    Each is hashed at most once per state of its files. Sources stay open in `tokens`, to be read next.

    Args:
        folder: of the run.
        begun: whether the run has trained; otherwise what the sources consist of is written down.

    Raises:
        DataError: a source is not what it was, or `sources.json` is missing or damaged.
    """
    now: dict[str, Any] = {}
    for source in every_source(recipe, plugins, tokens):
        content = tokens.contents.get(source.label)
        fingerprint = tokens.known[source.label] = tokens.fingerprint(source.label, source.records)
        size = len(source.records) if isinstance(source.records, Sized) else None
        now[source.label] = {"fingerprint": fingerprint, "records": size}
        if content is not None:
            tokens.opened[source.label] = content.records
            now[source.label]["files"] = content.files.to_json()
    if begun:
        _compare(folder / SOURCES, now)
    else:
        write_summed(folder / SOURCES, now)
    return dict(tokens.known)


def _compare(path: Path, now: dict[str, Any]) -> None:
    try:
        before = read_summed(path, _ADVICE)
        problems = [
            f"{label}: {_changes(before[label], source)}"
            for label, source in now.items()
            if before[label]["fingerprint"] != source["fingerprint"]
        ]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: is damaged ({error}); {_ADVICE}") from None
    if problems:
        raise DataError(
            f"{path.parent}: the run's data have changed since it began: {'; '.join(problems)}. Restore what they "
            "were, or start a new run with another `name=`"
        )


def _changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    changes: list[str] = []
    if "files" in before and "files" in now:
        changes = FileList.from_json(before["files"]).changes(FileList.from_json(now["files"]))
    if changes:
        return told_changes(changes)
    return f"its content differs ({before['records']} records then, {now['records']} now)"
