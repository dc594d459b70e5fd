"""Which records are never trained on: a share of them, chosen by keys that are made of their content. Free of torch.

A record's key is a hash of its media or, where it has none, of its texts; or of the fields that the recipe names. It
knows neither the record's place nor its file, so a record stays on its side when files grow, are put into another order
or are split, and duplicates are on one side. A file of media counts by its bytes, wherever it lies. Held out are the
records whose key, as a number from 0 to 1, is below the share: a larger share holds out the same ones and more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from mio.core.contract.values import Codes, Media, MemoryFile, Record
from mio.core.data.hashing import FileHashes
from mio.core.errors import DataError

KEYS = 1 << 64
"""Keys are whole numbers below it."""


def record_key(record: Record, by: Sequence[str], hashes: FileHashes) -> int:
    """The key of a record as its reader makes it, media not tokenised: below `KEYS`, the same on any machine.

    Args:
        by: fields that it is made of; none: the media of all fields, or else all texts.
        hashes: of files, so that those that have not changed are not read.

    Raises:
        DataError: the record lacks one of the fields `by`.
    """
    for name in by:
        if name not in record:
            raise DataError(f"has no field `{name}`, by which `held_out_by` holds records out")
    content = {name: record[name] for name in by} if by else record
    media, texts = list[bytes](), list[bytes]()
    for name in sorted(content):
        _collect(content[name], name, media, texts, hashes)
    pieces = [*texts, *media] if by else media or texts
    digest = xxhash.xxh3_64()
    for piece in pieces:
        digest.update(len(piece).to_bytes(8, "little") + piece)
    return digest.intdigest()


def _collect(value: Any, name: str, media: list[bytes], texts: list[bytes], hashes: FileHashes) -> None:
    """Appends what a field's value consists of, in order."""
    if isinstance(value, Media):
        media.append(_identity(value, hashes))
    elif isinstance(value, Codes):
        codes = np.asarray(value.codes).astype(np.int64)
        media.append(repr((codes.shape, value.codebooks)).encode() + codes.tobytes())
    elif isinstance(value, Mapping):
        for inner in sorted(value):
            _collect(value[inner], f"{name}.{inner}", media, texts, hashes)
    elif isinstance(value, list | tuple):
        for inner in value:
            _collect(inner, name, media, texts, hashes)
    elif value is not None:
        known = isinstance(value, str | Real)  # another object's text may name a place in memory
        texts.append(f"{name}\0{value if known else type(value).__name__}".encode(errors="surrogatepass"))


def _identity(media: Media, hashes: FileHashes) -> bytes:
    # readers name a file by its path and times, which a copy of the data would not keep
    if isinstance(media.data, Path) and media.key.startswith(f"{media.data}#"):
        return hashes.of([media.data])[0].encode()
    if isinstance(media.data, MemoryFile):  # the same content as a file of its own has the same key
        return xxhash.xxh3_128(media.data.content).hexdigest().encode()
    return media.key.encode(errors="surrogatepass")


@dataclass(frozen=True)
class HeldOut:
    """Tells which records of a source are held out."""

    share: float
    by: tuple[str, ...]
    hashes: FileHashes
    stored: Callable[[int], int] | None = None
    """Keys by index, where shards hold them: these were made of what was tokenised."""

    def __call__(self, index: int, record: Record) -> bool:
        """Whether a record, and its index in the source, is held out. Raises `DataError` as `record_key` does."""
        key = record_key(record, self.by, self.hashes) if self.stored is None else self.stored(index)
        return key < self.share * KEYS
