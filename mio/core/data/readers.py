"""The core's own reader of files: JSON Lines, one record per line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mio.core.errors import DataError, RecipeError
from mio.core.modality import TEXT, Media, Record, Value
from mio.core.suggest import nearest

_CHUNK = 1 << 24
_OPTIONS = ("path", "fields")
_SCALARS = (str, int, float)


class JsonLines:
    """Records of a JSON Lines file, read by an index of byte offsets: a broken line costs one record, not the file.

    A field is text unless it is named like a modality, or `fields` says what it is; media are paths relative to the
    file. `messages` is a conversation whose content is a string or a list of typed parts (`{"type": "text", "text":
    ...}`, `{"type": M, M: path}`), `parts` such a list alone. Fields that are null are left out.
    """

    def __init__(self, path: Path, modalities: Collection[str], fields: Mapping[str, str] | None = None) -> None:
        """Raises `DataError` if the file is missing or empty, or if `fields` names an unknown modality."""
        if not path.is_file():
            raise DataError(f"{path}: no such file (relative paths start from {Path.cwd()}); correct the option `path`")
        self.path = path
        self._media = set(modalities) - {TEXT}
        self._fields = {name: name for name in self._media} | dict(fields or {})
        for name, modality in self._fields.items():
            if modality != TEXT and modality not in self._media:
                hint = nearest(modality, [TEXT, *self._media])
                raise DataError(f"{path}: option `fields.{name}` names an unknown modality `{modality}`{hint}")
        self._starts, self._stops, self._numbers = _index_lines(path)
        if not len(self._starts):
            raise DataError(f"{path}: holds no records; give a file with one JSON object per line")

    @property
    def fingerprint(self) -> str:
        """Changes when lines are added, removed or change their length."""
        return hashlib.blake2b(self._stops.tobytes(), digest_size=8).hexdigest()

    def __len__(self) -> int:
        return len(self._starts)

    def locate(self, index: int) -> str:
        """File and line of a record."""
        return f"{self.path}:{self._numbers[index]}"

    def __getitem__(self, index: int) -> Record:
        """Raises `DataError` with file and line if the line is no record or names a file that is not there."""
        start, stop = int(self._starts[index]), int(self._stops[index])
        where = self.locate(index)
        with self.path.open("rb") as file:
            file.seek(start)
            line = file.read(stop - start)
        try:
            content = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: not valid JSON: {error}") from None
        if not isinstance(content, dict):
            raise DataError(f"{where}: a record is a JSON object, this is a {_kind(content)}")
        return {name: self._field(name, value, where) for name, value in content.items() if value is not None}

    def _field(self, name: str, value: Any, where: str) -> Any:
        if name == "messages":
            return self._messages(value, where)
        if name == "parts":
            return self._parts(value, f"{where}: `parts`")
        modality = self._fields.get(name, TEXT)
        if isinstance(value, list):
            return [self._value(modality, item, f"{where}: `{name}`") for item in value]
        return self._value(modality, value, f"{where}: `{name}`")

    def _messages(self, value: Any, where: str) -> list[dict[str, Any]]:
        if not isinstance(value, list) or not value:
            raise DataError(f"{where}: `messages` must be a list of turns")
        turns = []
        for number, turn in enumerate(value):
            place = f"{where}: `messages[{number}]`"
            if not isinstance(turn, dict) or not isinstance(turn.get("role"), str) or "content" not in turn:
                raise DataError(f"{place} must have `role` and `content`")
            turns.append({"role": turn["role"], "content": self._parts(turn["content"], place)})
        return turns

    def _parts(self, value: Any, where: str) -> list[Value]:
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list):
            raise DataError(f"{where} must be a string or a list of parts, this is a {_kind(value)}")
        return [self._part(part, where) for part in value]

    def _part(self, part: Any, where: str) -> Value:
        if isinstance(part, str):
            return part
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in part:
            raise DataError(f'{where}: a part is a string or an object like {{"type": "text", "text": ...}}')
        if kind != TEXT and kind not in self._media:
            raise DataError(f"{where}: unknown part type `{kind}`{nearest(kind, [TEXT, *self._media])}")
        return self._value(kind, part[kind], where)

    def _value(self, modality: str, value: Any, where: str) -> Value:
        if modality == TEXT:
            if not isinstance(value, _SCALARS):
                raise DataError(f"{where} must be text, this is a {_kind(value)}")
            return value if isinstance(value, str) else json.dumps(value)
        if not isinstance(value, str):
            raise DataError(f"{where} must be the path of a {modality} file, this is a {_kind(value)}")
        path = self.path.parent / value
        try:
            found = path.stat()
        except OSError:
            raise DataError(f"{where}: {path}: no such file") from None
        # the same key means the same codes, so a file that is replaced gets another key
        return Media(modality, path, key=f"{path}#{found.st_size}-{found.st_mtime_ns}")


def jsonl(options: Mapping[str, Any], modalities: Collection[str]) -> JsonLines:
    """Opens the reader from a recipe's options: `path`, relative to the working directory, and `fields`.

    Raises:
        RecipeError: an option is missing or unknown.
        DataError: the file is missing or empty.
    """
    problems = [
        f"reader `jsonl` has no option `{name}`{nearest(name, _OPTIONS)}" for name in options if name not in _OPTIONS
    ]
    if not isinstance(options.get("path"), str):
        problems.append("reader `jsonl` needs the option `path`, the JSON Lines file")
    if problems:
        raise RecipeError(problems)
    return JsonLines(Path(options["path"]), modalities, options.get("fields"))


_Offsets = npt.NDArray[np.int64]


def _index_lines(path: Path) -> tuple[_Offsets, _Offsets, _Offsets]:
    """Byte offsets of the start and end of every line that is not blank, and its number from 1."""
    breaks, returns, size = [], [], 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            content = np.frombuffer(chunk, dtype=np.uint8)
            breaks.append(np.flatnonzero(content == ord("\n")) + size)
            returns.append(np.flatnonzero(content == ord("\r")) + size)
            size += len(chunk)
    stops = np.concatenate([*breaks, [size]]).astype(np.int64)
    starts = np.concatenate([[0], stops[:-1] + 1]).astype(np.int64)
    blank = np.isin(starts, np.concatenate([*returns, []])) & (stops - starts == 1)  # a blank line that ends in \r\n
    filled = np.flatnonzero((stops > starts) & ~blank)
    return starts[filled], stops[filled], filled + 1


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
