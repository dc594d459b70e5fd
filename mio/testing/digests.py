"""A short name for what a value consists of, the same in every process, by which records and arrays are compared."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np

from mio.core.contract.values import MemoryFile


def digest(value: Any, inside: bool = False) -> str:
    """Of arrays, texts, numbers, files, media, and lists, mappings and dataclasses of these.

    Of an object that is none of these it knows the type alone: what else there is of it (a place in memory, say) may
    differ between processes without a fault. `inside`: what `pickle` would keep of it counts as well. Raises then what
    the object raises when it is pickled, and `RecursionError` for one that holds itself.
    """
    made = hashlib.blake2b(digest_size=12)
    for piece in _pieces(value, inside):
        made.update(len(piece).to_bytes(8, "little") + piece)
    return made.hexdigest()


def _pieces(value: Any, inside: bool) -> Iterator[bytes]:
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
                yield from _pieces(name, inside)
                yield from _pieces(value[name], inside)
            yield b"m%d" % len(value)
        case list() | tuple():
            for item in value:
                yield from _pieces(item, inside)
            yield b"l%d" % len(value)
        case set() | frozenset():
            yield from sorted(digest(item, inside).encode() for item in value)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield type(value).__qualname__.encode()
            for field in dataclasses.fields(value):
                yield from _pieces(getattr(value, field.name), inside)
        case _:
            yield from _of_object(value, inside)


def _of_object(value: Any, inside: bool) -> Iterator[bytes]:
    if isinstance(value, np.ndarray | np.generic) or any(
        hasattr(value, name) for name in ("__array__", "__array_interface__")
    ):
        array = np.asarray(value)
        if array.dtype.kind != "O":
            yield f"a{array.dtype.str}{array.shape}".encode()
            yield np.ascontiguousarray(array).tobytes()
            return
    yield type(value).__qualname__.encode()
    if inside:
        yield from _kept(value)


def _kept(value: Any) -> Iterator[bytes]:
    """What `pickle` would keep of an object, by its content: whatever the order of a set in it is."""
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        yield value.__qualname__.encode()
        return
    reduced: Any = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    if isinstance(reduced, str):
        yield reduced.encode()
        return
    arguments, state, items, pairs = [*reduced[1:5], None, None, None][:4]
    for part in (arguments, state, list(items or ()), list(pairs or ())):
        yield from _pieces(part, inside=True)
