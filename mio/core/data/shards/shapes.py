"""A record taken apart: its shape, its texts and its items of codes. Free of torch.

The shape is what remains of a record without its content: names of fields, lists, turns. Records of one source have few
distinct ones, so a shard keeps each once, as JSON:

| node | JSON |
| --- | --- |
| `Text` | `0` |
| `Item` | `"M"` |
| `Parts` | `["", "M", "P", n]`; `["", "M", ["P", "Q"], 2]` of parts of several modalities |
| `Kept` | `["@", "M", node of its codes]`, or `["@", "M"]` where it has none |
| `List` | any other `[node, ...]` |
| `Fields`, the record itself among them | `{"name": node, ...}` |
| `Constant` | `{"": value}`; `["", "NAME"]` of a control token |
| a field of the record whose content could not be tokenised | `-1` |
| a field of the record that no template could use, holding a KIND | `["!", "KIND"]` |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from mio.core.contract.controls import Control
from mio.core.contract.values import Codes, Media
from mio.core.data.partial import Failed
from mio.core.data.shards.kept import PREFIX, KeptMedia, unpack
from mio.core.errors import DataError
from mio.core.tokens.chat import ROLE, WEIGHT
from mio.core.tokens.tokenised import CodedMedia
from mio.core.tokens.visitor import Visitor

FAILED_FIELD, UNUSABLE_FIELD = -1, "!"


@dataclass(frozen=True, slots=True)
class Text:
    """A text.

    `restore` makes the value of a node, here and below, of the next of a record's texts and items.
    """

    def restore(self, texts: Iterator[str], _: Iterator[Codes]) -> str:
        return next(texts)


@dataclass(frozen=True, slots=True)
class Item:
    """An item of codes."""

    modality: str

    def restore(self, _: Iterator[str], items: Iterator[Codes]) -> Codes:
        return next(items)


@dataclass(frozen=True, slots=True)
class Parts:
    """An item of a modality of parts: `count` items of one modality, or one of each of several."""

    modality: str
    part: str | tuple[str, ...]
    count: int

    def restore(self, _: Iterator[str], items: Iterator[Codes]) -> Media:
        return Media(self.modality, tuple(next(items) for _ in range(self.count)), key="tokenised")


@dataclass(frozen=True, slots=True)
class Kept:
    """An item that is kept as it is (see `mio.core.data.shards.kept`), and its codes, if it has any."""

    modality: str
    codes: Item | Parts | None = None

    def restore(self, texts: Iterator[str], items: Iterator[Codes]) -> Media:
        media = unpack(self.modality, next(items).codes)
        match self.codes:
            case None:
                return media
            case Item():
                codes: Codes | tuple[Codes, ...] = self.codes.restore(texts, items)
            case Parts():
                codes = self.codes.restore(texts, items).data
        return CodedMedia(media.modality, media.data, media.key, media.label, codes)


@dataclass(frozen=True, slots=True)
class List:
    """A list of nodes."""

    nodes: tuple[Node, ...]

    def restore(self, texts: Iterator[str], items: Iterator[Codes]) -> list[Any]:
        return [node.restore(texts, items) for node in self.nodes]


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping of names to nodes."""

    nodes: Mapping[str, Node]

    def restore(self, texts: Iterator[str], items: Iterator[Codes]) -> dict[str, Any]:
        return {name: next(texts) if node is TEXT else node.restore(texts, items) for name, node in self.nodes.items()}


@dataclass(frozen=True, slots=True)
class Constant:
    """One of a few values, part of the shape: a turn's role or weight, a control token, a truth value, null."""

    value: Any

    def restore(self, _: Iterator[str], __: Iterator[Codes]) -> Any:
        return self.value


Node = Text | Item | Parts | Kept | List | Fields | Constant
TEXT = Text()


def to_json(node: Node) -> Any:
    """A node as values of JSON."""
    match node:
        case Text():
            return 0
        case Item(modality):
            return modality
        case Parts(modality, part, count):
            return ["", modality, part if isinstance(part, str) else list(part), count]
        case Kept(modality, codes):
            return [PREFIX, modality, *([to_json(codes)] if codes else [])]
        case List(nodes):
            return list(map(to_json, nodes))
        case Fields(fields):
            return {name: to_json(inner) for name, inner in fields.items()}
        case Constant(Control(name)):
            return ["", name]
        case Constant(value):
            return {"": value}


