"""Collects the records of one shard and writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mio.core.contract.values import Modality
from mio.core.data.partial import Failed
from mio.core.data.shards.format import code_dtype, write_shard
from mio.core.data.shards.kept import PREFIX
from mio.core.data.shards.shapes import FAILED_FIELD, UNUSABLE_FIELD, RecordShape, Unstorable, take_apart, to_json
from mio.core.errors import DataError

HOLE = 0xFFFFFFFF
"""In place of a record's shape: there is no record."""


class _Items:
    """The distinct items of one modality."""

    def __init__(self, name: str, codebooks: tuple[int, ...], dtype: str) -> None:
        self.name = name
        self.codebooks = codebooks
        self.sizes = np.array(codebooks, dtype=np.int64)[:, None]
        self.dtype = dtype
        self.codes: list[npt.NDArray[Any]] = []
        self.ends = [0]
        self._numbers: dict[int, int] = {}
        self._given: list[Any] = []  # keeps the arrays alive whose addresses are keys

    def number(self, codes: Any) -> int:
        """Number of an item; an array that is given twice is stored once. Raises `DataError` if the codes are wrong."""
        known = self._numbers.get(id(codes))
        if known is not None:
            return known
        array = np.asarray(codes)
        books = len(self.codebooks)
        if array.ndim != 2 or len(array) != books or array.dtype.kind not in "iu":
            raise DataError(
                f"`{self.name}`: codes are {array.dtype} {list(array.shape)}, they must be integers of shape "
                f"[{books}, frames]"
            )
        if array.size and ((array < 0) | (array >= self.sizes)).any():
            raise DataError(f"`{self.name}`: holds a code outside its codebook")
        self.codes.append(array.astype(self.dtype).ravel())
        self.ends.append(self.ends[-1] + array.size)
        self._given.append(codes)
        self._numbers[id(codes)] = len(self.codes) - 1
        return len(self.codes) - 1


class ShardWriter:
    """Records `first`, `first + 1`, ... of a source, added one by one.

    Args:
        modalities: declarations by name.
        fingerprints: of the tokenizer of each modality, those of parts included.
        first: index of the first record in the source.
    """

    def __init__(self, modalities: Mapping[str, Modality], fingerprints: Mapping[str, str], first: int = 0) -> None:
        self.first = first
        self.records = 0
        self.failed: list[tuple[int, str, str]] = []
        """(index in the source, field, reason) of what could not be tokenised; a whole record has the field ``."""
        self.dropped: list[tuple[int, str]] = []
        """(index in the source, reason) of records that a filter left out."""
        self.unstorable: dict[str, int] = {}
        """Fields that hold neither content nor structure, with their type, and how many records have them."""
        self._items = {
            name: _Items(name, declared.codebooks, code_dtype(declared.codebooks))
            for name, declared in modalities.items()
            if declared.codebooks
        }
        self._items |= {f"{PREFIX}{name}": _Items(f"{PREFIX}{name}", (256,), "uint8") for name in modalities}
        self._fingerprints = fingerprints
        self._shapes: dict[str, int] = {}
        self._shape_of: list[int] = []
        self._keys: list[int] = []
        self._text: list[bytes] = []
        self._text_at, self._item_at, self._refs = [0], [0], list[int]()

    def add(self, record: Mapping[str, Any], key: int = 0) -> None:
        """Adds a record whose media are codes, and its key (see `mio.core.data.held_out`). A field of `Failed` is a
        hole of that field."""
        shape: dict[str, Any] = {}
        for name, value in record.items():
            texts: list[str] = []
            items: list[tuple[str, Any]] = []
            try:
                if isinstance(value, Failed):
                    raise Unstorable(value.kind) if value.kind else DataError(value.reason)
                shape[name] = to_json(take_apart(value, texts, items))
                refs = [self._items[modality].number(codes) for modality, codes in items]
                content = [text.encode() for text in texts]
            except Unstorable as error:
                self.note(f"{name} ({error})")
                shape[name] = [UNUSABLE_FIELD, str(error)]
            except (DataError, UnicodeEncodeError) as error:
                self.failed.append((self.first + self.records, name, str(error)))
                shape[name] = FAILED_FIELD
            else:
                self._refs += refs
                self._text += content
        shape_key = json.dumps(shape, ensure_ascii=False, separators=(",", ":"))
        self._close(self._shapes.setdefault(shape_key, len(self._shapes)), key)

    def note(self, label: str) -> None:
        """Counts a record that holds something which no template could use."""
        self.unstorable[label] = self.unstorable.get(label, 0) + 1

    def fail(self, reason: str) -> None:
        """In place of a record that cannot be read."""
        self.failed.append((self.first + self.records, "", reason))
        self._close(HOLE)

    def drop(self, reason: str) -> None:
        """In place of a record that a filter leaves out."""
        self.dropped.append((self.first + self.records, reason))
        self._close(HOLE)

    def _close(self, shape: int, key: int = 0) -> None:
        self._shape_of.append(shape)
        self._keys.append(key)
        self._text_at.append(len(self._text))
        self._item_at.append(len(self._refs))
        self.records += 1

    def write(self, path: Path, header: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the shard; `header` is added to what the writer knows. Returns the whole header."""
        shapes = [shape.encode() for shape in self._shapes]
        parts = {name for shape in self._shapes for name in RecordShape(json.loads(shape)).parts}
        used = {name: items for name, items in self._items.items() if items.codes}
        arrays: dict[str, npt.NDArray[Any]] = {
            "shape_of": np.array(self._shape_of, np.uint32),
            "keys": np.array(self._keys, np.uint64),
            "text_at": np.array(self._text_at, np.uint32),
            "item_at": np.array(self._item_at, np.uint32),
            "items": np.array(self._refs, np.uint32),
            "text_ends": _ends(self._text),
            "shape_ends": _ends(shapes),
            "shapes": np.frombuffer(b"".join(shapes), np.uint8),
            "text": np.frombuffer(b"".join(self._text), np.uint8),
        }
        for name, items in used.items():
            arrays[f"ends/{name}"] = np.array(items.ends, np.uint64)
            arrays[f"codes/{name}"] = np.concatenate(items.codes)
        content = {
            "first": self.first,
            "records": self.records,
            "failed": self.failed,
            "dropped": self.dropped,
            "unstorable": dict(sorted(self.unstorable.items())),
            "modalities": {
                name: {"codebooks": list(items.codebooks), "items": len(items.codes)} for name, items in used.items()
            },
            "tokenizers": {
                name: self._fingerprints[name] for name in sorted({*used, *parts}) if not name.startswith(PREFIX)
            },
        }
        return write_shard(path, {**header, **content}, arrays)


def _ends(pieces: list[bytes]) -> npt.NDArray[np.uint64]:
    """Where each piece starts, and the end of the last."""
    return np.cumsum([0, *map(len, pieces)]).astype(np.uint64)
