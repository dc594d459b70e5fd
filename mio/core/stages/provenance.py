"""What a run was trained on: which files its sources consisted of when it began, so that it never goes on over others.

The run folder's `sources.json` holds, for each source, its fingerprint and its files with their hashes (of more than
`mio.core.data.contents.NAMED` files, one hash for several), and a digest of the shards that it was read from, if it
was. Lock files have the same. Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any

from mio.core.checksums import read_summed, write_summed
from mio.core.contract.plugins import EnabledPlugins
from mio.core.data.contents import FileList, SourceContent, told_changes
from mio.core.data.hashing import FileHashes
from mio.core.data.mixture import read_sources
from mio.core.data.shards.reader import TokenisedSource
from mio.core.data.shards.store import HASHES, TokenStore, open_tokens, source_folder
from mio.core.data.sources import every_source
from mio.core.errors import DataError, UserError
from mio.core.recipe.data_schema import GroupConfig, MixtureConfig
from mio.core.recipe.lock_file import LockedSource
from mio.core.recipe.places import SOURCES
from mio.core.recipe.schema import Recipe
from mio.core.tokens.codecs import Codecs

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
        if isinstance(source.records, TokenisedSource):
            now[source.label]["shards"] = source.records.digest
        if content is not None:
            tokens.opened[source.label] = content.records
            now[source.label]["files"] = content.files.to_json()
    if begun:
        _compare(folder / SOURCES, now)
    else:
        write_summed(folder / SOURCES, now)
    return dict(tokens.known)


def run_sources(folder: Path) -> dict[str, LockedSource]:
    """What the sources of a run consisted of when it began. Raises `DataError` if its record is missing or damaged."""
    content = read_summed(folder / SOURCES, _ADVICE)
    try:
        return {label: _locked(**source) for label, source in content.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / SOURCES}: is damaged ({error}); {_ADVICE}") from None


def _locked(
    fingerprint: str, records: int | None, files: dict[str, Any] | None = None, shards: str = ""
) -> LockedSource:
    listed = FileList.from_json(files) if files else FileList()
    named = {first: digest for first, _, _, digest in listed.entries} if listed.together == 1 else {}
    return LockedSource(fingerprint, records, shards, named)


def sources_at_hand(recipe: Recipe, plugins: EnabledPlugins) -> Iterator[tuple[str, LockedSource | UserError]]:
    """(label, what it consists of, or why it cannot be read) of each source that a recipe reads, media included, each
    by itself. Streams, which are only tokenised, are left out."""
    root, kept = Path(recipe.runtime.tokens), Codecs(plugins).kept
    hashes = FileHashes(root / HASHES)
    for group, name, config in read_sources(recipe.data, recipe.mixture):
        if config.options.get("streaming"):
            continue
        data = replace(recipe.data, groups={group: GroupConfig({name: config})})
        alone = replace(recipe, data=data, mixture=MixtureConfig(ratios={group: 1.0}))
        try:
            opened = every_source(alone, plugins)
        except UserError as error:
            yield f"{group}/{name}", error
            continue
        for source in opened:
            content = SourceContent(source.records, hashes)
            records = len(source.records) if isinstance(source.records, Sized) else None
            shards = open_tokens(source_folder(root, source.config, kept), hashes)
            digest = shards[0].digest if shards else ""
            yield source.label, _locked(content.fingerprint, records, content.files.to_json(), digest)


def source_changes(before: LockedSource, now: LockedSource) -> str:
    """What became of a source, in a few words; empty if nothing is known to differ."""
    if before.fingerprint == now.fingerprint and (before.fingerprint or before.records == now.records):
        return ""
    lists = (FileList((name, name, 1, digest) for name, digest in one.files.items()) for one in (before, now))
    old, new = lists
    if old.entries and new.entries and (changes := old.changes(new)):
        return told_changes(changes)
    return f"its content differs ({before.records} records then, {now.records} now)"


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
