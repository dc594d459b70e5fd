"""What can be wrong with Parquet and Arrow files, told before `datasets` opens them, by file and column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mio.core.errors import DataError

_END = b"\xff\xff\xff\xff\0\0\0\0"
"""Ends an Arrow stream that was closed."""
_FILE = b"ARROW1"
"""Begins the other form of Arrow files, which is also that of Feather."""
_ROWS = 1000
_USABLE = {"integer", "float", "bool", "text", "bytes", "list", "struct"}
"""Kinds of columns that a record's field can be made of: no template uses dates, say."""


@dataclass(frozen=True)
class Unreadable:
    """In place of a cell that Python has no value for: a date after the year 9999, text that is no UTF-8."""


@dataclass(frozen=True)
class ParquetFiles:
    """How `datasets` is to open Parquet files."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of `load_dataset`, beside the files."""
    notes: Sequence[str] = ()
    """What is left out."""


def one_line(error: BaseException) -> str:
    """The innermost reason of an error, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def rows_of(table: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow table; what is unreadable costs its cell, not its row."""
    columns = [_cells(column) for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _cells(column: Any) -> list[Any]:
    try:
        cells: list[Any] = column.to_pylist()
    except (ValueError, OverflowError, ArithmeticError, LookupError, TypeError):
        if len(column) == 1:
            return [Unreadable()]
        cells = [_cells(column.slice(index, 1))[0] for index in range(len(column))]
    return cells


def check_parquet(paths: Sequence[Path], needed: Set[str] | None) -> ParquetFiles:
    """Looks at the footers of Parquet files.

    Columns that some files lack, or have only nulls in, are null there.

    Args:
        needed: columns that are read; None: all that can be.

    Raises:
        DataError: one is cut or damaged, all are empty, or a column is of one type here and of another there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas, rows, batch = [], 0, None
    for path in paths:
        try:
            file = pq.ParquetFile(path)
            schemas.append(file.schema_arrow)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path}: is no whole Parquet file: {one_line(error)}") from error
        rows += file.metadata.num_rows
        if file.metadata.num_row_groups and not file.metadata.row_group(0).num_rows:
            batch = _ROWS  # `datasets` would take batches of the first group's size
    if not rows:
        raise DataError(f"{paths[0]}: holds no rows")
    arguments: dict[str, Any] = {} if batch is None else {"batch_size": batch}
    schema, left = _common(paths, schemas, needed)
    if not left and all(own.equals(schemas[0]) for own in schemas):
        return ParquetFiles(arguments)
    arguments["features"] = _features(schema)
    if left:
        arguments["columns"] = schema.names
        if any(not set(schema.names) <= set(own.names) for own in schemas):
            raise DataError(f"{paths[0]}: `datasets` cannot read column `{left[0]}`; give the files the same columns")
    return ParquetFiles(arguments, [f"columns that cannot be read: {', '.join(left)}"] if left else [])


def broken_parquet(paths: Sequence[Path]) -> str:
    """Which of the files cannot be read to its end, and why; the empty string if all can."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        try:
            for _ in pq.ParquetFile(path).iter_batches(_ROWS):
                pass
        except (pa.ArrowException, OSError, ValueError) as error:
            return f"{path}: is damaged: {one_line(error)}"
    return ""


def open_arrow_files(paths: Sequence[Path]) -> Any:
    """The rows of Arrow files, streams or not, as a `datasets.Dataset`, in place.

    Raises:
        DataError: one is cut or damaged, holds something behind its end, or its columns are of other types.
    """
    import datasets
    import pyarrow as pa

    parts = []
    for path in paths:
        try:
            with path.open("rb") as file:
                begin = file.read(len(_FILE))
            if begin == _FILE:
                table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
                parts.append(datasets.Dataset(datasets.table.InMemoryTable(table)))
            else:
                _check_stream(path)
                parts.append(datasets.Dataset.from_file(str(path)))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path}: is no whole Arrow file: {one_line(error)}") from error
    schema, _ = _common(paths, [dataset.data.schema for dataset in parts], None)
    try:
        return datasets.concatenate_datasets(parts)
    except ValueError:  # columns of one kind and several widths, which are copied
        cast = [datasets.table.table_cast(dataset.data.table, _features(schema).arrow_schema) for dataset in parts]
        return datasets.concatenate_datasets([datasets.Dataset(datasets.table.InMemoryTable(table)) for table in cast])


