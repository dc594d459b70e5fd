"""Media to codes, many at a time: their files opened, encoded in bounded batches, and what fails told item by item."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mio.core.contract.values import CodeArray, DataModule, Media, MemoryFile, Tokenizer
from mio.core.errors import DataError, PluginError, UserError
from mio.core.files import regular_file
from mio.core.tokens.temporary import temporary_file

BATCH = 64
"""Items that are encoded together."""
BATCH_BYTES = 256 << 20
"""Size of their media in memory at which a batch is closed before it is full."""
_CHUNK = 1 << 20


def is_file(media: Media) -> bool:
    """Whether the data of an item are a file that has to be read."""
    return isinstance(media.data, Path | MemoryFile)


def opened(media: Media, module: DataModule, read: Callable[[Any], Any] | None) -> Media:
    """Media whose file is read by `read`, a function of its data module. Raises `DataError` if that cannot be done, and
    `PluginError` where there is no such function."""
    if not is_file(media):
        return media
    if read is None:
        raise PluginError(f"no plugin reads files of `{media.modality}`")
    file = media.data
    if isinstance(file, Path):
        regular_file(file)
    elif not module.in_memory:
        file = temporary_file(file.content, file.suffix)
    try:
        data = read(file)
    except DataError as error:
        raise error if f"{file}" in f"{error}" else DataError(f"{file}: {error}") from error
    except UserError:
        raise
    except Exception as error:
        raise DataError(f"{file}: cannot be read as {media.modality}: {error}") from error
    return Media(media.modality, data, media.key, media.label)


def check_present(media: Media) -> None:
    """Raises `DataError` if the file of an item is gone, or the system does not give its bytes: a disk's fault, not the
    content's, and gone again at another time."""
    if not isinstance(media.data, Path):
        return
    try:
        regular_file(media.data)
        with media.data.open("rb") as file:
            while file.read(_CHUNK):
                pass
    except (OSError, DataError) as error:
        why = error.strerror if isinstance(error, OSError) else f"{error}".removeprefix(f"{media.data}: ")
        raise DataError(
            f"{media.data}: cannot be read any more ({why}); when it is back, the same command goes on from the last "
            "checkpoint"
        ) from error


def encode(tokenizer: Tokenizer, modality: str, data: Sequence[Any]) -> list[CodeArray | Exception]:
    """Codes of each item, encoded together. Where that fails, each is encoded by itself, so that one costs no other,
    and an item that cannot be has its error. Raises `PluginError` for another number of arrays than there are items."""
    results: list[Any]
    try:
        results = list(tokenizer.encode(data)) if data else []
    except Exception:
        results = []
        for item in data:
            try:
                results += tokenizer.encode([item])
            except Exception as error:
                results.append(error)
    if len(results) != len(data):
        raise PluginError(f"the tokenizer of `{modality}` gave {len(results)} code arrays for {len(data)} media")
    return results


def batches(items: Sequence[Media], read: Callable[[Media], Media | DataError]) -> Iterator[list[Media | DataError]]:
    """Items in their order, read, as many at a time as are encoded together."""
    batch: list[Media | DataError] = []
    size = 0
    for item in items:
        batch.append(read(item))
        last = batch[-1]
        size += size_of(last.data) if isinstance(last, Media) else 0
        if len(batch) == BATCH or size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def size_of(media: Any) -> int:
    """Bytes of the arrays that media consist of."""
    if isinstance(media, np.ndarray):
        return int(media.nbytes)
    if isinstance(media, list | tuple):
        return sum(size_of(part) for part in media)
    return 0


def int64(codes: Any) -> CodeArray:
    """Codes of any integer type as int64; what are no integers unchanged."""
    array: CodeArray = np.asarray(codes)
    return array.astype(np.int64, copy=False) if array.dtype.kind in "iu" else array
