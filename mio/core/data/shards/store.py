"""The folder of tokenised sources: who may read which shards. Free of torch at import.

tokens/NAME-SPLIT-DIGEST/     one source: dataset, split, options and filters
    source.json               what was tokenised, written before the first shard
    000000.shard ...
    files.json                which files the source consists of, with their hashes
    index.json                the shards with their checksums, written after the last: the source is complete
tokens/tokenizers/DIGEST/     tokenizers that `mio tokenize` trained
tokens/hashes.sqlite          hashes of files, so that what has not changed is not read again
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mio.core.checksums import read_summed, write_summed
from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import Source
from mio.core.data.contents import FileList, SourceContent, told_changes
from mio.core.data.hashing import FileHashes
from mio.core.data.shards.reader import TokenIndex, TokenisedSource
from mio.core.errors import DataError
from mio.core.recipe.data_schema import SourceConfig
from mio.core.recipe.schema import Recipe
from mio.core.tokens.codecs import Codecs

SOURCE, FILES, INDEX = "source.json", "files.json", "index.json"
HASHES = "hashes.sqlite"
ADVICE = "delete it and give `mio tokenize` again"


def source_folder(root: Path, config: SourceConfig, kept: Sequence[str] = ()) -> Path:
    """Where the shards of a source of a recipe are: its name is a function of what is read, not of how it is used.
    `kept` are the modalities whose media they keep, since networks read or make them."""
    digest = _digest(source_identity(config, kept), 6)
    return root / f"{config.dataset.replace('/', '-')}-{config.split}-{digest}"


def source_identity(config: SourceConfig, kept: Sequence[str] = ()) -> dict[str, Any]:
    """What decides which shards a source has, beside its content and the tokenizers."""
    identity = {name: getattr(config, name) for name in ("dataset", "split", "options", "filters")}
    if config.held_out_by:  # codes do not show what keys are made of
        identity["held_out_by"] = config.held_out_by
    if kept:
        identity["kept"] = list(kept)
    return identity


def source_digest(config: SourceConfig, shard_records: int, kept: Sequence[str] = ()) -> str:
    """Which every shard of a source carries, so that those of another are known."""
    return _digest({**source_identity(config, kept), "shard_records": shard_records}, 8)


def _digest(content: Mapping[str, Any], size: int) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True, default=str).encode(), digest_size=size).hexdigest()


def tokenizer_fingerprints(plugins: EnabledPlugins, codecs: Codecs) -> dict[str, str]:
    """Fingerprint of every tokenizer whose work is in shards; of a splitter without one, of its plugin's options."""
    fingerprints = {name: own for name, own in codecs.fingerprints().items() if not codecs.modalities[name].text}
    for owner, declared in plugins.modalities():
        if declared.parts:
            options = json.dumps(plugins.options[owner], sort_keys=True, default=str).encode()
            own = getattr(codecs.tokenizer(declared.name), "fingerprint", "")
            fingerprints[declared.name] = own or f"options-{hashlib.blake2b(options, digest_size=6).hexdigest()}"
    return fingerprints


