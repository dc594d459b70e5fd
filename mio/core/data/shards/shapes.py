"""A record taken apart: its shape, its texts and its items of codes. Free of torch.

The shape is what remains of a record without its content: names of fields, lists, turns. Records of one source have few
distinct ones, so a shard keeps each once. It is written as JSON:

| JSON | stands for |
| --- | --- |
| `0` | a text |
| `"M"` | codes of modality M |
| `["", "M", "P", n]` | an item of modality M that consists of n items of modality P |
| any other `[...]` | a list |
| `{"name": ...}` | a mapping, the record itself among them |
| `{"": value}` | a constant: a turn's role or weight, a truth value, null |
| `-1` | a field whose content could not be tokenised |
| `["!", "KIND"]` | a field that no template could use: what it holds |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

from mio.core.contract.values import Codes, Media
from mio.core.data.partial import Failed
from mio.core.errors import DataError
from mio.core.tokens.chat import ROLE, WEIGHT

TEXT_SLOT, FAILED_SLOT = 0, -1
UNUSABLE = "!"
"""Begins a list that stands for a field which no template could use."""


class Unstorable(Exception):
    """A value that no template could use either. The message names its type."""


def take_apart(value: Any, texts: list[str], items: list[tuple[str, Any]]) -> Any:
    """Shape of a value; its texts and codes are appended in the order in which they occur. Raises `Unstorable`."""
    if isinstance(value, str):
        texts.append(value)
        return TEXT_SLOT
    if isinstance(value, Codes):
        if value.codebooks:
            raise DataError(f"codes of `{value.modality}` hold the codebooks {list(value.codebooks)} alone")
        items.append((value.modality, value.codes))
        return value.modality
    if isinstance(value, Failed):
        if value.kind:
            raise Unstorable(value.kind)
        return FAILED_SLOT
    if value is None or isinstance(value, bool):
        return {"": value}
    if isinstance(value, Real):
        texts.append(str(value))
        return TEXT_SLOT
    if isinstance(value, Media) and isinstance(value.data, tuple):
        for part in value.data:
            take_apart(part, texts, items)
        return ["", value.modality, value.data[0].modality if value.data else "", len(value.data)]
    if isinstance(value, list | tuple):
        return [take_apart(item, texts, items) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) and name for name in value):
            raise Unstorable(f"a mapping with the keys {list(value)}")
        return {
            name: {"": inner} if _constant(name, inner) else take_apart(inner, texts, items)
            for name, inner in value.items()
        }
    raise Unstorable(type(value).__name__)


def _constant(name: str, value: Any) -> bool:
    """Whether a value inside a turn is one of a few, hence part of the shape."""
    return (name == ROLE and isinstance(value, str)) or (name == WEIGHT and isinstance(value, Real))


class Shape:
    """A shape, ready to put records together."""

    __slots__ = ("_fields", "kinds", "unusable")

    def __init__(self, shape: Mapping[str, Any]) -> None:
        self.unusable: dict[str, Failed] = {
            name: Failed(f"`{name}` holds a {inner[1]}, which no template can use", inner[1])
            for name, inner in shape.items()
            if isinstance(inner, list) and inner[:1] == [UNUSABLE]
        }
        """Fields that no template could use."""
        self._fields = tuple(
            (name, inner) for name, inner in shape.items() if inner != FAILED_SLOT and name not in self.unusable
        )
        self.kinds: tuple[str, ...] = tuple(_kinds([inner for _, inner in self._fields]))
        """Modality of each item, in order."""

    def put_together(self, texts: Iterator[str], items: Iterator[Codes]) -> dict[str, Any]:
        """The record of these texts and items, as many as the shape has."""
        record: dict[str, Any] = {}
        for name, inner in self._fields:
            if inner == TEXT_SLOT:
                record[name] = next(texts)
            elif isinstance(inner, str):
                record[name] = next(items)
            else:
                record[name] = _restored(inner, texts, items)
        return record


def _restored(shape: Any, texts: Iterator[str], items: Iterator[Codes]) -> Any:
    if shape == TEXT_SLOT:
        return next(texts)
    if isinstance(shape, str):
        return next(items)
    if isinstance(shape, list):
        if shape and shape[0] == "":
            _, modality, _, count = shape
            return Media(modality, tuple(next(items) for _ in range(count)), key="tokenised")
        return [_restored(inner, texts, items) for inner in shape]
    if "" in shape:
        return shape[""]
    return {name: _restored(inner, texts, items) for name, inner in shape.items()}


def _kinds(shape: Any) -> Iterator[str]:
    if isinstance(shape, str):
        yield shape
    elif isinstance(shape, list):
        if shape and shape[0] == "":
            yield from [shape[2]] * shape[3]
        else:
            for inner in shape:
                yield from _kinds(inner)
    elif isinstance(shape, dict) and "" not in shape:
        for inner in shape.values():
            yield from _kinds(inner)


def parts_in(shape: Any) -> Iterator[str]:
    """Modalities of parts that occur in a shape."""
    if isinstance(shape, list):
        if shape and shape[0] == "":
            yield shape[1]
        else:
            for inner in shape:
                yield from parts_in(inner)
    elif isinstance(shape, dict) and "" not in shape:
        for inner in shape.values():
            yield from parts_in(inner)
