"""Rows of any file format to records: fields and media, conversations, interleaved documents. Free of torch.

Options that all readers share are listed in `options.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mio.core.contract.controls import CONTROL
from mio.core.contract.values import TEXT, Modality, Record, Value
from mio.core.data.partial import Failed, Notes, PartialRecord
from mio.core.data.readers.cells import MediaCells, empty
from mio.core.data.readers.coded import CodedText
from mio.core.data.readers.conversations import COLUMNS, Beside, Conversations, control_of
from mio.core.data.readers.json_values import a_json_type, json_type, text_of
from mio.core.errors import DataError
from mio.core.tokens.chat import END_TAG, is_closed

_PARTS, _MESSAGES = "parts", "messages"
_UNUSABLE = ("object", "date", "time", "duration", "bytes")
"""Kinds of values that no template could use."""


@dataclass(frozen=True)
class Kinds:
    """What readers know of the modalities of a recipe."""

    modalities: Mapping[str, Modality]
    suffixes: Callable[[], Mapping[str, tuple[str, ...]]] = field(default=dict)
    """File name endings that can be read, by modality."""
    names: Callable[[], Mapping[str, tuple[str, ...]]] = field(default=dict)
    """What data call a modality beside its own name, by modality."""
    controls: tuple[str, ...] = ()
    """Names of the control tokens."""

    @property
    def media(self) -> set[str]:
        """Names of the modalities that are not text."""
        return {name for name, declared in self.modalities.items() if not declared.text}

    @cached_property
    def called(self) -> dict[str, str]:
        """Modality by each name that data give it. Of a name that several claim, none is meant."""
        claims: dict[str, list[str]] = {}
        for modality, names in self.names().items():
            for name in names:
                claims.setdefault(name, []).append(modality)
        clear = {name: claimants[0] for name, claimants in claims.items() if len(claimants) == 1}
        return {name: name for name in self.modalities if name in self.media} | {
            name: modality for name, modality in clear.items() if name not in self.modalities
        }


class RowReader:
    """Makes a record of a row: a mapping of columns to JSON values, bytes, or `{"bytes": ..., "path": ...}`.

    A field is text unless it is named like a modality, or `fields` says what it is: a modality, `text`, or `control`,
    where it holds names of control tokens. `messages` is a conversation (see
    `conversations.py`), `parts` a list of text and typed parts. Fields that are null are left out; one that cannot be
    made costs the record only if it is used.
    """

    def __init__(self, options: Mapping[str, Any], kinds: Kinds, folder: Path) -> None:
        """`folder` is where relative paths start, unless the option `folder` says otherwise."""
        self.columns: Mapping[str, str] | None = options.get("columns")
        """Field by column; None: all columns, each a field of its own name."""
        self.chosen: Mapping[str, str] = options.get("fields") or {}
        """Modality by field, as the option `fields` says."""
        self.fields = {name: name for name in kinds.media} | dict(self.chosen)
        """Modality by field. Others are text."""
        self._turns: Mapping[str, str] = options.get("turns") or {}
        self._aligned: Mapping[str, str] = options.get("aligned") or {}
        self._inserted: Mapping[str, Any] = options.get("inserted") or {}
        folder = Path(options["folder"]) if options.get("folder") else folder
        coded = CodedText(kinds.modalities.values() if options.get("coded") else ())
        self._cells = MediaCells(folder, kinds.suffixes, coded)
        self._kinds = kinds
        self._placeholders: Mapping[str, str] = options.get("placeholders") or {}
        declared = [(name, one.code_token, one.text) for name, one in sorted(kinds.modalities.items())]
        called = sorted(kinds.called.items())
        controls = [sorted(kinds.controls)] if kinds.controls else []
        self.reading = json.dumps(
            [dict(options), declared, called, str(folder), *controls], sort_keys=True, default=str
        )
        """Says how rows are read: with another, they may name other media."""

    @cached_property
    def _conversations(self) -> Conversations:
        kinds = self._kinds
        return Conversations(kinds.media, self._called, self._placeholders, self._turns, self._cells, kinds.controls)

    @cached_property
    def _called(self) -> dict[str, str]:
        """Modality by each name that data may give it, in a conversation and of columns beside it."""
        called = dict(self._kinds.called)
        for column, modality in self.chosen.items():
            if modality not in (TEXT, CONTROL):
                called |= {name: modality for name in (column, column.removesuffix("s")) if name}
        return called

    def record(self, row: Mapping[str, Any], where: str) -> Record:
        """The record of a row. Raises `DataError`, naming `where`, if nothing can be made of the row."""
        values: dict[str, Any] = {}
        failed: dict[str, Failed] = {}
        unknown: dict[str, None] = {}

        def put(name: str, make: Callable[..., Any], *arguments: Any, unusable: str = "") -> None:
            try:
                values[name] = make(*arguments)
            except DataError as error:
                failed[name] = Failed(str(error), unusable)

        taken: set[str] = set()
        if self._aligned:
            put(_PARTS, self._side_by_side, row, where)
            taken.update(self._aligned)
        if self._inserted:
            put(_PARTS, self._with_insertions, row, where)
            taken.update((self._inserted["texts"], self._inserted["items"]))
        fields = {name: value for name, value in self._named(row, taken) if value is not None}
        talk = self._conversation(fields, where)
        modalities = self._modalities(fields, talk)
        for name, value in fields.items():
            if name == _PARTS and name != talk:
                put(name, self._conversations.parts, value, f"{where}: `parts`", unknown)
            elif name != talk:
                modality = modalities[name]
                unusable = json_type(value) if modality == TEXT else ""
                unusable = unusable if unusable in _UNUSABLE else ""
                put(name, self._field, modality, value, f"{where}: `{name}`", unusable=unusable)
        if talk:
            put(_MESSAGES, self._messages, fields, talk, modalities, values, failed, unknown, where)
        if failed and not values:
            raise DataError(next(iter(failed.values())).reason)
        if failed or unknown:
            return PartialRecord(values, Notes(failed, unknown=tuple(unknown)))
        return values

    def _named(self, row: Mapping[str, Any], taken: set[str]) -> Iterator[tuple[str, Any]]:
        if self.columns is None:
            return ((_storable(name), value) for name, value in row.items() if name not in taken)
        return ((name, row.get(column)) for column, name in self.columns.items())

    def _conversation(self, fields: Mapping[str, Any], where: str) -> str:
        """Which field is the conversation; none if it is the empty string."""
        if "column" in self._turns:
            return self._turns["column"] if self._turns["column"] in fields else ""
        columns = [
            name
            for name in COLUMNS
            if name in fields and name not in self.chosen and (name == _MESSAGES or isinstance(fields[name], list))
        ]
        if len(columns) > 1:
            raise DataError(f"{where}: holds both `{columns[0]}` and `{columns[1]}`; say which by `columns`")
        return columns[0] if columns else ""

    def _modalities(self, fields: Mapping[str, Any], talk: str) -> dict[str, str]:
        """Modality of each field. Beside a conversation, media may be in columns that only go by a name of it."""
        if not talk:
            return {name: self.fields.get(name, TEXT) for name in fields}
        modalities = {}
        for name, value in fields.items():
            called = self._called.get(name) or self._called.get(name.removesuffix("s"), TEXT)
            media = isinstance(value, str | list | bytes | Mapping)
            modalities[name] = self.fields.get(name) or (called if media else TEXT)
        return modalities

    def _messages(
        self,
        fields: Mapping[str, Any],
        talk: str,
        modalities: Mapping[str, str],
        values: Mapping[str, Any],
        failed: Mapping[str, Failed],
        unknown: dict[str, None],
        where: str,
    ) -> list[dict[str, Any]]:
        media: dict[str, tuple[str, list[Any]]] = {}
        for name, modality in modalities.items():
            if modality in (TEXT, CONTROL) or empty(fields[name]):
                continue
            if name in failed:
                raise DataError(failed[name].reason)
            if modality in media:
                raise DataError(
                    f"{where}: both `{media[modality][0]}` and `{name}` hold media of `{modality}`; leave one out by "
                    "`columns`"
                )
            if isinstance(fields[name], list) and any(map(empty, fields[name])):
                raise DataError(f"{where}: `{name}` has an empty place, so that its order is not clear")
            media[modality] = (name, values[name] if isinstance(values[name], list) else [values[name]])
        others = {name: fields[name] for name, modality in modalities.items() if modality == TEXT and name != talk}
        beside = Beside(media, others, unknown)
        messages = self._conversations.messages(fields[talk], talk, beside, where)
        prompt = values.get("system")
        if isinstance(prompt, str) and not empty(prompt) and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": [prompt]})
        if END_TAG in fields and not is_closed(fields):  # of the conversation: of its last answer
            for message in [message for message in messages if message["role"] == "assistant"][-1:]:
                message[END_TAG] = False
        return messages

    def _field(self, modality: str, value: Any, where: str) -> Any:
        if modality != TEXT:
            if empty(value):
                return []
            if isinstance(value, list):
                return [self._value(modality, item, where) for item in value if item is not None]
            return self._value(modality, value, where)
        if isinstance(value, list):
            return [text_of(item, where) for item in value if item is not None]
        text = text_of(value, where)
        pieces = self._cells.coded.parse(text, where) if isinstance(value, str) else [text]
        return pieces[0] if len(pieces) == 1 else pieces

    def _value(self, modality: str, value: Any, where: str) -> Value:
        if modality == CONTROL:
            return control_of(value, self._kinds.controls, where)
        return text_of(value, where) if modality == TEXT else self._cells.item(modality, value, where)

    def _side_by_side(self, row: Mapping[str, Any], where: str) -> list[Value]:
        lists: dict[str, Any] = {column: row.get(column) for column in self._aligned}
        for column, cells in lists.items():
            if not isinstance(cells, list):
                raise DataError(f"{where}: `{column}` must be a list, this is {a_json_type(cells)}")
        if len({len(cells) for cells in lists.values()}) > 1:
            raise DataError(f"{where}: {', '.join(f'`{column}`' for column in lists)} differ in length")
        parts: list[Value] = []
        for cells in zip(*lists.values(), strict=True):
            for (column, modality), cell in zip(self._aligned.items(), cells, strict=True):
                if cell is not None and cell != "":
                    parts.append(self._value(modality, cell, f"{where}: `{column}`"))
        return parts

    def _with_insertions(self, row: Mapping[str, Any], where: str) -> list[Value]:
        keys = self._inserted
        texts, items = row.get(keys["texts"]), row.get(keys["items"])
        if not isinstance(texts, list) or not isinstance(items, list):
            raise DataError(f"{where}: `{keys['texts']}` and `{keys['items']}` must be lists")
        before: dict[int, list[Value]] = {}
        for item in items:
            if not isinstance(item, dict) or not isinstance(item.get(keys["place"]), int) or keys["name"] not in item:
                raise DataError(f"{where}: an item of `{keys['items']}` needs `{keys['name']}` and `{keys['place']}`")
            if "score" in keys and not item.get(keys["score"], 0) >= keys.get("least", 0):
                continue
            value = self._value(keys["modality"], item[keys["name"]], f"{where}: `{keys['items']}`")
            before.setdefault(item[keys["place"]], []).append(value)
        parts: list[Value] = []
        for number, text in enumerate(texts):
            parts += before.pop(number, [])
            parts.append(self._value(TEXT, text if not parts or number == 0 else f" {text}", where))
        if before:
            raise DataError(f"{where}: `{keys['place']}` is {min(before)}, there are {len(texts)} texts")
        return parts


def _storable(name: Any) -> str:
    """A column's name, as a text that any file can hold."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def files_of(pattern: str, what: str) -> list[Path]:
    """Files that a path or shell-style pattern names, sorted; hidden ones only if it names them as such.

    Raises `DataError` if there are none.
    """
    path = Path(pattern)
    if path.is_file():
        return [path]
    anchor = Path(path.anchor) if path.is_absolute() else Path()
    inside = str(path.relative_to(anchor)) if path.is_absolute() else pattern
    named = Path(pattern).parts
    matches = anchor.glob(inside) if any(c in pattern for c in "*?[") else ()
    files = sorted(
        match
        for match in matches
        if match.is_file()
        and not any(part[0] == "." and part not in named and named[-1][0] != "." for part in match.parts)
    )
    if not files:
        raise DataError(
            f"{pattern}: no such {what} (relative paths start from {Path.cwd()}); correct the option `path`"
        )
    return files
