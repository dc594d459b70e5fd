"""A folder of media files, with or without a table of what belongs to each: the form that `datasets` knows too."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mio.core.contract.values import TEXT, Record
from mio.core.data.contents import FileSource
from mio.core.data.readers import metadata
from mio.core.data.readers.endings import Endings, counted
from mio.core.data.readers.records import Kinds, RowReader
from mio.core.errors import DataError

_SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")


class MediaFolder(FileSource):
    """The media files below a folder, sorted by path.

    Which modality a file is of is told by its ending. Tables (`metadata.jsonl`, `metadata.csv`, `metadata.parquet`) in
    the folder or below it give the records instead, each line one: the column `file_name` becomes the field of the
    file's modality, `X_file_name` the field X, `file_names` and `X_file_names` are lists of files, and other columns
    are fields as they are. Paths start at the table's folder. Of tables that tell of one file, the nearest counts.

    Without a table, each file is a record with the field of its modality, `name` (the file's, without its ending) and,
    where it lies in a folder of its own, `label` (that folder's name). Hidden files and folders, and folders that begin
    with `__`, hold no records.
    """

    def __init__(self, folder: Path, split: str, options: Mapping[str, Any], kinds: Kinds) -> None:
        """Reads `folder`, or its subfolder named like the split, of which a table in `folder` itself may tell too.

        Raises `DataError` if there is no such folder, or no media in it.
        """
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; correct the option `path`")
        self._folder = folder
        try:
            self._inside, notes = _part(folder, split)
            files = list(_files(self._inside))
        except OSError as error:
            raise DataError(f"{folder}: cannot be read: {error}") from error
        self.notes: list[str] = notes
        self._columns: Mapping[str, str] | None = options.get("columns")
        self._chosen: Mapping[str, str] = options.get("fields") or {}
        self._endings = Endings(kinds, self._chosen.values())
        self._elsewhere = bool(options.get("folder"))
        self._rows: list[dict[str, Any]] = []
        self._fields = dict(self._chosen)
        self._places: list[str] = []
        self._problems: dict[int, str] = {}
        self.files = [path for path in files if path.name in metadata.TABLES]
        if self._inside != folder:
            self.files += [folder / name for name in metadata.TABLES if (folder / name).is_file()]
        media = [path for path in files if path.name in self._endings]
        if self.files:
            self._read_tables(self.files, media)
        else:
            self._list(media)
            others = Counter(path.suffix.lower() or path.name for path in files if path.name not in self._endings)
            if others:
                self.notes.append(f"files that nothing reads: {counted(others)}")
        if not self._rows:
            if self.files:
                raise DataError(f"{self.files[0]}: holds no records")
            raise DataError(f"{self._inside}: holds no media files; endings that can be read: {self._endings}")
        self._reader = RowReader({**options, "fields": self._fields}, kinds, folder)
        self.reading = self._reader.reading

    def raw(self, start: int, stop: int) -> Iterator[bytes]:
        """The rows from `start` to `stop`."""
        for row in self._rows[start:stop]:
            yield json.dumps(row, sort_keys=True, default=str).encode() + b"\n"

    def __len__(self) -> int:
        return len(self._rows)

    def locate(self, index: int) -> str:
        """The file, or the table's line."""
        return self._places[index]

    def __getitem__(self, index: int) -> Record:
        if index in self._problems:
            raise DataError(f"{self.locate(index)}: {self._problems[index]}")
        return self._reader.record(self._rows[index], self.locate(index))

    def _list(self, media: list[Path]) -> None:
        for path in media:
            inside = path.relative_to(self._inside)
            row = {self._endings.modality(path.name): str(path.relative_to(self._folder)), "name": path.stem}
            self._rows.append(row | ({"label": inside.parent.name} if inside.parent.name else {}))
            self._places.append(str(path))

    def _read_tables(self, tables: list[Path], media: list[Path]) -> None:
        folders = [table.parent for table in tables]
        for table in tables:
            if folders.count(table.parent) > 1:
                several = ", ".join(other.name for other in tables if other.parent == table.parent)
                raise DataError(f"{table.parent}: holds several tables ({several}); keep one of them")
        read = [(table.parent, line) for table in tables for line in metadata.lines(table)]
        named = [[] if self._elsewhere else _files_of(folder, line.row) for folder, line in read]
        depth: dict[str, int] = {}
        for (folder, _), names in zip(read, named, strict=True):
            for name in names:
                depth[name] = max(depth.get(name, 0), len(folder.parts))
        others = nearer = 0
        start = os.path.join(os.path.normpath(self._inside), "")  # noqa: PTH118  a Path loses the last slash
        for (folder, line), names in zip(read, named, strict=True):
            above = folder == self._folder != self._inside
            if names and above and not any(name.startswith(start) for name in names):
                others += 1  # of another split
            elif names and all(depth[name] > len(folder.parts) for name in names):
                nearer += 1
            else:
                self._take(folder, line)
        if not self._rows and others:
            raise DataError(
                f"{tables[-1]}: none of its {others:,} lines names a file in {self._inside}; the paths of "
                f"`{metadata.FILE}` start at the table's folder"
            )
        if nearer:
            self.notes.append(f"{nearer:,} lines of tables of which a table nearer to the file tells as well, left out")
        unnamed = [path for path in media if os.path.normpath(path) not in depth]
        if unnamed and not self._elsewhere:
            self.notes.append(f"{len(unnamed):,} media files without a line in a table, left out, as {unnamed[0]}")

    def _take(self, folder: Path, line: metadata.Line) -> None:
        row: dict[str, Any] = {}
        problem = line.problem
        try:
            for column, value in line.row.items():
                if not metadata.is_file_column(column):
                    _add(row, column, value)
                elif value not in (None, "", []):
                    self._add_files(row, folder, column, value)
                elif column == metadata.FILE:
                    raise DataError(f"`{column}` is empty")
            if not problem and not any(map(metadata.is_file_column, line.row)):
                raise DataError(f"has no `{metadata.FILE}`")
        except DataError as error:
            row, problem = {}, str(error)
        if problem:
            self._problems[len(self._rows)] = problem
        self._rows.append(row)
        self._places.append(line.where)

    def _add_files(self, row: dict[str, Any], folder: Path, column: str, value: Any) -> None:
        field = column.removesuffix(metadata.FILE).removesuffix(metadata.FILES).removesuffix("_")
        if field and self._columns is not None and field not in self._columns:
            return
        several = column.endswith(metadata.FILES)
        names = value if several else [value]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"`{column}` must be {'a list of files' if several else 'the name of a file'}")
        if self._fields.get(field) == TEXT:
            _add(row, field, value)
            return
        unknown = [name for name in names if name not in self._endings]
        if unknown and field not in self._chosen:
            raise DataError(f"`{column}`: nothing reads files like {unknown[0]!r}")
        modality = self._fields.get(field) or self._endings.modality(names[0])
        wrong = [name for name in names if name in self._endings and modality not in self._endings.readers(name)]
        if wrong:
            raise DataError(f"`{column}`: {wrong[0]!r} is no {modality} file like the others")
        if field:
            self._fields[field] = modality
        start = Path() if self._elsewhere else folder.relative_to(self._folder)
        # tables from Windows have other slashes, which `datasets` reads too
        paths = [str(start / name.replace("\\", "/")) for name in names]
        _add(row, field or modality, paths if several else paths[0])


def _part(folder: Path, split: str) -> tuple[Path, list[str]]:
    """The folder of a split, and what lies beside it. Raises `DataError` where there are other splits only."""
    beside = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    inside = folder / split
    if inside.is_dir() and inside != folder:
        others = [name for name in beside if name != split and name not in _SPLITS]
        return inside, [f"folders beside `{split}`, not read: {', '.join(others)}"] if others else []
    splits = [name for name in beside if name in _SPLITS]
    if splits:
        raise DataError(f"{folder}: has no split `{split}`; it has {', '.join(splits)}; correct `split`")
    if split != "train":
        raise DataError(f"{folder}: has no split `{split}`, and no folder of any split: leave `split` out")
    return folder, []


def _add(row: dict[str, Any], field: str, value: Any) -> None:
    if field in row:
        raise DataError(f"two columns are the field `{field}`; rename one of them")
    row[field] = value


def _files_of(folder: Path, row: Mapping[str, Any]) -> list[str]:
    """Normal forms of the paths that a line names."""
    paths: list[str] = []
    for column, value in row.items():
        if metadata.is_file_column(column):
            names = value if isinstance(value, list) else [value]
            names = [name.replace("\\", "/") for name in names if isinstance(name, str) and name]
            paths += [os.path.normpath(folder / name) for name in names]
    return paths


def _files(folder: Path, above: tuple[tuple[int, int], ...] = ()) -> Iterator[Path]:
    """Everything below a folder that is no folder, in the order of paths. Links are followed, but not in a circle."""
    state = folder.stat()
    here = state.st_dev, state.st_ino
    if here in above:
        return
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            yield folder / entry.name
        elif not entry.name.startswith("__"):
            yield from _files(folder / entry.name, (*above, here))
