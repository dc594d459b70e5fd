"""WebDataset: tar archives in which the files of one sample follow each other under one name.

Members are read in place, at random: the archives are indexed once by their headers, nothing is unpacked or copied.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from mio.core.data.contents import fingerprint_of
from mio.core.data.readers.records import Kinds, RowReader, files_named, files_of, path_option
from mio.core.errors import DataError
from mio.core.modality import TEXT, Record

_TEXT = ("txt", "text", "caption", "transcript", "cls")


class WebDataset:
    """Samples of tar archives. The columns of a sample are its files' endings; `json` files give a column per key.

    A column is named by its ending and, where the ending is one that a modality reads, also like this modality.
    """

    def __init__(self, paths: list[Path], options: Mapping[str, Any], kinds: Kinds) -> None:
        """Raises `DataError` if an archive is damaged or there is no sample."""
        self._paths = paths
        self._rows = RowReader(options, kinds, paths[0].parent)
        self._named: set[str] = set(options.get("columns") or ()) | set(options.get("fields") or ())
        self._modalities = {suffix: name for name, known in kinds.suffixes().items() for suffix in known}
        self._samples: list[tuple[int, str, dict[str, tuple[int, int]]]] = []
        for number, path in enumerate(paths):
            self._index(number, path)
        if not self._samples:
            raise DataError(f"{paths[0]}: holds no samples; a sample is files of one name and several endings")

    @property
    def fingerprint(self) -> str:
        """Changes when any byte of an archive does, or of a media file that a sample names."""
        return fingerprint_of(self)

    @property
    def files(self) -> list[Path]:
        """The archives."""
        return self._paths

    @property
    def reading(self) -> str:
        """See `mio.core.data.contents.FileSource`."""
        return self._rows.reading

    def raw(self, start: int, stop: int) -> Iterator[bytes]:
        """Archive, name and members of each sample."""
        for index in range(start, stop):
            number, key, members = self._samples[index]
            path = self._paths[number]
            yield f"{path.name}\0{key}\0{list(members.items())}\0".encode(errors="surrogatepass")
            with path.open("rb") as file:
                for offset, size in members.values():
                    file.seek(offset)
                    yield file.read(size)

    def named(self, start: int, stop: int) -> Iterator[list[str]]:
        """The media files that each sample names: only JSON can do that."""
        for index in range(start, stop):
            name = any(ending.rsplit(".", 1)[-1] == "json" for ending in self._samples[index][2])
            yield files_named(partial(self.__getitem__, index)) if name else []

    def __len__(self) -> int:
        return len(self._samples)

    def locate(self, index: int) -> str:
        """Archive and sample."""
        number, key, _ = self._samples[index]
        return f"{self._paths[number]}: {key}"

    def __getitem__(self, index: int) -> Record:
        number, _, members = self._samples[index]
        where = self.locate(index)
        row: dict[str, Any] = {}
        with self._paths[number].open("rb") as file:
            for ending, (offset, size) in members.items():
                file.seek(offset)
                content = file.read(size)
                if len(content) < size:
                    raise DataError(f"{where}.{ending}: the archive is cut short")
                self._add(row, ending, content, f"{where}.{ending}")
        return self._rows.record(row, where)

    def _add(self, row: dict[str, Any], ending: str, content: bytes, where: str) -> None:
        last = ending.rsplit(".", 1)[-1]
        if last == "json":
            try:
                found = json.loads(content)
            except ValueError as error:
                raise DataError(f"{where}: not valid JSON: {error}") from None
            row |= found if isinstance(found, dict) else {ending: found}
        elif last in _TEXT:
            try:
                row[ending] = content.decode()
            except UnicodeDecodeError as error:
                raise DataError(f"{where}: is no text: {error}") from None
        else:
            modality = self._modalities.get(f".{last}", TEXT)
            if ending in self._named:
                row[ending] = {"bytes": content, "path": where}
            elif modality != TEXT:
                row[modality] = {"bytes": content, "path": where}

    def _index(self, number: int, path: Path) -> None:
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    if not member.isreg():
                        continue
                    name = PurePosixPath(member.name)
                    stem, dot, ending = name.name.partition(".")
                    if not dot or not stem:
                        continue
                    key = str(name.parent / stem)
                    if not self._samples or self._samples[-1][:2] != (number, key):
                        self._samples.append((number, key, {}))
                    self._samples[-1][2][ending.lower()] = (member.offset_data, member.size)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"{path}: is no whole tar archive: {error}; compressed ones are to be unpacked") from error


def open_webdataset(split: str, options: Mapping[str, Any], kinds: Kinds) -> WebDataset:  # noqa: ARG001
    """Opens the archives that `path` names."""
    paths = files_of(path_option("webdataset", options, "a tar archive or pattern"), "tar archive")
    return WebDataset(paths, options, kinds)
