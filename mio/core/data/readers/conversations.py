"""Conversations as data sets write them: turns of text, typed parts, and placeholders bound to media in order.

    {"messages": [{"role": "user", "content": "<sketch>What?"}, ...], "sketchs": ["a.png"]}
    {"conversations": [{"from": "human", "value": "<sketch>What?"}, ...], "sketch": "a.png"}
    {"messages": [{"role": "user", "content": [{"type": "sketch"}, {"type": "text", "text": "What?"}]}, ...], ...}
    {"messages": [{"role": "user", "content": [{"type": "sketch_url", "sketch_url": {"url": "data:..."}}, ...]}, ...]}
    {"messages": [..., {"role": "assistant", "content": "...", "control": "noise", "end_tag": false}]}

These are the forms of LLaVA, ms-swift, LLaMA-Factory, TRL and OpenAI's interface. Nothing here names a modality: which
words stand for one is declared by its plugin (`DataModule.names`) or told by the reader's options.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mio.core.contract.controls import CONTROL, Control
from mio.core.contract.values import TEXT, Codes, Media, Value
from mio.core.data.readers.cells import PLACES, MediaCells, empty
from mio.core.data.readers.json_values import a_json_type, check_text, text_of
from mio.core.errors import DataError, nearest
from mio.core.terminal import printable
from mio.core.tokens.chat import CONTENT, END_TAG, ROLE, SWITCHES, WEIGHT, is_closed, role_of, turn_weight

COLUMNS = ("messages", "conversations", "conversation")
"""Columns that hold a conversation, if their content is a list."""
ROLE_KEYS, CONTENT_KEYS = (ROLE, "from"), (CONTENT, "value")
_PREFIX, _SUFFIXES = re.compile("^(?:input|output)_"), ("_url", "_file")
_TAG = re.compile(r"<([a-z][a-z0-9_]*)>")
_A_PART = 'a part is a string or an object like {"type": "text", "text": ...}'
_FILE_LIKE = re.compile(r"(?s)data:.*|\S.{0,4000}\.[A-Za-z][A-Za-z0-9]{1,4}")


@dataclass(frozen=True)
class _Slot:
    """In place of media that a column of the record holds."""

    modality: str
    index: int | None = None
    """Which one; None: the next."""


@dataclass
class Beside:
    """What a record has beside its conversation."""

    media: Mapping[str, tuple[str, list[Media | Codes]]]
    """Column and content of the media to be bound, by modality."""
    others: Mapping[str, Any]
    """All other columns as they are."""
    unknown: dict[str, None] = field(default_factory=dict)
    """Keys of turns and parts that nothing reads, in the order in which they are found."""


class Conversations:
    """Reads the conversations of one source.

    Args:
        media: modalities that are not text.
        names: modality by each name that data may give it.
        placeholders: modality by further placeholders.
        keys: `role` and `content` of the option `turns`, where it has them.
        cells: makes media of what parts hold.
        controls: names of the control tokens.
    """

    def __init__(
        self,
        media: set[str],
        names: Mapping[str, str],
        placeholders: Mapping[str, str],
        keys: Mapping[str, str],
        cells: MediaCells,
        controls: Collection[str] = (),
    ) -> None:
        self._media = media
        self._names = names
        self._slots = {f"<{name}>": modality for name, modality in names.items()} | dict(placeholders)
        self._roles = (keys["role"],) if "role" in keys else ROLE_KEYS
        self._contents = (keys["content"],) if "content" in keys else CONTENT_KEYS
        self._cells = cells
        self._controls = controls

    def messages(self, value: Any, column: str, beside: Beside, where: str) -> list[dict[str, Any]]:
        """Turns of a conversation, with media in the place of their placeholders. Raises `DataError`."""
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
            value = value[0]  # AnyGPT's files hold a list of one conversation
        if not isinstance(value, list) or not value:
            raise DataError(f"{where}: `{column}` must be a list of turns")
        turns = [self._turn(turn, f"{where}: `{column}[{number}]`", beside) for number, turn in enumerate(value)]
        self._bind(turns, beside, where)
        return turns

    def parts(self, value: Any, where: str, unknown: dict[str, None]) -> list[Value]:
        """Parts of an interleaved document, whose text holds no placeholders. Raises `DataError`."""
        values: list[Value] = []
        for part in self._listed(value, where):
            content = self._part(part, where, unknown)
            if isinstance(content, _Slot):
                raise DataError(f"{where}: {_A_PART}; this one of `{content.modality}` has no media")
            values += self._cells.coded.parse(content, where) if isinstance(content, str) else [content]
        return values

    def _turn(self, turn: Any, where: str, beside: Beside) -> dict[str, Any]:
        role, content = self._key(turn, self._roles), self._key(turn, self._contents)
        if role is None or content is None or not isinstance(turn[role], str):
            raise DataError(f"{where} must have `{self._roles[0]}` and `{self._contents[0]}`")
        try:
            message: dict[str, Any] = {ROLE: role_of(turn[role])}
            weight, closed = turn_weight(turn), is_closed(turn)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        learnt = message[ROLE] == "assistant"
        for key, inner in turn.items():
            if key in (role, content) or empty(inner):
                continue
            if key not in self._turn_keys:
                beside.unknown[f"key `{printable(key)}` of a turn"] = None
            elif inner and not learnt:
                beside.unknown[f"key `{key}` of a turn of the {message[ROLE]}, which is never learnt"] = None
        message[CONTENT] = []
        for part in self._listed("" if turn[content] is None else turn[content], where):
            piece = self._part(part, where, beside.unknown)
            message[CONTENT] += self._split(piece, where, beside) if isinstance(piece, str) else [piece]
        if learnt and self._controls and not empty(turn.get(CONTROL)):
            message[CONTENT].insert(0, control_of(turn[CONTROL], self._controls, f"{where}: `{CONTROL}`"))
        if learnt and not closed:
            message[END_TAG] = False
        if learnt and weight != 1:
            message[WEIGHT] = weight
        return message

    @cached_property
    def _turn_keys(self) -> tuple[str, ...]:
        """What a turn of the assistant may have beside role and content."""
        return (WEIGHT, END_TAG, *SWITCHES, *((CONTROL,) if self._controls else ()))

    @staticmethod
    def _key(turn: Any, names: tuple[str, ...]) -> str | None:
        """Under which name a turn holds its role or its content."""
        if not isinstance(turn, dict):
            return None
        there = [name for name in names if name in turn]
        return next((name for name in there if turn[name] is not None), there[0] if there else None)

    @staticmethod
    def _listed(value: Any, where: str) -> list[Any]:
        if isinstance(value, list):
            return value
        if isinstance(value, str | dict):
            return [value]
        raise DataError(f"{where} must be a string or a list of parts, this is {a_json_type(value)}")

    def _part(self, part: Any, where: str, unknown: dict[str, None]) -> str | _Slot | Media | Codes | Control:
        if isinstance(part, str):
            check_text(part, where)
            return part
        if not isinstance(part, Mapping):
            raise DataError(f"{where}: {_A_PART}")
        filled = {name: inner for name, inner in part.items() if name != "type" and not empty(inner)}
        written = part.get("type")
        if written is None:  # Qwen's form: {"sketch": ...}, {"text": ...}
            written = next((name for name in (*filled, *part) if self._modality(name)), None)
        if not isinstance(written, str):
            raise DataError(f"{where}: {_A_PART}")
        if written == CONTROL and self._controls:
            self._note(filled, {"name"}, written, where, unknown)
            return control_of(part.get("name"), self._controls, f"{where}: `name` of a part `{CONTROL}`")
        name = self._modality(written)
        if not name:
            known = [TEXT, *self._media]
            raise DataError(f"{where}: unknown part type `{printable(written[:40])}`{nearest(written, known)}")
        if name == TEXT:
            places = [place for place in (written, TEXT, "content") if place in part]
            if not places:
                raise DataError(f"{where}: {_A_PART}")
            self._note(filled, {places[0], "index"}, written, where, unknown)
            return text_of("" if part[places[0]] is None else part[places[0]], where)
        places = [place for place in filled if self._modality(place) == name or place in PLACES]
        self._note(filled, {*places, "index"}, written, where, unknown)
        if not places:
            index = part.get("index")
            if index is not None and (isinstance(index, bool) or not isinstance(index, int) or index < 0):
                raise DataError(f"{where}: `index` of a part must be a number of 0 or more, not {index!r:.40}")
            return _Slot(name, index)
        return self._given(name, {place: filled[place] for place in places}, where)

    def _given(self, modality: str, filled: Mapping[str, Any], where: str) -> Media | Codes:
        """Media that a part itself holds."""
        own = [place for place in filled if place not in PLACES]
        value = filled[own[0]] if len(own) == 1 and len(filled) == 1 else filled if not own else None
        if value is None:
            raise DataError(f"{where}: a part must hold one item, this has {', '.join(f'`{name}`' for name in filled)}")
        if isinstance(value, list) and len(value) == 1:
            [value] = value
        return self._cells.item(modality, value, where)

    def _note(
        self, filled: Mapping[str, Any], used: set[str], written: str, where: str, unknown: dict[str, None]
    ) -> None:
        """Notes what nothing reads of a part. Raises `DataError` if that is content."""
        for name in filled:
            if name not in used:
                if self._modality(name):
                    raise DataError(f"{where}: a part of `{printable(written)}` holds `{name}` as well; make two of it")
                unknown[f"key `{printable(name)}` of a part `{written}`"] = None

    def _modality(self, written: str) -> str:
        """Modality that a part's type or key means: `sketch`, `sketch_url`, `input_sketch`; empty if none."""
        name = _PREFIX.sub("", written)
        for suffix in _SUFFIXES:
            name = name.removesuffix(suffix)
        if name == TEXT or name in self._media:
            return name
        return self._names.get(name, "")

    @cached_property
    def _placeholder(self) -> re.Pattern[str]:
        longest_first = sorted(self._slots, key=len, reverse=True)
        return re.compile(rf"(\\?)({'|'.join(map(re.escape, longest_first)) or '(?!)'})")

    def _split(self, text: str, where: str, beside: Beside) -> Iterator[Any]:
        """A turn's text with slots in the place of its placeholders. A backslash before one makes it text."""
        for piece in self._cells.coded.parse(text, where):
            if not isinstance(piece, str):
                yield piece
                continue
            if "<" in piece and beside.others:
                self._refuse_strangers(piece, where, beside)
            at, kept = 0, ""
            for match in self._placeholder.finditer(piece):
                kept += piece[at : match.start()]
                at = match.end()
                if match[1]:
                    kept += match[2]
                    continue
                if kept:
                    yield kept
                kept = ""
                yield _Slot(self._slots[match[2]])
            if kept or at < len(piece) or not piece:
                yield kept + piece[at:]

    def _refuse_strangers(self, text: str, where: str, beside: Beside) -> None:
        """Raises `DataError` for a placeholder beside a column of files where the recipe has no such modality."""
        for tag in _TAG.finditer(text):
            if tag.group() in self._slots:
                continue
            for column in (tag[1], f"{tag[1]}s"):
                if _holds_files(beside.others.get(column)):
                    raise DataError(
                        f"{where} holds {tag.group()} and the record `{column}`, but no plugin of the recipe reads "
                        f"them; add it under `plugins:`, say which one by `fields: {{{column}: MODALITY}}`, or leave "
                        "the column out by `columns`"
                    )

    def _bind(self, turns: list[dict[str, Any]], beside: Beside, where: str) -> None:
        """Puts media in the place of the slots: as many as there are, each at least once."""
        count = dict.fromkeys(beside.media, 0)
        for turn in turns:
            for part in turn[CONTENT]:
                if isinstance(part, _Slot):
                    count[part.modality] = count.get(part.modality, 0) + 1
        taken: dict[str, set[int]] = {name: set() for name in count}
        for turn in turns:
            for place, part in enumerate(turn[CONTENT]):
                if isinstance(part, _Slot):
                    column, items = beside.media.get(part.modality, ("", []))
                    index = len(taken[part.modality]) if part.index is None else part.index
                    if index >= len(items):
                        raise DataError(self._mismatch(part.modality, count[part.modality], column, len(items), where))
                    taken[part.modality].add(index)
                    turn[CONTENT][place] = items[index]
        for name, (column, items) in beside.media.items():
            if len(taken[name]) < len(items):
                raise DataError(self._mismatch(name, count[name], column, len(items), where))

    def _mismatch(self, modality: str, placeholders: int, column: str, items: int, where: str) -> str:
        called = " or ".join(text for text, name in self._slots.items() if name == modality)
        columns = [name for name, owner in self._names.items() if owner == modality]
        held = f"`{column}` holds {items}" if column else f"there is no column `{columns[0]}` or `{columns[0]}s`"
        return (
            f"{where}: the conversation has {placeholders} placeholders of `{modality}` ({called}), but {held}; give "
            "each its media, or write a backslash before a placeholder that is only quoted"
        )


def control_of(name: Any, known: Collection[str], where: str) -> Control:
    """The control token that data name. Raises `DataError` with the nearest name if there is none of that name."""
    if not isinstance(name, str) or name not in known:
        hint = nearest(name, known) if isinstance(name, str) else ""
        raise DataError(f"{where} is {name!r:.40}, not one of {', '.join(known)}{hint}")
    return Control(name)


def _holds_files(value: Any) -> bool:
    """Whether a column holds what looks like media: bytes, objects of them, names of files."""
    if isinstance(value, list):
        return any(map(_holds_files, value))
    if isinstance(value, Mapping):
        return any(not empty(value.get(name)) for name in ("bytes", "path"))
    return isinstance(value, bytes) or (isinstance(value, str) and bool(_FILE_LIKE.fullmatch(value.strip())))