def check_streams(paths: Iterable[Path]) -> None:
    """Raises `DataError` for an Arrow stream that was cut, or has something behind its end."""
    import pyarrow as pa

    for path in paths:
        try:
            _check_stream(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: is no whole Arrow file: {one_line(error)}") from error


def _check_stream(path: Path) -> None:
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_stream(file)
        for _ in reader:
            pass
        end = file.tell()
        if end < file.size():
            raise DataError(
                f"{path}: {file.size() - end:,} bytes lie behind the end of its Arrow stream, which are not read; give "
                "each stream a file of its own"
            )
        file.seek(max(0, end - len(_END)))
        if file.read(len(_END)) != _END:
            raise DataError(
                f"{path}: its Arrow stream has no end, as if it were cut off after its last whole batch. Get it again; "
                f"if nothing is missing, add the end: printf '\\377\\377\\377\\377\\0\\0\\0\\0' >> {path}"
            )


def _common(paths: Sequence[Path], schemas: Sequence[Any], needed: Set[str] | None) -> tuple[Any, list[str]]:
    """The schema of all files together, and the columns of it that have to be left out."""
    import pyarrow as pa

    first: dict[str, tuple[Path, Any]] = {}
    texts: set[str] = set()
    useful: set[str] = set()
    mixed: dict[str, str] = {}
    for path, schema in zip(paths, schemas, strict=True):
        twice = [name for name in schema.names if schema.names.count(name) > 1]
        if twice:
            raise DataError(f"{path}: column `{twice[0]}` occurs twice; rename one of them")
        for column in schema:
            other, known = first.setdefault(column.name, (path, column.type))
            kinds = {_kind(known), _kind(column.type)}
            if not _kind(known):
                first[column.name] = path, column.type
            elif kinds == {"integer", "text"}:  # whole numbers become the same text
                texts.add(column.name)
            elif not _alike(known, column.type):
                where = f"{path}: column `{column.name}` is {column.type}, in {other} it is {known}"
                mixed.setdefault(column.name, where)
                useful |= {column.name} if kinds & _USABLE else set()
    for name, problem in mixed.items():
        if name in (useful if needed is None else needed):
            raise DataError(f"{problem}; write them alike, or leave the column out by `columns`")
    left = [name for name, (_, type_) in first.items() if name in mixed or not _has_feature(type_)]
    alike = []
    for schema in schemas:
        kept = [column for column in schema if column.name not in left]
        kept = [column.with_type(pa.string()) if column.name in texts else column for column in kept]
        alike.append(pa.schema(kept, metadata=schema.metadata))
    try:
        return pa.unify_schemas(alike, promote_options="permissive"), left
    except pa.ArrowException as error:
        raise DataError(f"{paths[0]}: the files' columns differ: {one_line(error)}; write them alike") from error


def _kind(type_: Any) -> str:
    """Types of one kind are read alike, whatever their width; nulls are of none."""
    import pyarrow.types as kinds

    if kinds.is_dictionary(type_):
        return _kind(type_.value_type)
    if kinds.is_null(type_):
        return ""
    if kinds.is_integer(type_):
        return "integer"
    if kinds.is_floating(type_):
        return "float"
    if kinds.is_string(type_) or kinds.is_large_string(type_) or kinds.is_string_view(type_):
        return "text"
    if kinds.is_binary(type_) or kinds.is_large_binary(type_) or kinds.is_binary_view(type_):
        return "bytes"
    if kinds.is_list(type_) or kinds.is_large_list(type_):
        return "list"
    return "struct" if kinds.is_struct(type_) else str(type_)


def _alike(one: Any, other: Any) -> bool:
    """Whether values of two types can be in one column."""
    kinds = _kind(one), _kind(other)
    if "" in kinds:
        return True
    if kinds == ("list", "list"):
        return _alike(one.value_type, other.value_type)
    if kinds == ("struct", "struct"):
        fields, others = ({inner.name: inner.type for inner in type_} for type_ in (one, other))
        return all(_alike(type_, others[name]) for name, type_ in fields.items() if name in others)
    return kinds[0] == kinds[1]


def _has_feature(type_: Any) -> bool:
    """Whether `datasets` has a type for columns of an Arrow type."""
    import pyarrow as pa

    try:
        _features(pa.schema([("column", type_)]))
    except (ValueError, TypeError, NotImplementedError, KeyError):
        return False
    return True


def _features(schema: Any) -> Any:
    import datasets

    return datasets.Features.from_arrow_schema(schema)
