"""The folder of tokenised sources: who may read which shards. Free of torch at import.

tokens/NAME-SPLIT-DIGEST/     one source: dataset, split, options and filters
    source.json               what was tokenised, written before the first shard
    000000.shard ...
    index.json                the shards with their checksums, written after the last: the source is complete
tokens/tokenizers/DIGEST/     tokenizers that `mio tokenize` trained
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mio.core.codecs import Codecs
from mio.core.data.config import SourceConfig
from mio.core.data.shards.reader import TokenisedSource
from mio.core.errors import DataError
from mio.core.modality import Source
from mio.core.plugins import EnabledPlugins

SOURCE, INDEX = "source.json", "index.json"


@dataclass(frozen=True)
class TokenIndex:
    """What `index.json` holds."""

    records: int
    shard_records: int
    content: str
    """Fingerprint of the source, where it has one."""
    tokenizers: dict[str, str]
    """Fingerprint by modality, of those that occur."""
    failed: int
    """Records of which at least one field could not be tokenised."""
    dropped: dict[str, int]
    """Records that filters left out, by reason."""
    shards: list[str]
    """Checksum of each shard."""


def source_folder(root: Path, config: SourceConfig) -> Path:
    """Where the shards of a source of a recipe are: its name is a function of what is read, not of how it is used."""
    told = {key: value for key, value in asdict(config).items() if key in ("dataset", "split", "options", "filters")}
    digest = hashlib.blake2b(json.dumps(told, sort_keys=True, default=str).encode(), digest_size=6).hexdigest()
    return root / f"{config.dataset.replace('/', '-')}-{config.split}-{digest}"


def tokenizer_fingerprints(plugins: EnabledPlugins, codecs: Codecs) -> dict[str, str]:
    """Fingerprint of every tokenizer whose work is in shards. How media fall into parts is told by their options."""
    found = {name: made for name, made in codecs.fingerprints().items() if not codecs.modalities[name].text}
    for owner, declared in plugins.modalities():
        if declared.parts:
            told = json.dumps(plugins.options[owner], sort_keys=True, default=str).encode()
            own = getattr(codecs.tokenizer(declared.name), "fingerprint", "")
            found[declared.name] = own or f"options-{hashlib.blake2b(told, digest_size=6).hexdigest()}"
    return found


def refuse_other_tokenizers(where: str, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raises `DataError` if codes were made by another tokenizer than the one at hand."""
    for name, fingerprint in found.items():
        if wanted.get(name) != fingerprint:
            raise DataError(
                f"{where}: codes of `{name}` were made by the tokenizer {fingerprint}, this recipe's is "
                f"{wanted.get(name, 'missing')}; give its plugin the options it had, or tokenise into another folder "
                "(`runtime.tokens`)"
            )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a small file whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=1, default=str), encoding="utf-8")
    partial.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Raises `DataError` if the file is damaged."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is damaged ({error}); delete it and give `mio tokenize` again") from error
    return content


def open_tokens(folder: Path) -> tuple[TokenisedSource, TokenIndex] | None:
    """The records of a complete folder of shards; None if it is not complete. Raises `DataError` if it is damaged."""
    if not (folder / INDEX).is_file():
        return None
    content = read_json(folder / INDEX)
    try:
        index = TokenIndex(**content)
    except TypeError as error:
        raise DataError(f"{folder / INDEX}: is of another version of mio; delete it and tokenise again") from error
    return TokenisedSource(folder, index.records, index.shard_records, index.content, index.shards), index


class TokenStore:
    """Finds the shards of a recipe's sources.

    Args:
        root: the folder of all tokenised sources.
        fingerprints: of the tokenizers at hand (see `tokenizer_fingerprints`).
        text: fingerprint of the text tokenizer.
    """

    def __init__(self, root: Path, fingerprints: Mapping[str, str], text: str = "") -> None:
        self.root = root
        self._fingerprints = fingerprints
        self._text = text
        self.incomplete: list[str] = []
        """Folders that hold some of a source's shards, but not all."""

    def find(self, label: str, config: SourceConfig, raw: Source | None) -> TokenisedSource | None:
        """The shards of a source, or None if there are none.

        Raises `DataError` if they were made by another tokenizer, or of other content than `raw` has; `raw` is None
        where the source itself is not at hand.
        """
        folder = source_folder(self.root, config)
        opened = open_tokens(folder)
        if opened is None:
            if (folder / SOURCE).is_file():
                self.incomplete.append(str(folder))
            return None
        source, index = opened
        refuse_other_tokenizers(f"{label}: {folder}", index.tokenizers, self._fingerprints)
        if isinstance(raw, Sized) and (
            len(raw) != index.records or getattr(raw, "fingerprint", index.content) != index.content
        ):
            raise DataError(
                f"{label}: the source has changed since it was tokenised ({index.records} records then, {len(raw)} "
                f"now); give `mio tokenize` again, or delete {folder}"
            )
        source.text = self._text
        source.name_record = getattr(raw, "locate", source.name_record)
        return source
