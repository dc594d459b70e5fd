"""A folder of media files, with or without a table of what belongs to each: the form that `datasets` knows too."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mio.core.data.contents import fingerprint_of
from mio.core.data.readers.records import Kinds, RowReader, path_option
from mio.core.errors import DataError
from mio.core.modality import Record

TABLES = ("metadata.jsonl", "metadata.csv")
_FILE = "file_name"


class MediaFolder:
    """The media files below a folder, sorted by path.

    Which modality a file is of is told by its ending. A `metadata.jsonl` or `metadata.csv` gives the records instead:
    its column `file_name` becomes the field of the file's modality, `X_file_name` the field X, and the other columns
    are fields as they are. Without one, each file is a record with the field of its modality, `name` (the file's,
    without its ending) and, where it lies in a folder of its own, `label` (that folder's name).
    """

    def __init__(self, folder: Path, options: Mapping[str, Any], kinds: Kinds) -> None:
        """Raises `DataError` if there is no such folder, or no media in it."""
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; correct the option `path`")
        self._folder = folder
        self._modalities = {suffix: name for name, known in kinds.suffixes().items() for suffix in known}
        self._rows: list[dict[str, Any]] = []
        self._fields: dict[str, str] = {}
        self._places: list[str] = []
        self._tables = [folder / name for name in TABLES if (folder / name).is_file()][:1]
        if self._tables:
            self._read_table(self._tables[0])
        else:
            self._find(folder)
        if not self._rows:
            known = ", ".join(sorted(self._modalities)) or "none"
            raise DataError(f"{folder}: holds no media files; endings that can be read: {known}")
        given = {**options, "fields": self._fields | dict(options.get("fields") or {})}
        self._reader = RowReader(given, kinds, folder)

    @property
    def fingerprint(self) -> str:
        """Changes with the names of files, any byte of them, and the table's content."""
        return fingerprint_of(self)

    @property
    def files(self) -> list[Path]:
        """The table, where there is one."""
        return self._tables

    @property
    def reading(self) -> str:
        """See `mio.core.data.contents.FileSource`."""
        return self._reader.reading

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
        return self._reader.record(self._rows[index], self.locate(index))

    def _find(self, folder: Path) -> None:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            modality = self._modalities.get(path.suffix.lower())
            if modality:
                inside = path.relative_to(folder)
                row = {modality: str(inside), "name": path.stem}
                self._rows.append(row | ({"label": inside.parent.name} if inside.parent.name else {}))
                self._places.append(str(path))

    def _read_table(self, table: Path) -> None:
        for number, row in enumerate(_table_rows(table), 1):
            where = f"{table}:{number}"
            made: dict[str, Any] = {}
            for column, value in row.items():
                if column == _FILE or column.endswith(f"_{_FILE}"):
                    modality = self._modalities.get(Path(str(value)).suffix.lower(), "")
                    field = column.removesuffix(f"_{_FILE}") if column != _FILE else modality
                    if not modality:
                        raise DataError(f"{where}: nothing reads files like {value!r}")
                    self._fields[field] = modality
                    made[field] = value
                else:
                    made[column] = value
            self._rows.append(made)
            self._places.append(where)


def _table_rows(table: Path) -> list[dict[str, Any]]:
    try:
        if table.suffix == ".csv":
            with table.open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (ValueError, OSError) as error:
        raise DataError(f"{table}: cannot be read: {error}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{table}: every line must be a JSON object")
    return rows


def open_folder(split: str, options: Mapping[str, Any], kinds: Kinds) -> MediaFolder:
    """Opens the folder `path`, or its subfolder of the split's name where there is one."""
    folder = Path(path_option("folder", options, "a folder of media files"))
    inside = folder / split
    return MediaFolder(inside if inside.is_dir() else folder, options, kinds)
