"""A short name for what a value consists of, the same in every process, by which records and arrays are compared."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mio.core.contract.values import MemoryFile


def digest(value: Any) -> str:
    """Of arrays, texts, numbers, files, media, and lists, mappings and dataclasses of these.

    Of an object that is none of these it knows the type alone: what else there is of it (a place in memory, an order of
    a set) may differ between processes without a fault.
    """
    made = hashlib.blake2b(digest_size=12)
    for piece in _pieces(value):
        made.update(len(piece).to_bytes(8, "little") + piece)
    return made.hexdigest()


def _pieces(value: Any) -> Iterator[bytes]:
    match value:
        case str():
            yield b"s" + value.encode(errors="surrogatepass")
        case bytes():
            yield b"b" + value
        case None | bool() | int() | float() | complex():
            yield repr(value).encode()
        case Path():
            yield b"f" + (value.read_bytes() if value.is_file() else str(value).encode())
        case MemoryFile(content, _):
            yield b"f" + content
        case range():
            yield repr(value).encode()
        case Mapping():
            for name in sorted(value, key=repr):
                yield from _pieces(name)
                yield from _pieces(value[name])
            yield b"m%d" % len(value)
        case list() | tuple():
            for item in value:
                yield from _pieces(item)
            yield b"l%d" % len(value)
        case set() | frozenset():
            yield from sorted(digest(item).encode() for item in value)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield type(value).__qualname__.encode()
            for field in dataclasses.fields(value):
                yield from _pieces(getattr(value, field.name))
        case _:
            yield from _of_array(value)


def _of_array(value: Any) -> Iterator[bytes]:
    if isinstance(value, np.ndarray | np.generic) or any(
        hasattr(value, name) for name in ("__array__", "__array_interface__")
    ):
        array = np.asarray(value)
        if array.dtype.kind != "O":
            yield f"a{array.dtype.str}{array.shape}".encode()
            yield np.ascontiguousarray(array).tobytes()
            return
    yield type(value).__qualname__.encode()
