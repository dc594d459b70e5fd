"""A world to tokenise in without weights: pictures whose codes are made of the bytes of their files.

Whether a shard holds what its source holds now can then be told without a tokenizer: the codes of a picture are the
first digits of its BLAKE2b.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mio.core.contract.values import Codes, Media, Modality, Record
from mio.core.data.hashing import FileHashes
from mio.core.data.readers import open_reader
from mio.core.data.readers.records import Kinds
from mio.core.data.shards.store import HASHES, TokenStore
from mio.core.data.shards.work import Job, ShardWorker, claim, finish, make_job, shards_there
from mio.core.data.sources import OpenSource
from mio.core.errors import UserError
from mio.core.recipe.data_schema import SourceConfig

MODALITIES = {
    "text": Modality(name="text", text=True),
    "image": Modality(name="image", codebooks=(256,), begin="<image>", end="</image>"),
}
KINDS = Kinds(MODALITIES, lambda: {"image": (".png", ".jpg")})
FINGERPRINTS = {"image": "digits-of-blake2b"}
FRAMES = 16


def codes_of(content: bytes) -> list[int]:
    """What stands for a picture: a function of every byte of its file."""
    return list(hashlib.blake2b(content, digest_size=FRAMES).digest())


class Text:
    """Bytes as tokens."""

    fingerprint = "bytes"
    size = 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


class Images:
    """Bytes of files to codes."""

    def encode(self, media: Sequence[Any]) -> list[Any]:
        return [np.array([codes_of(content)]) for content in media]


class Tokenizers:
    """What tokenising asks of `mio.core.tokens.codecs.Codecs`."""

    modalities = MODALITIES
    text = Text()
    readers: Mapping[str, Any] = {}
    kept: tuple[str, ...] = ()

    def is_coded(self, modality: str) -> bool:  # noqa: ARG002
        return True

    def fingerprints(self) -> dict[str, str]:
        return {"text": "bytes", **FINGERPRINTS}

    def tokenizer(self, modality: str) -> Images:  # noqa: ARG002
        return Images()

    def originals(self, media: Sequence[Media]) -> list[bytes]:
        return [one.data.read_bytes() for one in media]

    def decode(self, modality: str, codes: Any) -> Any:
        raise UserError(f"nothing draws `{modality}` from {len(codes)} codebooks")


class Plugins:
    """What tokenising asks of the enabled plugins."""

    options: Mapping[str, Any] = {}

    def control_tokens(self) -> list[Any]:
        return []

    def modalities(self) -> list[tuple[str, Modality]]:
        return list(MODALITIES.items())

    def filters(self) -> dict[str, Any]:
        return {}


def worker() -> ShardWorker:
    return ShardWorker(Plugins(), Tokenizers())  # type: ignore[arg-type]


def job_of(root: Path, reader: str, options: Mapping[str, Any], size: int) -> Job:
    """The job of a source, opened now."""
    config = SourceConfig(reader, options=dict(options))
    records = open_reader(reader, "train", config.options, KINDS)
    source = OpenSource("group", "source", config, records, shipped=False)
    return make_job(root, source, size, FileHashes(root / HASHES))


def tokenise(root: Path, reader: str, options: Mapping[str, Any], size: int) -> tuple[Path, set[str]]:
    """What `mio tokenize` does for one source: (folder, names of the shards that were made)."""
    job = job_of(root, reader, options, size)
    claim(job)
    before = shards_there(job)
    shards = worker().run(job, 0, 1, lambda: None, lambda _: None)
    finish(job, shards)
    return job.folder, {name for name, state in shards_there(job).items() if before.get(name) != state}


def read(root: Path, reader: str, options: Mapping[str, Any], raw: bool = True) -> list[Any]:
    """The records that a run reads from the shards, plain; a hole is the text of its reason.

    Args:
        raw: whether the source is at hand.

    Raises `LookupError` if there are no shards.
    """
    config = SourceConfig(reader, options=dict(options))
    records = open_reader(reader, "train", config.options, KINDS) if raw else None
    found = TokenStore(root, FINGERPRINTS, Text.fingerprint).find("group/source", config, records)
    if found is None:
        raise LookupError("there are no shards")
    return [plain(found[index]) for index in range(len(found))]


def plain(value: Any) -> Any:
    """A record as values that compare."""
    if isinstance(value, Codes):
        return np.asarray(value.codes).ravel().tolist()
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, str) and hasattr(value, "tokens"):
        # as it is trained: by its tokens
        return bytes(value.tokens.tolist()).decode(errors="replace")
    return value


def shards_of(folder: Path) -> dict[str, bytes]:
    """Content of every shard and of the tokens of its texts."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".shard", ".ids")}


__all__ = ["Record", "codes_of", "job_of", "plain", "read", "shards_of", "tokenise", "worker"]
