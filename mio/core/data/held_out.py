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

from mio.core.contract.controls import Control
from mio.core.contract.values import Codes, Media, MemoryFile, Record
from mio.core.data.hashing import FileHashes
from mio.core.errors import DataError
from mio.core.tokens.visitor import Visitor

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
    found = _Content(hashes)
    for name in sorted(content):
        found.of(name, content[name])
    pieces = [*found.texts, *found.of_media] if by else found.of_media or found.texts
    digest = xxhash.xxh3_64()
    for piece in pieces:
        digest.update(len(piece).to_bytes(8, "little") + piece)
    return digest.intdigest()


class _Content(Visitor[None]):
    """What fields consist of, in order."""

    def __init__(self, hashes: FileHashes) -> None:
        self._hashes = hashes
        self._name = ""
        self.of_media: list[bytes] = []
        self.texts: list[bytes] = []

    def of(self, name: str, value: object) -> None:
        """Adds the content of a field."""
        outer, self._name = self._name, name
        self.visit(value)
        self._name = outer

    def text(self, text: str) -> None:
        self._add(text)

    def number(self, number: Real) -> None:
        self._add(number)

    def constant(self, constant: bool | None) -> None:
        if constant is not None:
            self._add(constant)

    def control(self, control: Control) -> None:
        self._add(control.name)

    def media(self, media: Media) -> None:
        self.of_media.append(_identity(media, self._hashes))

    def codes(self, codes: Codes) -> None:
        grid = np.asarray(codes.codes).astype(np.int64)
        self.of_media.append(repr((grid.shape, codes.codebooks)).encode() + grid.tobytes())

    def mapping(self, values: Mapping[str, Any]) -> None:
        outer = self._name
        for inner in sorted(values):
            self.of(f"{outer}.{inner}", values[inner])

    def sequence(self, values: Sequence[Any]) -> None:
        for value in values:
            self.visit(value)

    def other(self, value: object) -> None:
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self._add(f"{value.dtype.str} {value.shape} {xxhash.xxh3_128(value.tobytes()).hexdigest()}")
            return
        self._add(type(value).__name__)  # its text may name a place in memory

    def _add(self, text: object) -> None:
        self.texts.append(f"{self._name}\0{text}".encode(errors="surrogatepass"))


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