def from_json(written: Any) -> Node:
    """Inverse of `to_json`."""
    match written:
        case 0:
            return TEXT
        case str():
            return Item(written)
        case ["", modality, part, count]:
            return Parts(modality, part if isinstance(part, str) else tuple(part), count)
        case ["", str(name)]:
            return Constant(Control(name))
        case ["@", str(modality)]:
            return Kept(modality)
        case ["@", str(modality), codes]:
            return Kept(modality, from_json(codes))  # type: ignore[arg-type]
        case {"": value}:
            return Constant(value)
        case list():
            return List(tuple(map(from_json, written)))
        case _:
            return Fields({name: from_json(inner) for name, inner in written.items()})


class Unstorable(Exception):
    """A value that no template could use either. The message names its type."""


def take_apart(value: Any, texts: list[str], items: list[tuple[str, Any]]) -> Node:
    """Shape of a value; its texts and codes are appended in the order in which they occur. Raises `Unstorable`."""
    return _TakingApart(texts, items).visit(value)


class _TakingApart(Visitor[Node]):
    def __init__(self, texts: list[str], items: list[tuple[str, Any]]) -> None:
        self._texts = texts
        self._items = items

    def text(self, text: str) -> Node:
        self._texts.append(text)
        return TEXT

    def codes(self, codes: Codes) -> Node:
        if codes.codebooks:
            raise DataError(f"codes of `{codes.modality}` hold the codebooks {list(codes.codebooks)} alone")
        self._items.append((codes.modality, codes.codes))
        return Item(codes.modality)

    def tokenised_media(self, media: Media) -> Node:
        for part in media.data:
            self.visit(part)
        names = tuple(part.modality for part in media.data)
        return Parts(media.modality, names if len(set(names)) > 1 else names[0], len(names))

    def media(self, media: Media) -> Node:
        return Parts(media.modality, "", 0) if isinstance(media.data, tuple) else self.other(media)

    def control(self, control: Control) -> Node:
        return Constant(control)

    def constant(self, constant: bool | None) -> Node:
        return Constant(constant)

    def number(self, number: Real) -> Node:
        return self.text(str(number))

    def sequence(self, values: Sequence[Any]) -> Node:
        return List(tuple(map(self.visit, values)))

    def mapping(self, values: Mapping[str, Any]) -> Node:
        if not all(isinstance(name, str) and name for name in values):
            raise Unstorable(f"a mapping with the keys {list(values)}")
        return Fields(
            {name: Constant(inner) if _constant(name, inner) else self.visit(inner) for name, inner in values.items()}
        )

    def other(self, value: Any) -> Node:
        if not isinstance(value, KeptMedia):
            raise Unstorable(type(value).__name__)
        self._items.append((f"{PREFIX}{value.modality}", value.content))
        return Kept(value.modality, None if value.coded is None else self.visit(value.coded))  # type: ignore[arg-type]


def _constant(name: str, value: Any) -> bool:
    """Whether a value inside a turn is one of a few, hence part of the shape."""
    return (name == ROLE and isinstance(value, str)) or (name == WEIGHT and isinstance(value, Real))


class RecordShape:
    """The shape of a record, to be read."""

    __slots__ = ("fields", "modalities", "parts", "unusable")

    def __init__(self, written: Mapping[str, Any]) -> None:
        self.unusable = {
            name: Failed(f"`{name}` holds a {inner[1]}, which no template can use", inner[1])
            for name, inner in written.items()
            if isinstance(inner, list) and inner[:1] == [UNUSABLE_FIELD]
        }
        """Fields that no template could use."""
        left_out = {name for name, inner in written.items() if inner == FAILED_FIELD} | self.unusable.keys()
        self.fields = Fields({name: from_json(inner) for name, inner in written.items() if name not in left_out})
        """The others."""
        self.modalities: list[str] = []
        """Modality of each item, in order."""
        self.parts: set[str] = set()
        """Modalities of parts that occur."""
        self._look_into(self.fields)

    def _look_into(self, node: Node) -> None:
        if isinstance(node, Item):
            self.modalities.append(node.modality)
        elif isinstance(node, Parts):
            self.modalities += [node.part] * node.count if isinstance(node.part, str) else node.part
            self.parts.add(node.modality)
        elif isinstance(node, Kept):
            self.modalities.append(f"{PREFIX}{node.modality}")
            if node.codes is not None:
                self._look_into(node.codes)
        elif isinstance(node, List | Fields):
            for inner in node.nodes.values() if isinstance(node, Fields) else node.nodes:
                self._look_into(inner)
