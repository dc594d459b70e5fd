"""Rows of any file format to records: fields and media, conversations, interleaved documents. Free of torch.

Options that all readers share:

| option | meaning |
| --- | --- |
| `columns` | column of the data -> field of the record; columns that it does not name are left out |
| `fields` | field -> modality or `text`, where its name does not say so |
| `turns` | `{column, role, content}`: a column of turns under other names than `messages`, `role` and `content` |
| `aligned` | column -> modality: lists of one length, at each place of which one is filled, as OBELICS has them |
| `inserted` | a list of texts and a list of items with the number of the text that each precedes, as MMC4 has them |
| `coded` | text may hold code tokens, as AnyGPT's corpora do |
| `folder` | where relative paths of media start |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mio.core.data.readers.coded import CodedText
from mio.core.data.readers.spill import spill
from mio.core.errors import DataError, RecipeError
from mio.core.modality import TEXT, Codes, Media, Modality, Record, Value
from mio.core.suggest import nearest

SHARED = ("columns", "fields", "turns", "aligned", "inserted", "coded", "folder")
"""Options of every reader."""
_TURNS = {"column": "messages", "role": "role", "content": "content"}
_INSERTED = ("texts", "items", "name", "place", "modality", "score", "least")
_SCALARS = (str, int, float)


@dataclass(frozen=True)
class Kinds:
    """What readers know of the modalities of a recipe."""

    modalities: Mapping[str, Modality]
    suffixes: Callable[[], Mapping[str, tuple[str, ...]]] = field(default=dict)
    """File name endings that can be read, by modality."""

    @property
    def media(self) -> set[str]:
        """Names of the modalities that are not text."""
        return {name for name, declared in self.modalities.items() if not declared.text}


def option_problems(reader: str, options: Mapping[str, Any], own: Mapping[str, type], kinds: Kinds) -> list[str]:
    """What is wrong with a reader's options.

    Args:
        own: the reader's own options with their types.
    """
    types: dict[str, type] = {**own, "coded": bool, "folder": str}
    types |= dict.fromkeys(("columns", "fields", "turns", "aligned", "inserted"), Mapping)
    problems = []
    for name, value in options.items():
        if name not in types:
            problems.append(f"reader `{reader}` has no option `{name}`{nearest(name, types)}")
        elif not isinstance(value, types[name]):
            wanted = {Mapping: "a mapping", bool: "`true` or `false`", str: "text"}.get(
                types[name], types[name].__name__
            )
            problems.append(f"reader `{reader}`: option `{name}` must be {wanted}, not {value!r}")
    if problems:
        return problems
    known = [TEXT, *kinds.media]
    for option in ("fields", "aligned"):
        for column, modality in (options.get(option) or {}).items():
            if modality not in known:
                problems.append(
                    f"option `{option}.{column}` names an unknown modality `{modality}`{nearest(modality, known)}"
                )
    problems += [
        f"option `turns` has no `{name}`{nearest(name, _TURNS)}"
        for name in options.get("turns", ())
        if name not in _TURNS
    ]
    inserted = options.get("inserted") or {}
    problems += [
        f"option `inserted` has no `{name}`{nearest(name, _INSERTED)}" for name in inserted if name not in _INSERTED
    ]
    if inserted:
        problems += [f"option `inserted` needs `{name}`" for name in _INSERTED[:5] if name not in inserted]
        if inserted.get("modality", known[0]) not in known:
            problems.append(f"option `inserted.modality` names an unknown modality `{inserted['modality']}`")
    return problems


class RowReader:
    """Makes a record of a row: a mapping of columns to JSON values, bytes, or `{"bytes": ..., "path": ...}`.

    A field is text unless it is named like a modality, or `fields` says what it is. `messages` is a conversation whose
    content is a string or a list of typed parts (`{"type": "text", "text": ...}`, `{"type": M, M: path}`), `parts` such
    a list alone. Fields that are null are left out.
    """

    def __init__(self, options: Mapping[str, Any], kinds: Kinds, folder: Path) -> None:
        """`folder` is where relative paths start, unless the option `folder` says otherwise."""
        self._columns: Mapping[str, str] | None = options.get("columns")
        self._media = kinds.media
        self._kinds = kinds
        self._fields = {name: name for name in self._media} | dict(options.get("fields") or {})
        self._turns = _TURNS | dict(options.get("turns") or {})
        self._aligned: Mapping[str, str] = options.get("aligned") or {}
        self._inserted: Mapping[str, Any] = options.get("inserted") or {}
        self._coded = CodedText(kinds.modalities.values()) if options.get("coded") else None
        self._folder = Path(options["folder"]) if options.get("folder") else folder

    def record(self, row: Mapping[str, Any], where: str) -> Record:
        """The record of a row. Raises `DataError`, naming `where`, if the row does not hold what it should."""
        record: dict[str, Any] = {}
        taken: set[str] = set()
        if self._aligned:
            record["parts"] = self._side_by_side(row, where)
            taken.update(self._aligned)
        if self._inserted:
            record["parts"] = self._with_insertions(row, where)
            taken.update((self._inserted["texts"], self._inserted["items"]))
        if self._columns is None:
            named = [(name, value) for name, value in row.items() if name not in taken]
        else:
            named = [(name, row.get(column)) for column, name in self._columns.items()]
        for name, value in named:
            if value is None:
                continue
            if name == self._turns["column"]:
                record["messages"] = self._messages(value, where)
            elif name == "parts":
                record["parts"] = self._parts(value, f"{where}: `parts`")
            else:
                record[name] = self._field(name, value, f"{where}: `{name}`")
        return record

    def _field(self, name: str, value: Any, where: str) -> Any:
        modality = self._fields.get(name, TEXT)
        if isinstance(value, list):
            return [self._value(modality, item, where) for item in value if item is not None]
        if self._coded and modality == TEXT and isinstance(value, str):
            return self._decoded(value, where)
        return self._value(modality, value, where)

    def _decoded(self, text: str, where: str) -> str | Codes | list[str | Codes]:
        assert self._coded is not None
        try:
            return self._coded.parse(text)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None

    def _messages(self, value: Any, where: str) -> list[dict[str, Any]]:
        column, role, content = (self._turns[name] for name in ("column", "role", "content"))
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
            value = value[0]  # AnyGPT's files hold a list of one conversation
        if not isinstance(value, list) or not value:
            raise DataError(f"{where}: `{column}` must be a list of turns")
        turns = []
        for number, turn in enumerate(value):
            place = f"{where}: `{column}[{number}]`"
            if not isinstance(turn, dict) or not isinstance(turn.get(role), str) or content not in turn:
                raise DataError(f"{place} must have `{role}` and `{content}`")
            turns.append({"role": turn[role], "content": self._parts(turn[content], place)})
        return turns

    def _parts(self, value: Any, where: str) -> list[Value]:
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            raise DataError(f"{where} must be a string or a list of parts, this is a {kind(value)}")
        parts: list[Value] = []
        for part in value:
            made = self._part(part, where)
            parts += made if isinstance(made, list) else [made]
        return parts

    def _part(self, part: Any, where: str) -> Value | list[str | Codes]:
        if isinstance(part, str):
            return self._decoded(part, where) if self._coded else part
        name = part.get("type") if isinstance(part, dict) else None
        if not isinstance(name, str) or name not in part:
            raise DataError(f'{where}: a part is a string or an object like {{"type": "text", "text": ...}}')
        if name != TEXT and name not in self._media:
            raise DataError(f"{where}: unknown part type `{name}`{nearest(name, [TEXT, *self._media])}")
        if name == TEXT and isinstance(part[name], str):
            return self._part(part[name], where)
        return self._value(name, part[name], where)

    def _side_by_side(self, row: Mapping[str, Any], where: str) -> list[Value]:
        lists = {column: row.get(column) for column in self._aligned}
        for column, cells in lists.items():
            if not isinstance(cells, list):
                raise DataError(f"{where}: `{column}` must be a list, this is a {kind(cells)}")
        if len({len(cells) for cells in lists.values() if cells is not None}) > 1:
            raise DataError(f"{where}: {', '.join(f'`{column}`' for column in lists)} differ in length")
        parts: list[Value] = []
        for cells in zip(*(lists[column] or () for column in self._aligned), strict=True):
            for (column, modality), cell in zip(self._aligned.items(), cells, strict=True):
                if cell is not None and cell != "":
                    parts.append(self._value(modality, cell, f"{where}: `{column}`"))
        return parts

    def _with_insertions(self, row: Mapping[str, Any], where: str) -> list[Value]:
        told = self._inserted
        texts, items = row.get(told["texts"]), row.get(told["items"])
        if not isinstance(texts, list) or not isinstance(items, list):
            raise DataError(f"{where}: `{told['texts']}` and `{told['items']}` must be lists")
        before: dict[int, list[Value]] = {}
        for item in items:
            if not isinstance(item, dict) or not isinstance(item.get(told["place"]), int) or told["name"] not in item:
                raise DataError(f"{where}: an item of `{told['items']}` needs `{told['name']}` and `{told['place']}`")
            if "score" in told and not item.get(told["score"], 0) >= told.get("least", 0):
                continue
            made = self._value(told["modality"], item[told["name"]], f"{where}: `{told['items']}`")
            before.setdefault(item[told["place"]], []).append(made)
        parts: list[Value] = []
        for number, text in enumerate(texts):
            parts += before.pop(number, [])
            parts.append(self._value(TEXT, text if not parts or number == 0 else f" {text}", where))
        if before:
            raise DataError(f"{where}: `{told['place']}` is {min(before)}, there are {len(texts)} texts")
        return parts

    def _value(self, modality: str, value: Any, where: str) -> Value:
        if modality == TEXT:
            if not isinstance(value, _SCALARS):
                raise DataError(f"{where} must be text, this is a {kind(value)}")
            return value if isinstance(value, str) else json.dumps(value)
        if self._coded and isinstance(value, str):
            made = self._decoded(value, where)
            if isinstance(made, Codes):
                return made
        if isinstance(value, dict) and ("bytes" in value or "path" in value):
            name = value.get("path")
            if value.get("bytes") is None:
                value = name
            elif not isinstance(value["bytes"], bytes) or not isinstance(name, str | None):
                raise DataError(
                    f"{where}: `bytes` must be bytes and `path` text, as only Parquet, Arrow and the Hub have"
                )
            else:
                return self._of_bytes(modality, value["bytes"], Path(name or "").suffix)
        if isinstance(value, bytes):
            return self._of_bytes(modality, value, "")
        if not isinstance(value, str):
            raise DataError(f"{where} must be the path of a {modality} file, this is a {kind(value)}")
        return media_file(modality, self._folder / value, where)

    def _of_bytes(self, modality: str, content: bytes, suffix: str) -> Media:
        known = self._kinds.suffixes().get(modality, ())
        if suffix.lower() not in known:
            suffix = known[0] if known else suffix
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        return Media(modality, spill(content, suffix), key=f"{digest}{suffix}")


def media_file(modality: str, path: Path, where: str) -> Media:
    """A file as media. Raises `DataError` if it is not there."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        raise DataError(f"{where}: {path}: no such file") from None
    # the same key means the same codes, so a file that is replaced gets another key
    return Media(modality, path, key=f"{path}#{found.st_size}-{found.st_mtime_ns}")


