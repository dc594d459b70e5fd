"""JSON Lines: one record per line, found by an index of byte offsets. One JSON list of all records will do as well."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mio.core.contract.values import Record
from mio.core.data.contents import FileSource
from mio.core.data.readers.json_values import parse_object
from mio.core.data.readers.records import Kinds, RowReader
from mio.core.errors import DataError

CHUNK = 1 << 24
"""Bytes that are indexed at a time."""
_WHITE = b" \t\r"
"""White space within a line."""


class JsonLines(FileSource):
    """Records of a JSON Lines file: a broken line costs one record, not the file. Media are paths relative to it."""

    def __init__(self, path: Path, options: Mapping[str, Any], kinds: Kinds) -> None:
        """Raises `DataError` if the file is missing or empty."""
        if not path.is_file():
            raise DataError(f"{path}: no such file (relative paths start from {Path.cwd()}); correct the option `path`")
        self.files = [path]
        self._path = path
        self._rows = RowReader(options, kinds, path.parent)
        self.reading = self._rows.reading
        self._listed = _is_list(path)
        self._starts, self._stops, self._numbers = _index_list(path) if self._listed else _index_lines(path)
        if not len(self._starts):
            raise DataError(f"{path}: holds no records; give a file with one JSON object per line")

    def raw(self, start: int, stop: int) -> Iterator[bytes]:
        """The lines of a range of records, blank ones between them too, after the number of the first."""
        yield int(self._numbers[start]).to_bytes(8, "little")
        with self._path.open("rb") as file:
            file.seek(int(self._starts[start]))
            left = int(self._stops[stop - 1]) - file.tell()
            while left > 0 and (piece := file.read(min(CHUNK, left))):
                left -= len(piece)
                yield piece

    def __len__(self) -> int:
        return len(self._starts)

    def locate(self, index: int) -> str:
        """File and line of a record, or its number in the file's list."""
        return f"{self._path}{': record ' if self._listed else ':'}{self._numbers[index]}"

    def __getitem__(self, index: int) -> Record:
        """Raises `DataError` with file and line if the line is no record or names a file that is not there."""
        start, stop = int(self._starts[index]), int(self._stops[index])
        where = self.locate(index)
        with self._path.open("rb") as file:
            file.seek(start)
            line = file.read(stop - start)
        return self._rows.record(parse_object(line, where), where)


_Offsets = npt.NDArray[np.int64]


def _is_list(path: Path) -> bool:
    """Whether a file is one JSON list. Raises `DataError` for a file that is not UTF-8."""
    with path.open("rb") as file:
        begin, second = file.readline(CHUNK), file.readline(CHUNK).strip()
    if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: is UTF-16; store it as UTF-8")
    begin = begin.removeprefix(codecs.BOM_UTF8).strip() or second
    # of a list, an object on a line of its own follows a comma or the list's begin: else the first line is no record
    lines = second.startswith(b"{") and not begin.endswith((b",", b"["))
    return begin.startswith(b"[") and not lines


def _index_list(path: Path) -> tuple[_Offsets, _Offsets, _Offsets]:
    """Byte offsets of the start and end of every item of a JSON list, and its number from 1."""
    # one character per byte, so that offsets are those of bytes; what makes up the structure of JSON is ASCII
    text = path.read_bytes().decode("latin-1")
    decoder, at, starts, stops = json.JSONDecoder(parse_int=str), text.index("[") + 1, [0], [0]
    try:
        while (at := _solid(text, at)) < len(text) and text[at] != "]":
            starts.append(at)
            _, at = decoder.raw_decode(text, at)
            stops.append(at)
            at = _solid(text, at)
            if text[at : at + 1] not in (",", "]"):
                raise ValueError("an item is followed by neither a comma nor the list's end")
            at += text[at] == ","
        if _solid(text, at + 1) != len(text) or at >= len(text):
            raise ValueError("the list does not end the file")
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else f"{error}"
        place = f"record {max(1, len(starts) - 1)} (byte {at})"
        raise DataError(f"{path}: is a JSON list that is broken in or after {place}: {reason}") from None
    return np.array(starts[1:], np.int64), np.array(stops[1:], np.int64), np.arange(1, len(starts))


def _solid(text: str, at: int) -> int:
    """Place of the next character that is no white space of JSON."""
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _index_lines(path: Path) -> tuple[_Offsets, _Offsets, _Offsets]:
    """Byte offsets of the start and end of every line that is not blank, and its number from 1."""
    breaks, size = [], 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            breaks.append(np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == ord("\n")) + size)
            size += len(chunk)
    stops = np.concatenate([*breaks, [size]]).astype(np.int64)
    starts = np.concatenate([[0], stops[:-1] + 1]).astype(np.int64)
    filled = np.flatnonzero(stops > starts)
    if size:
        content = np.memmap(path, np.uint8, "r")
        white = filled[np.isin(content[starts[filled]], np.frombuffer(_WHITE, np.uint8))]  # at their beginning
        blank = [line for line in white if not content[starts[line] : stops[line]].tobytes().strip(_WHITE)]
        filled = np.setdiff1d(filled, blank, assume_unique=True)
    return starts[filled], stops[filled], filled + 1
