"""WebDataset: tar archives in which the files of one sample follow each other under one name.

Members are read in place, at random: the archives are indexed once by their headers, nothing is unpacked or copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from mio.core.contract.values import TEXT, Record
from mio.core.data.contents import FileSource
from mio.core.data.readers import tar
from mio.core.data.readers.cells import files_named
from mio.core.data.readers.endings import Endings, counted
from mio.core.data.readers.json_values import parse_json
from mio.core.data.readers.records import Kinds, RowReader
from mio.core.errors import DataError
from mio.core.terminal import printable

_TEXT = ("txt", "text", "caption", "transcript", "cls")
_OTHERS_WORK = ("__MACOSX", ".ipynb_checkpoints")
"""Folders that programs leave behind, whose files look like members of samples."""


class WebDataset(FileSource):
    """Samples of tar archives: files of one folder whose names are the same up to their first dot.

    The columns of a sample are its files' endings, what follows this dot; `json` files give a column per key. A file
    that a modality reads is also named like the modality: where a sample has several, the one whose ending holds no
    further dot. Two files for one column cost the sample, as does a link that leads out of the archive. Archives that
    were concatenated are read one after the other.
    """

    def __init__(self, paths: list[Path], options: Mapping[str, Any], kinds: Kinds) -> None:
        """Raises `DataError` if an archive is damaged or there is no sample."""
        self.files = paths
        self._rows = rows = RowReader(options, kinds, paths[0].parent)
        self.reading = rows.reading
        self._columns = rows.columns
        self._chosen = {*(rows.columns or ()), *rows.chosen}
        self._endings = Endings(kinds, rows.chosen.values())
        self._samples: list[tuple[int, str, dict[str, list[tar.Member]]]] = []
        left: Counter[str] = Counter()
        for number, path in enumerate(paths):
            left += self._index(number, path)
        if not self._samples:
            raise DataError(f"{paths[0]}: holds no samples; a sample is files of one name and several endings")
        if left:
            self.notes = [f"files of the archives that are not read, as `columns` does not name them: {counted(left)}"]

    def raw(self, start: int, stop: int) -> Iterator[bytes]:
        """Archive, name and members of each sample."""
        for index in range(start, stop):
            number, key, members = self._samples[index]
            path = self.files[number]
            yield f"{path.name}\0{key}\0{list(members.items())}\0".encode(errors="surrogatepass")
            with path.open("rb") as file:
                for member in (member for same in members.values() for member in same if not member.problem):
                    yield tar.content(file, member, self.locate(index))

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
        return f"{self.files[number]}: {printable(key)}"

    def __getitem__(self, index: int) -> Record:
        number, _, members = self._samples[index]
        where = self.locate(index)
        columns = self._columns_of(members, where)
        row: dict[str, Any] = {}
        with self.files[number].open("rb") as file:
            for column, (ending, member) in columns.items():
                if self._columns is None or column in self._columns:
                    field = column if self._columns is None else self._columns[column]
                    text = _last(ending) in _TEXT and self._rows.fields.get(field, TEXT) == TEXT
                    row[column] = self._read(file, member, f"{where}.{printable(ending)}", text)
            for ending, [member] in members.items():
                if _last(ending) == "json" and ending not in columns:
                    self._add_json(row, columns, file, ending, member, where)
        return self._rows.record(row, where)

    def _columns_of(self, members: Mapping[str, list[tar.Member]], where: str) -> dict[str, tuple[str, tar.Member]]:
        """Column -> the file that it is of, with its ending; `json` files, which have their own columns, left out."""
        columns = {}
        media: dict[str, list[str]] = {}
        for ending, [member, *more] in members.items():
            if more:
                names = ", ".join(printable(one.name) for one in (member, *more))
                raise DataError(f"{where}: has `{printable(ending)}` more than once: {names}; keep one of them")
            last = _last(ending)
            if last in _TEXT or (ending in self._chosen and last != "json"):
                columns[ending] = ending, member
            elif last != "json" and self._endings.readers(f"1.{last}"):
                try:
                    media.setdefault(self._endings.modality(f"1.{last}"), []).append(ending)
                except DataError as error:
                    raise DataError(f"{where}: {error}") from None
        for modality, endings in media.items():
            if modality in columns or (self._columns is not None and modality not in self._columns):
                continue
            plain = _plain(endings)
            if len(plain) != 1:
                raise DataError(
                    f"{where}: has several {modality} files, with the endings "
                    f"{', '.join(map(printable, endings))} (what follows the first dot of a name). Say which by "
                    f"the option `columns`, as `columns: {{{printable(endings[0])}: {modality}}}`, or give each "
                    "sample a name without dots"
                )
            [member] = members[plain[0]]
            columns[modality] = plain[0], member
        return columns

    def _read(self, file: BinaryIO, member: tar.Member, where: str, text: bool) -> Any:
        content = tar.content(file, member, where)
        if not text:
            return {"bytes": content, "path": where}
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: is no text: {error}") from None

    def _add_json(
        self,
        row: dict[str, Any],
        files: Mapping[str, tuple[str, tar.Member]],
        file: BinaryIO,
        ending: str,
        member: tar.Member,
        where: str,
    ) -> None:
        place = f"{where}.{printable(ending)}"
        parsed = parse_json(tar.content(file, member, place), place)
        for key, value in (parsed if isinstance(parsed, dict) else {ending: parsed}).items():
            wanted = self._columns is None or key in self._columns
            if key in files and isinstance(value, str) and _file_name(value) == _file_name(files[key][1].name):
                continue  # it names the file
            if wanted and (key in row or key in files):
                other = f"the file `{files[key][0]}`" if key in files else "another json file"
                raise DataError(
                    f"{place}: `{key}` is a column of {other} too; rename it, or leave it out with `columns`"
                )
            row[key] = value

    def _index(self, number: int, path: Path) -> Counter[str]:
        """Adds the samples of an archive. Returns how many files of which ending belong to no column."""
        left: Counter[str] = Counter()
        samples: dict[tuple[int, str], dict[str, list[tar.Member]]] = {}
        for member in tar.resolved(tar.members(path)):
            name = PurePosixPath(member.name)
            stem, dot, ending = name.name.partition(".")
            if not stem or any(part in _OTHERS_WORK for part in name.parts):
                continue  # hidden files, `._1.jpg` among them
            if not dot:
                left["without an ending"] += 1
                continue
            key = member.section, str(name.parent / stem)
            if key not in samples:
                samples[key] = {}
                self._samples.append((number, key[1], samples[key]))
            samples[key].setdefault(ending.lower(), []).append(member)
        for members in samples.values():
            left.update(f".{ending}" for ending in self._unread(list(members)))
        return left

    def _unread(self, endings: list[str]) -> list[str]:
        """Endings of a sample that neither are columns nor make it ambiguous."""
        unread = []
        media: dict[str, list[str]] = {}
        for ending in endings:
            last = _last(ending)
            if last in _TEXT or last == "json" or ending in self._chosen:
                continue
            readers = self._endings.readers(f"1.{last}")
            if len(readers) == 1:
                media.setdefault(readers[0], []).append(ending)
            elif not readers:
                unread.append(ending)
        for several in media.values():
            plain = _plain(several)
            unread += [ending for ending in several if len(plain) == 1 and ending not in plain]
        return unread


def _last(ending: str) -> str:
    return ending.rsplit(".", 1)[-1]


def _plain(endings: list[str]) -> list[str]:
    """Of several files of one modality, those whose ending is a file format alone."""
    return [ending for ending in endings if "." not in ending] if len(endings) > 1 else endings


def _file_name(path: str) -> str:
    return PurePosixPath(path).name
