"""The file format of a shard: a preamble, a header in JSON, and named arrays. Free of torch at import.

    8 bytes    magic
    4 bytes    size of the header in bytes, little endian
    16 bytes   BLAKE2b of the header
    header     JSON, padded with spaces so that the arrays start at a multiple of 64
    arrays     little endian, each at a multiple of 64 from the arrays' start

The header says under `arrays` where each array lies (`[offset, dtype, size]`) and under `checksum` the XXH3-128 of all
that follows it. Nothing in a shard depends on when, where or by how many processes it was written.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from mio.core.data.hashing import FileHashes, State
from mio.core.errors import DataError
from mio.core.files import write_bytes

MAGIC = b"MIOCODES"
VERSION = 3
SUFFIX = ".shard"
DTYPES = ("uint8", "uint16", "uint32", "uint64")

_ALIGNMENT = 64
_CHECKED = "shard"
"""Kind of what is remembered of a shard's file: the checksum that its arrays were found to have."""
_PREAMBLE = len(MAGIC) + 4 + 16

Array = npt.NDArray[Any]


def code_dtype(codebooks: tuple[int, ...]) -> str:
    """`uint16` where every code fits, else `uint32`."""
    return "uint16" if max(codebooks) <= 1 << 16 else "uint32"


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"{number:06d}{SUFFIX}"


def write_shard(path: Path, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Writes a shard whole or not at all; returns its header, with `arrays` and `checksum` added.

    The file is written beside its place, synchronised and renamed, so that a process that is killed leaves either the
    whole shard or none. Processes that write the same shard at the same time do no harm to each other.
    """
    places: dict[str, tuple[int, str, int]] = {}
    pieces: list[bytes] = []
    size = 0
    for name, array in arrays.items():
        content = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
        places[name] = (size, array.dtype.name, array.size)
        pieces += [content, b"\0" * (-len(content) % _ALIGNMENT)]
        size += len(content) + len(pieces[-1])
    payload = b"".join(pieces)
    full = {**header, "version": VERSION, "arrays": places, "checksum": _digest(payload)}
    text = json.dumps(full, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(_PREAMBLE + len(text)) % _ALIGNMENT)
    preamble = MAGIC + len(text).to_bytes(4, "little") + hashlib.blake2b(text, digest_size=16).digest()
    write_bytes(path, preamble + text + payload)
    written: dict[str, Any] = json.loads(text)
    return written


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Header of a shard and where its arrays start. Raises `DataError` if it is no whole shard of this format."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; give `mio tokenize` again")
    try:
        with path.open("rb") as file:
            preamble = file.read(_PREAMBLE)
            if len(preamble) < _PREAMBLE or not preamble.startswith(MAGIC):
                raise DataError(f"{path}: is no token shard; delete it and give `mio tokenize` again")
            size = int.from_bytes(preamble[len(MAGIC) : len(MAGIC) + 4], "little")
            text = file.read(size)
            length = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if hashlib.blake2b(text, digest_size=16).digest() != preamble[len(MAGIC) + 4 :]:
        raise DataError(f"{path}: its header is damaged; give `mio tokenize` again")
    header: dict[str, Any] = json.loads(text)
    if header["version"] != VERSION:
        raise DataError(
            f"{path}: has version {header['version']} of the format, this mio reads {VERSION}; tokenise again"
        )
    end = max(
        (offset + size * np.dtype(dtype).itemsize for offset, dtype, size in header["arrays"].values()), default=0
    )
    start = _PREAMBLE + len(text)
    if length < start + end:
        raise DataError(f"{path}: is cut short, {length} bytes of {start + end}; give `mio tokenize` again")
    return header, start


def verify(path: Path, hashes: FileHashes | None = None) -> dict[str, Any]:
    """Header of a shard whose every byte was checked, now or, as `hashes` remember, since it last changed.

    Raises `DataError` if one is wrong.
    """
    return read_checked(path, hashes)[0]


def read_checked(path: Path, hashes: FileHashes | None = None) -> tuple[dict[str, Any], int]:
    """As `read_header`, of a shard whose every byte was checked (see `verify`)."""
    header, start = read_header(path)
    try:
        before = State.of(path.stat())
        name = str(path.absolute())
        if hashes is not None and hashes.recall(_CHECKED, {name: before}).get(name) == header["checksum"]:
            return header, start
        now, digest = time.time_ns(), xxhash.xxh3_128()
        with path.open("rb") as file:
            file.seek(start)
            while chunk := file.read(1 << 22):
                digest.update(chunk)
            after = State.of(os.fstat(file.fileno()))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if digest.hexdigest() != header["checksum"]:
        raise DataError(f"{path}: its content is damaged; give `mio tokenize` again")
    if hashes is not None and before == after and before.settled(now):
        hashes.note(_CHECKED, [(name, before, header["checksum"])])
    return header, start


def map_arrays(path: Path, header: Mapping[str, Any], start: int) -> dict[str, Array]:
    """The arrays of a shard, mapped into memory and read-only."""
    import torch

    # maps made by numpy or Python keep a file descriptor each, and thousands of shards more than a process may have
    mapped = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8).numpy()
    mapped.flags.writeable = False
    arrays: dict[str, Array] = {}
    for name, (offset, dtype, size) in header["arrays"].items():
        if dtype not in DTYPES:
            raise DataError(f"{path}: array `{name}` is of the unknown type `{dtype}`")
        begin = start + offset
        raw = mapped[begin : begin + size * np.dtype(dtype).itemsize]
        native = sys.byteorder == "little"
        arrays[name] = raw.view(dtype) if native else raw.view(np.dtype(dtype).newbyteorder("<")).astype(dtype)
    return arrays


def _digest(content: bytes) -> str:
    return xxhash.xxh3_128(content).hexdigest()
