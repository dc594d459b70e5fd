"""Tables of what belongs to the files of a folder, under the names that `datasets` looks for. A broken line costs one
record: it is kept with its problem."""

from __future__ import annotations

import codecs
import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mio.core.data.readers.arrow_files import one_line, rows_of
from mio.core.data.readers.json_values import parse_object
from mio.core.errors import DataError

TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
FILE = "file_name"
FILES = "file_names"

_WIDE = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class Line:
    """One record of a table."""

    where: str
    """File and line, or row, from 1."""
    row: dict[str, Any]
    problem: str = ""
    """Why it cannot be read; then `row` is empty."""


def is_file_column(column: str) -> bool:
    """Whether a column names files."""
    return column in (FILE, FILES) or column.endswith((f"_{FILE}", f"_{FILES}"))


def lines(table: Path) -> list[Line]:
    """Records of a table, blank lines left out.

    Lines end with `\\n`, `\\r\\n` or, in CSV, `\\r`, and nothing else. A byte order mark of UTF-8 is left out.

    Raises:
        DataError: the table cannot be read, has no header, or names no files.
    """
    try:
        if table.suffix == ".parquet":
            return list(_parquet(table))
        content = table.read_bytes()
    except OSError as error:
        raise DataError(f"{table}: cannot be read: {error}") from error
    if content.startswith(_WIDE):
        raise DataError(f"{table}: is UTF-16 or UTF-32; convert it: iconv -f utf-16 -t utf-8")
    content = content.removeprefix(codecs.BOM_UTF8)
    return list(_csv(table, content) if table.suffix == ".csv" else _jsonl(table, content))


def _jsonl(table: Path, content: bytes) -> Iterator[Line]:
    for number, line in enumerate(content.split(b"\n"), 1):
        text = line.strip(b" \t\r")
        if not text:
            continue
        where = f"{table}:{number}"
        try:
            yield Line(where, parse_object(text, where))
        except DataError as error:
            yield Line(where, {}, str(error).removeprefix(f"{where}: "))


def _csv(table: Path, content: bytes) -> Iterator[Line]:
    try:
        text, whole = content.decode("utf-8"), True
    except UnicodeDecodeError:
        text, whole = content.decode("utf-8", "surrogateescape"), False
    suspect = not whole or "\0" in text
    header: list[str] | None = None
    for number, cells in _csv_rows(text):
        where = f"{table}:{number}"
        problem = cells if isinstance(cells, str) else _wrong_letters(cells) if suspect else ""
        if header is None:
            header = _header(table, cells, problem)
        elif problem:
            yield Line(where, {}, problem)
        elif len(cells) != len(header):
            yield Line(where, {}, f"has {len(cells)} fields, the header has {len(header)}; quote fields with commas")
        else:
            yield Line(where, {name: cell for name, cell in zip(header, cells, strict=True) if name})


def _csv_rows(text: str) -> list[tuple[int, list[str] | str]]:
    """Line number and fields of each record, or what is wrong with it; then the next line begins a record again."""
    records: list[tuple[int, list[str] | str]] = []
    physical = io.StringIO(text, newline="").readlines()
    begin, limit = 0, csv.field_size_limit(sys.maxsize)  # the limit is one of the process, not of a reader
    try:
        while begin < len(physical):
            reader = csv.reader((physical[line] for line in range(begin, len(physical))), strict=True)
            done = begin
            try:
                for cells in reader:
                    if len(cells) > 1 or "".join(cells).strip():
                        records.append((done + 1, cells))
                    done = begin + reader.line_num
                begin = len(physical)
            except csv.Error as error:
                records.append((done + 1, f"not a line of CSV: {error}"))
                begin = done + 1
    finally:
        csv.field_size_limit(limit)
    return records


def _wrong_letters(cells: list[str]) -> str:
    for cell in cells:
        if "\0" in cell:
            return "holds a zero byte"
        if any("\ud800" <= letter <= "\udfff" for letter in cell):
            return "is not UTF-8"
    return ""


def _header(table: Path, cells: list[str] | str, problem: str) -> list[str]:
    if isinstance(cells, str) or problem:
        raise DataError(f"{table}: the header cannot be read: {problem}; a table is UTF-8 text with commas")
    twice = sorted({name for name in cells if name and cells.count(name) > 1})
    if twice:
        raise DataError(f"{table}: column `{twice[0]}` occurs twice; rename one of them")
    _check_columns(table, cells, ", separated by commas" if len(cells) == 1 else "")
    return cells


def _check_columns(table: Path, columns: list[str], form: str = "") -> None:
    if not any(map(is_file_column, columns)):
        raise DataError(f"{table}: has no column `{FILE}`{form}; its columns are {', '.join(map(repr, columns))}")


def _parquet(table: Path) -> Iterator[Line]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = pq.ParquetFile(table)
        _check_columns(table, content.schema_arrow.names)
        rows = rows_of(content.read())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{table}: is no whole Parquet file: {one_line(error)}") from error
    for number, row in enumerate(rows, 1):
        yield Line(f"{table}: row {number}", row)