def files_of(pattern: str, what: str) -> list[Path]:
    """Files that a path or shell-style pattern names, sorted. Raises `DataError` if there are none."""
    path = Path(pattern)
    if path.is_file():
        return [path]
    anchor = Path(path.anchor) if path.is_absolute() else Path()
    inside = str(path.relative_to(anchor)) if path.is_absolute() else pattern
    found = (
        sorted(found for found in anchor.glob(inside) if found.is_file()) if any(c in pattern for c in "*?[") else []
    )
    if not found:
        raise DataError(
            f"{pattern}: no such {what} (relative paths start from {Path.cwd()}); correct the option `path`"
        )
    return found


def path_option(reader: str, options: Mapping[str, Any], what: str) -> str:
    """The option `path`. Raises `RecipeError` if it is missing."""
    if not isinstance(options.get("path"), str):
        raise RecipeError([f"reader `{reader}` needs the option `path`, {what}"])
    return str(options["path"])


def fingerprint_of_files(paths: list[Path]) -> str:
    """Changes when files are added, removed, grow, shrink, or begin or end otherwise."""
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        size = path.stat().st_size
        with path.open("rb") as file:
            begin = file.read(1 << 16)
            file.seek(max(0, size - (1 << 16)))
            digest.update(f"{path.name}:{size}:".encode() + begin + file.read())
    return digest.hexdigest()


def kind(value: Any) -> str:
    """What JSON calls a value."""
    names = {dict: "object", list: "list", str: "string", bool: "boolean", bytes: "bytes", type(None): "null"}
    return names.get(type(value), "number")
