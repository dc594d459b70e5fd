"""Checksums: of files, and of JSON that carries its own. They tell damage and mix-ups, not forgery. Free of torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xxhash

from mio.core.errors import DataError
from mio.core.files import read_json, write_json, write_text

CHECKSUM = "checksum"
"""Key of a JSON object that holds the sum of all its other keys."""

_BLOCK = 64 << 20
_PIECE = 4 << 20
_THREADS = 8


def file_sum(path: Path) -> str:
    """XXH3 (128 bits, hexadecimal) of a file's length and of the sums of its blocks of 64 MiB.

    Blocks are summed side by side: weights of many gigabytes are read about as fast as the disk gives them.
    """
    with path.open("rb", buffering=0) as file:
        number = file.fileno()
        size = os.fstat(number).st_size
        starts = range(0, size, _BLOCK)
        if len(starts) < 2:
            sums = [_block_sum(number, start) for start in starts]
        else:
            with ThreadPoolExecutor(min(len(starts), os.cpu_count() or 1, _THREADS)) as pool:
                sums = list(pool.map(lambda start: _block_sum(number, start), starts))
    return xxhash.xxh3_128_hexdigest(b"".join([size.to_bytes(8, "little"), *sums]))


def _block_sum(number: int, start: int) -> bytes:
    digest, at = xxhash.xxh3_128(), start
    while at < start + _BLOCK and (piece := os.pread(number, min(_PIECE, start + _BLOCK - at), at)):
        digest.update(piece)
        at += len(piece)
    return digest.digest()


def json_sum(content: Mapping[str, Any]) -> str:
    """XXH3 of values that JSON can hold; the order of keys counts."""
    return xxhash.xxh3_128_hexdigest(json.dumps(content, separators=(",", ":")).encode())


def write_summed(path: Path, content: Mapping[str, Any], compact: bool = False) -> None:
    """Writes a JSON object with its own sum, whole or not at all; `compact` is not meant for people."""
    summed = {**content, CHECKSUM: json_sum(content)}
    if compact:
        write_text(path, json.dumps(summed, separators=(",", ":"), allow_nan=False))
    else:
        write_json(path, summed)


def read_summed(path: Path, advice: str) -> dict[str, Any]:
    """What `write_summed` wrote, without the sum. One that was written without a sum is read too.

    Raises:
        DataError: as `mio.core.files.read_json`, and where the content is another than its sum says.
    """
    content = read_json(path, advice)
    recorded = content.pop(CHECKSUM, None)
    if recorded is not None and recorded != json_sum(content):
        raise DataError(f"{path}: is damaged (its checksum is another); {advice}")
    return content
