"""Tables through `datasets`: Parquet and Arrow files, and data sets of the Hub, also as streams.

Rows are taken as Arrow tables of one row, so that `datasets` decodes no media: files and bytes reach the plugin that
reads the modality.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import xxhash

from mio.core.contract.values import Record
from mio.core.data.contents import FileSource, fingerprint_of
from mio.core.data.hashing import State
from mio.core.data.readers.arrow_files import (
    broken_parquet,
    check_parquet,
    check_streams,
    one_line,
    open_arrow_files,
    rows_of,
)
from mio.core.data.readers.cells import files_named
from mio.core.data.readers.records import Kinds, RowReader, files_of
from mio.core.errors import DataError

_BATCH = 256
"""Rows that are looked at together."""


class _Rows:
    """What `Table` and `Stream` have in common."""

    def __init__(self, dataset: Any, rows: RowReader, name: str, files: Sequence[Path] = ()) -> None:
        """`files` are those that the rows come from, where they are on this machine."""
        self.files: Sequence[Path] = list(files)
        self.reading = rows.reading
        self._dataset = dataset.with_format("arrow")
        self._rows = rows
        self._name = name

    def locate(self, index: int) -> str:
        """Data set and row."""
        return f"{self._name}: row {index}"


class Table(_Rows, FileSource):
    """Records of a `datasets.Dataset`, at random."""

    def raw(self, start: int, stop: int) -> Iterator[bytes]:
        """The rows from `start` to `stop`, each batch of them as an Arrow stream."""
        for table in self._batches(start, stop):
            yield _stream_of(table)

    def named(self, start: int, stop: int) -> Iterator[list[str]]:
        """The media files that each row names."""
        index = start
        for table in self._batches(start, stop):
            for row in _without_bytes(table):
                yield files_named(partial(self._rows.record, row, self.locate(index)))
                index += 1

    def _batches(self, start: int, stop: int) -> Iterator[Any]:
        for first in range(start, stop, _BATCH):
            yield self._dataset[first : min(first + _BATCH, stop)]

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Record:
        where = self.locate(index)
        try:
            [row] = rows_of(self._dataset[index])
        except Exception as error:
            raise DataError(f"{where}: cannot be read: {one_line(error)}") from error
        return self._rows.record(row, where)


class Stream(_Rows):
    """Records of a `datasets.IterableDataset`, in their order."""

    streamed = True

    @property
    def fingerprint(self) -> str:
        """Changes when any byte of the files does; the empty string where they are elsewhere."""
        return fingerprint_of(self) if self.files else ""

    def __iter__(self) -> Iterator[Callable[[], Record]]:
        tables, index = iter(self._dataset), 0
        while True:
            try:
                table = next(tables)
            except StopIteration:
                return
            except Exception as error:
                raise DataError(f"{self.locate(index)}: the stream breaks off: {one_line(error)}") from error
            yield StreamedRow(table, self._rows, self.locate(index))
            index += 1


@dataclass(frozen=True)
class StreamedRow:
    """A row of a stream, whose record is made when it is called."""

    table: Any
    rows: RowReader
    where: str

    def __call__(self) -> Record:
        [row] = rows_of(self.table)
        return self.rows.record(row, self.where)

    def raw(self) -> bytes:
        """What the row is made of, but for the media files that it names."""
        return _stream_of(self.table)


def open_parquet(options: Mapping[str, Any], kinds: Kinds) -> Table:
    """Opens Parquet files. `datasets` keeps a copy in its cache, as Arrow files that can be read at random."""
    datasets = _datasets()
    paths = files_of(options["path"], "Parquet file")
    names = [str(path) for path in paths]
    checked = check_parquet(paths, _needed(options))
    arguments = {"data_files": names, "split": "train", "cache_dir": _cache_of(paths), **checked.arguments}
    try:
        dataset = _opened(lambda: datasets.load_dataset("parquet", **arguments), names[0])
    except DataError as error:
        raise DataError(broken_parquet(paths) or str(error)) from error
    table = Table(dataset, RowReader(options, kinds, paths[0].parent), names[0], paths)
    table.notes = checked.notes
    return table


def open_arrow(split: str, options: Mapping[str, Any], kinds: Kinds) -> Table:
    """Opens Arrow files, or a folder that `save_to_disk` wrote, in place."""
    datasets = _datasets()
    place = options["path"]
    folder = Path(place)
    if folder.is_dir():
        dataset = _opened(lambda: datasets.load_from_disk(place), place)
        if isinstance(dataset, datasets.DatasetDict):
            if split not in dataset:
                raise DataError(f"{place}: has no split `{split}`; it has {', '.join(dataset)}")
            dataset, folder = dataset[split], folder / split
        check_streams(Path(file["filename"]) for file in dataset.cache_files)
        # `state.json` says which Arrow files there are; what `datasets` keeps of later work there is not read
        paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("cache-"))
    else:
        paths = files_of(place, "Arrow file")
        folder = paths[0].parent
        dataset = open_arrow_files(paths)
    return Table(dataset, RowReader(options, kinds, folder), place, paths)


def open_hub(split: str, options: Mapping[str, Any], kinds: Kinds) -> Table | Stream:
    """Opens a data set of the Hub, or a folder of the same form: `name`, `config`, `revision`, `streaming`."""
    datasets = _datasets()
    name, streaming = options["name"], bool(options.get("streaming"))
    config, revision = options.get("config"), options.get("revision")
    local = sorted(path for path in Path(name).rglob("*") if path.is_file()) if Path(name).is_dir() else []
    cache = _cache_of(local) if local else None
    dataset = _opened(
        lambda: datasets.load_dataset(
            name, config, split=split, revision=revision, streaming=streaming, cache_dir=cache
        ),
        name,
    )
    rows = RowReader(options, kinds, Path(name) if Path(name).is_dir() else Path())
    label = f"{name} ({split})"
    if streaming:
        return Stream(dataset, rows, label, local)
    return Table(dataset, rows, label, local or [Path(file["filename"]) for file in dataset.cache_files])


def _cache_of(paths: Sequence[Path]) -> str:
    """Where `datasets` keeps its copy of files: another place after any change.

    By itself it would take an older copy where a file has changed and its time of modification has been set back.
    """
    states = [(str(path.absolute()), *State.of(path.stat())) for path in paths]
    digest = xxhash.xxh3_64(json.dumps(states).encode()).hexdigest()
    return str(Path(_datasets().config.HF_DATASETS_CACHE) / "mio" / digest)


def _stream_of(table: Any) -> bytes:
    """Rows as an Arrow stream: rows that hold the same have the same bytes."""
    import pyarrow as pa

    # taken row by row, since parts of larger tables bring bits of their neighbours
    taken = table.take(pa.array(range(len(table)), pa.int64())).combine_chunks().replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, taken.schema) as writer:
        writer.write_table(taken)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _without_bytes(table: Any) -> list[dict[str, Any]]:
    """Rows whose cells of bytes are left empty: which files they name does not depend on these, and they are long."""
    import pyarrow as pa

    for at, column in enumerate(table.columns):
        chunks = [_emptied(chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk) for chunk in column.chunks]
        if chunks:
            table = table.set_column(at, table.column_names[at], pa.chunked_array(chunks))
    return rows_of(table)


def _emptied(array: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return pc.if_else(pc.is_null(array), pa.scalar(None, array.type), pa.scalar(b"", array.type))
    if pa.types.is_struct(array.type) and array.type.num_fields:
        names = [array.type.field(at).name for at in range(array.type.num_fields)]
        inner = [_emptied(pc.struct_field(array, [at])) for at in range(len(names))]
        return pa.StructArray.from_arrays(inner, names=names, mask=pc.is_null(array))
    return array


def _needed(options: Mapping[str, Any]) -> Set[str] | None:
    """Columns that the options name, where they leave others out."""
    if options.get("columns") is None:
        return None
    inserted = options.get("inserted") or {}
    return {*options["columns"], *(options.get("aligned") or ()), inserted.get("texts"), inserted.get("items")}


def _datasets() -> Any:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # it logs at length what it raises as well
    return datasets


def _opened(call: Callable[[], Any], name: str) -> Any:
    try:
        return call()
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"{name}: `datasets` cannot open it: {one_line(error)}") from error
