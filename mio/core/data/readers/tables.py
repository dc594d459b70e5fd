"""Tables through `datasets`: Parquet and Arrow files, and data sets of the Hub, also as streams.

Rows are taken as Arrow tables of one row, so that `datasets` decodes no media: files and bytes reach the plugin that
reads the modality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mio.core.data.readers.records import Kinds, RowReader, files_of, fingerprint_of_files, path_option
from mio.core.errors import DataError, RecipeError
from mio.core.modality import Record


class Table:
    """Records of a `datasets.Dataset`, at random."""

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
            [row] = self._dataset[index].to_pylist()
        except Exception as error:
            raise DataError(f"{where}: cannot be read: {error}") from error
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
        for index, table in enumerate(self._dataset):
            yield partial(self._record, table, index)

    def _record(self, table: Any, index: int) -> Record:
        [row] = table.to_pylist()
        return self._rows.record(row, self.locate(index))


def open_parquet(split: str, options: Mapping[str, Any], kinds: Kinds) -> Table:  # noqa: ARG001
    """Opens Parquet files. `datasets` keeps a copy in its cache, as Arrow files that can be read at random."""
    datasets = _datasets()
    paths = files_of(path_option("parquet", options, "a file or pattern"), "Parquet file")
    names = [str(path) for path in paths]
    dataset = _opened(lambda: datasets.load_dataset("parquet", data_files=names, split="train"), names[0])
    return Table(dataset, RowReader(options, kinds, paths[0].parent), names[0], fingerprint_of_files(paths))


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
        paths = sorted(folder.glob("*.arrow"))
    else:
        paths = files_of(given, "Arrow file")
        folder = paths[0].parent
        made = _opened(lambda: [datasets.Dataset.from_file(str(path)) for path in paths], given)
        dataset = datasets.concatenate_datasets(made)
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


def _datasets() -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets


def _opened(call: Callable[[], Any], name: str) -> Any:
    try:
        return call()
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"{name}: `datasets` cannot open it: {type(error).__name__}: {error}") from error
