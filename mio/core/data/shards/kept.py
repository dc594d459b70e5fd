"""Media that shards keep as they are, for encoders: where their file is, or its bytes, or the arrays that they are.

What is kept is one line of JSON, with all that is not bytes, and the bytes behind it. Free of torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mio.core.contract.values import Codes, Media, MemoryFile
from mio.core.errors import DataError

PREFIX = "@"
"""Begins the name under which shards hold the kept media of a modality, as if they were its codes."""

Kept = npt.NDArray[np.uint8]
"""`[1, bytes]`."""


@dataclass(frozen=True)
class KeptMedia:
    """An item on its way into a shard."""

    modality: str
    content: Kept
    """What `pack` made of it."""
    coded: Codes | Media | None = None
    """Its codes, of an item of parts as tokenised media; None where it has none."""


def pack(media: Media) -> Kept:
    """Raises `DataError` for media that consist of something else than files, arrays, plain values, and lists and
    tuples of these."""
    pieces: list[bytes] = []
    try:
        described = {"key": media.key, "label": media.label, "data": _described(media.data, pieces)}
    except TypeError as error:
        raise DataError(f"{media.key}: media of `{media.modality}` cannot be kept in a shard: {error}") from None
    line = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
    return np.frombuffer(b"".join((line, b"\n", *pieces)), np.uint8)[None]


def unpack(modality: str, kept: npt.NDArray[Any]) -> Media:
    """The media that `pack` was given. Arrays are read-only."""
    content = kept.tobytes()
    end = content.index(b"\n")
    described = json.loads(content[:end].decode(errors="surrogatepass"))
    return Media(modality, _restored(described["data"], _Bytes(content, end + 1)), described["key"], described["label"])


class _Bytes:
    """Bytes that are taken from the front."""

    def __init__(self, content: bytes, at: int) -> None:
        self._content = content
        self._at = at

    def take(self, size: int) -> bytes:
        self._at += size
        return self._content[self._at - size : self._at]


def _described(data: Any, pieces: list[bytes]) -> Any:
    match data:
        case Path():
            return {"file": str(data.absolute())}
        case MemoryFile(content, suffix):
            pieces.append(content)
            return {"bytes": len(content), "suffix": suffix}
        case np.ndarray() if data.dtype.kind in "biuf":
            little = np.ascontiguousarray(data, data.dtype.newbyteorder("<"))
            pieces.append(little.tobytes())
            return {"array": [little.dtype.str, list(data.shape)]}
        case np.bool_() | np.integer() | np.floating():
            return {"number": [data.dtype.newbyteorder("<").str, data.item()]}
        case list() | tuple():
            return {type(data).__name__: list(_all_described(data, pieces))}
        case None | bool() | int() | float() | str():
            return {"value": data}
    raise TypeError(f"they hold a {type(data).__name__}")


def _all_described(values: Any, pieces: list[bytes]) -> Iterator[Any]:
    for value in values:
        yield _described(value, pieces)


def _restored(described: Any, content: _Bytes) -> Any:
    match described:
        case {"file": name}:
            return Path(name)
        case {"bytes": size, "suffix": suffix}:
            return MemoryFile(content.take(size), suffix)
        case {"array": [kind, shape]}:
            dtype = np.dtype(kind)
            array = np.frombuffer(content.take(dtype.itemsize * int(np.prod(shape))), dtype)
            return array.reshape(shape).astype(dtype.newbyteorder("="), copy=False)
        case {"number": [kind, value]}:
            return np.dtype(kind).newbyteorder("=").type(value)
        case {"list": values}:
            return [_restored(value, content) for value in values]
        case {"tuple": values}:
            return tuple(_restored(value, content) for value in values)
    return described["value"]
