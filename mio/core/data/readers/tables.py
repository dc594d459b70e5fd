"""Tables through `datasets`: Parquet and Arrow files, and data sets of the Hub, also as streams.

Rows are taken as Arrow tables of one row, so that `datasets` decodes no media: files and bytes reach the plugin that
reads the modality.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

from mio.core.data.readers.arrow_files import (
    broken_parquet,
    check_parquet,
    check_streams,
    one_line,
    open_arrow_files,
    rows_of,
)
from mio.core.data.readers.records import Kinds, RowReader, files_of, fingerprint_of_files, path_option
from mio.core.errors import DataError, RecipeError
from mio.core.modality import Record


class Table:
    """Records of a `datasets.Dataset`, at random."""

    notes: Sequence[str] = ()
    """What of the files belongs to no record, for the report."""

    def __init__(self, dataset: Any, rows: RowReader, name: str, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._dataset = dataset.with_format("arrow")
        self._rows = rows
        self._name = name

    def __len__(self) -> int:
        return len(self._dataset)

    def locate(self, index: int) -> str:
        """Data set and row."""
        return f"{self._name}: row {index}"

    def __getitem__(self, index: int) -> Record:
        where = self.locate(index)
        try:
            [row] = rows_of(self._dataset[index])
        except Exception as error:
            raise DataError(f"{where}: cannot be read: {one_line(error)}") from error
        return self._rows.record(row, where)


class Stream:
    """Records of a `datasets.IterableDataset`, in their order."""

    streamed = True

    def __init__(self, dataset: Any, rows: RowReader, name: str) -> None:
        self.fingerprint = ""
        self._dataset = dataset.with_format("arrow")
        self._rows = rows
        self._name = name

    def locate(self, index: int) -> str:
        """Data set and row."""
        return f"{self._name}: row {index}"

    def __iter__(self) -> Iterator[Callable[[], Record]]:
        tables, index = iter(self._dataset), 0
        while True:
            try:
                table = next(tables)
            except StopIteration:
                return
            except Exception as error:
                raise DataError(f"{self.locate(index)}: the stream breaks off: {one_line(error)}") from error
            yield partial(self._record, table, index)
            index += 1

    def _record(self, table: Any, index: int) -> Record:
        [row] = rows_of(table)
        return self._rows.record(row, self.locate(index))


def open_parquet(split: str, options: Mapping[str, Any], kinds: Kinds) -> Table:  # noqa: ARG001
    """Opens Parquet files. `datasets` keeps a copy in its cache, as Arrow files that can be read at random."""
    datasets = _datasets()
    paths = files_of(path_option("parquet", options, "a file or pattern"), "Parquet file")
    names = [str(path) for path in paths]
    found = check_parquet(paths, _needed(options))
    arguments = {"data_files": names, "split": "train", **found.arguments}
    try:
        dataset = _opened(lambda: datasets.load_dataset("parquet", **arguments), names[0])
    except DataError as error:
        raise DataError(broken_parquet(paths) or str(error)) from error
    table = Table(dataset, RowReader(options, kinds, paths[0].parent), names[0], fingerprint_of_files(paths))
    table.notes = found.notes
    return table


def open_arrow(split: str, options: Mapping[str, Any], kinds: Kinds) -> Table:
    """Opens Arrow files, or a folder that `save_to_disk` wrote, in place."""
    datasets = _datasets()
    given = path_option("arrow", options, "a file, a pattern, or a folder that `save_to_disk` wrote")
    folder = Path(given)
    if folder.is_dir():
        dataset = _opened(lambda: datasets.load_from_disk(given), given)
        if isinstance(dataset, datasets.DatasetDict):
            if split not in dataset:
                raise DataError(f"{given}: has no split `{split}`; it has {', '.join(dataset)}")
            dataset, folder = dataset[split], folder / split
        check_streams(Path(found["filename"]) for found in dataset.cache_files)
        paths = sorted(folder.glob("*.arrow"))
    else:
        paths = files_of(given, "Arrow file")
        folder = paths[0].parent
        dataset = open_arrow_files(paths)
    return Table(dataset, RowReader(options, kinds, folder), given, fingerprint_of_files(paths))


def open_hub(split: str, options: Mapping[str, Any], kinds: Kinds) -> Table | Stream:
    """Opens a data set of the Hub, or a folder of the same form: `name`, `config`, `revision`, `streaming`."""
    if not isinstance(options.get("name"), str):
        raise RecipeError(["reader `hub` needs the option `name`, a data set of the Hugging Face Hub"])
    datasets = _datasets()
    name, streaming = options["name"], bool(options.get("streaming"))
    config, revision = options.get("config"), options.get("revision")
    dataset = _opened(
        lambda: datasets.load_dataset(name, config, split=split, revision=revision, streaming=streaming), name
    )
    rows = RowReader(options, kinds, Path(name) if Path(name).is_dir() else Path())
    label = f"{name} ({split})"
    if streaming:
        return Stream(dataset, rows, label)
    return Table(dataset, rows, label, f"{dataset.info.version or ''}/{revision or ''}/{len(dataset)}")


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