def refuse_other_tokenizers(where: str, used: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raises `DataError` if codes were made by another tokenizer than the one at hand."""
    for name, fingerprint in used.items():
        if wanted.get(name) != fingerprint:
            raise DataError(
                f"{where}: codes of `{name}` were made by the tokenizer {fingerprint}, this recipe's is "
                f"{wanted.get(name, 'missing')}; give its plugin the options it had, or tokenise into another folder "
                "(`runtime.tokens`)"
            )


def write_index(folder: Path, index: TokenIndex) -> None:
    """Marks a folder of shards as complete."""
    write_summed(folder / INDEX, asdict(index))


def open_tokens(folder: Path, hashes: FileHashes | None = None) -> tuple[TokenisedSource, TokenIndex] | None:
    """The records of a complete folder of shards; None if it is not complete. Raises `DataError` if it is damaged.

    `hashes` remember which shards were found whole.
    """
    if not (folder / INDEX).is_file():
        return None
    content = read_summed(folder / INDEX, ADVICE)
    try:
        index = TokenIndex(**content)
    except TypeError as error:
        raise DataError(f"{folder / INDEX}: is of another version of mio; {ADVICE}") from error
    return TokenisedSource(folder, index, hashes), index


class TokenStore:
    """Finds the shards of a recipe's sources, and knows what the sources consist of.

    Args:
        root: the folder of all tokenised sources.
        fingerprints: of the tokenizers at hand (see `tokenizer_fingerprints`).
        text: fingerprint of the text tokenizer.
        tell: called with a line of progress from time to time while files are hashed.
        kept: modalities whose media are kept in shards, since networks read or make them.
        uncoded: those whose codes nothing needs: shards may have them of any tokenizer.
    """

    def __init__(
        self,
        root: Path,
        fingerprints: Mapping[str, str],
        text: str = "",
        tell: Callable[[str], None] = lambda _: None,
        kept: Sequence[str] = (),
        uncoded: Sequence[str] = (),
    ) -> None:
        self.root = root
        self._kept = kept
        self._uncoded = uncoded
        self.hashes = FileHashes(root / HASHES, tell)
        self.known: dict[str, str] = {}
        """Fingerprints of sources by label, as another process found them."""
        self.opened: dict[str, Source] = {}
        """Sources by label that are open already."""
        self.contents: dict[str, SourceContent] = {}
        """Of the sources at hand, by label."""
        self._fingerprints = fingerprints
        self._text = text
        self.incomplete: list[str] = []
        """Folders that hold some of a source's shards, but not all."""

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        plugins: EnabledPlugins,
        codecs: Codecs,
        tell: Callable[[str], None] = lambda _: None,
    ) -> TokenStore:
        """The shards that serve a recipe."""
        fingerprints, text = tokenizer_fingerprints(plugins, codecs), codecs.text.fingerprint
        return cls(Path(recipe.runtime.tokens), fingerprints, text, tell, codecs.kept, codecs.uncoded)

    def find(self, label: str, config: SourceConfig, raw: Source | None) -> TokenisedSource | None:
        """The shards of a source, or None if there are none.

        Raises `DataError` if they were made by another tokenizer, or of other content than `raw` has; `raw` is None
        where the source itself is not at hand.
        """
        content: SourceContent | None = None
        if raw is not None:
            content = self.contents[label] = SourceContent(raw, self.hashes, self.known.get(label))
        folder = source_folder(self.root, config, self._kept)
        opened = open_tokens(folder, self.hashes)
        if opened is None:
            if (folder / SOURCE).is_file() and str(folder) not in self.incomplete:
                self.incomplete.append(str(folder))
            return None
        source, index = opened
        if index.source not in ("", source_digest(config, index.shard_records, self._kept)):
            raise DataError(f"{label}: {folder / INDEX} is of another source; {ADVICE}")
        used = {name: fingerprint for name, fingerprint in index.tokenizers.items() if name not in self._uncoded}
        refuse_other_tokenizers(f"{label}: {folder}", used, self._fingerprints)
        if content is not None:
            self._refuse_changes(label, folder, index, content)
        source.text = self._text
        source.name_record = getattr(raw, "locate", source.name_record)
        source.notes = list(getattr(raw, "notes", ()))
        return source

    def fingerprint(self, label: str, records: Source) -> str:
        """Fingerprint of a source's content, as it is or as it was tokenised."""
        content = self.contents.get(label)
        return str(getattr(records, "fingerprint", "")) if content is None else content.fingerprint

    def _refuse_changes(self, label: str, folder: Path, index: TokenIndex, content: SourceContent) -> None:
        records = len(content.records) if isinstance(content.records, Sized) else index.records
        # of a source that says nothing of its content, only the number of records is known
        if records == index.records and content.fingerprint in ("", index.content):
            return
        reason = f"{index.records} records then, {records} now"
        if records == index.records:
            reason = told_changes(changes_since(folder, content)) or "its content differs"
        raise DataError(
            f"{label}: the source has changed since it was tokenised ({reason}); give `mio tokenize` again, or delete "
            f"{folder}"
        )


def changes_since(folder: Path, content: SourceContent) -> list[str]:
    """Files of a source that have changed since it was tokenised; none where nothing tells."""
    try:
        return FileList.from_json(read_summed(folder / FILES, ADVICE)).changes(content.files)
    except (DataError, KeyError, TypeError, ValueError):
        return []
