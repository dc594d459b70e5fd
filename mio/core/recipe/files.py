"""Recipe files and overrides, checked against the schema key by key: every problem collected, each with its place."""

from __future__ import annotations

import stat
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.ranges import ALLOWED, Choice, Range
from mio.core.errors import RecipeError, nearest
from mio.core.recipe.interpolation import MISSING, OPENING, reference_problem
from mio.core.recipe.schema import Recipe
from mio.core.recipe.yaml_text import DEEPEST, LARGEST_FILE, LONGEST_KEY, Key, decode, parse_yaml
from mio.core.terminal import plain

REPLACE = "_replace_"
"""Key of a mapping that takes the place of what earlier files put there, rather than being merged into it."""


@dataclass
class Layer:
    """What one file or override says: `content` by key, `marks` the place of each key, for messages."""

    origin: str
    content: dict[str, Any]
    marks: dict[Key, str] = field(default_factory=dict)
    folder: Path = field(default_factory=Path)
    """Folder that relative paths inside the layer start from."""

    def mark(self, key: Key) -> str:
        """Place of the key, or of the closest key around it."""
        while key and key not in self.marks:
            key = key[:-1]
        return self.marks.get(key, self.origin)


def read_layer(path: Path) -> Layer:
    """The content of a recipe file. Raises `RecipeError`."""
    origin = plain(str(path))
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise RecipeError([f"{origin}: is no file; a recipe is a YAML file"])
        with path.open("rb") as file:
            text = decode(file.read(LARGEST_FILE + 1), origin)
    except (OSError, ValueError) as error:
        raise RecipeError([f"{origin}: cannot be read: {getattr(error, 'strerror', None) or error}"]) from None
    content, marks = parse_yaml(text, origin)
    if not isinstance(content, dict):
        raise RecipeError([f"{origin}: a recipe is a mapping of keys, not {value_text(content)}"])
    return Layer(origin, content, marks, path.parent)


def override_layer(text: str) -> Layer:
    """The content of one `key=value` of the command line; the key is dotted, the value YAML."""
    key, _, value = text.partition("=")
    names = key.strip().split(".")
    shown = plain(text if len(text) <= 200 else f"{text[:200]}...").replace("\n", "\\n")
    origin = f"`{shown}`"
    if not all(names):
        raise RecipeError([f"{origin}: the key before `=` is empty or has an empty part"])
    if len(names) >= DEEPEST or any(len(name) > LONGEST_KEY or plain(name) != name for name in names):
        raise RecipeError([f"{origin}: the key before `=` is too long, or holds characters that no key has"])
    try:
        data, _ = parse_yaml(f"value: {value}" if "\n" not in value else f"value:\n{value}", origin)
    except RecipeError as error:
        raise RecipeError([problem.replace(f"{origin}:1: ", f"{origin}: ", 1) for problem in error.problems]) from None
    if not isinstance(data, dict) or set(data) != {"value"}:
        raise RecipeError([f"{origin}: the value after `=` goes on with further keys; give each key by itself"])
    content: Any = data["value"]
    for name in reversed(names):
        content = {name: content}
    return Layer(origin, content)


Allowed = Range | Choice | None
Hint = tuple[Any, Allowed]
"""Type of a key, and which values of it are allowed."""


@cache
def hints_of(kind: type) -> Mapping[str, Hint]:
    """Keys of a dataclass with what they may hold."""
    hints = get_type_hints(kind)
    return {one.name: (hints[one.name], one.metadata.get(ALLOWED)) for one in fields(kind)}


@cache
def model_hints() -> Mapping[str, Hint]:
    """Keys of `model`: a preset's name and the fields of the transformer."""
    return {"preset": (str, None), **hints_of(TransformerConfig)}


class Checker:
    """Checks values against dataclasses and tells what is wrong.

    Args:
        tell: called with the key and the sentence of each problem.
        literal: whether text means itself, as in a recipe that is resolved: `${` opens no interpolation.
    """

    def __init__(self, tell: Callable[[Key, str], None], literal: bool = False) -> None:
        self._tell, self._literal = tell, literal
        self._unknown = _unknown_key

    def recipe(self, content: Any) -> Any:
        """`content` as the schema has it: empty mappings for nothing, whole numbers as floats where floats are due."""
        return self._mapping(content, hints_of(Recipe), ())

    def of(self, kind: type, content: Any, key: Key = ()) -> Any:
        """As `recipe`, for another dataclass, whose keys stand under `key`."""
        return self._mapping(content, hints_of(kind), key)

    def options(self, kind: type, content: Any) -> Any:
        """As `of`, for options of a plugin."""
        self._unknown = _unknown_option
        return self._mapping(content, hints_of(kind), ())

    def _mapping(self, value: Any, hints: Mapping[str, Hint], key: Key) -> Any:
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            self._wrong(key, value, "a mapping")
            return {}
        cleaned = {}
        for name, item in value.items():
            inner = (*key, plain(str(name)))
            if name == REPLACE:
                cleaned[name] = self._value(item, (bool, None), inner)
            elif name not in hints:
                self._tell(inner, self._unknown(str(name), key, hints))
            elif inner == ("model",):
                cleaned[name] = self._mapping(item, model_hints(), inner)
            else:
                cleaned[name] = self._value(item, hints[name], inner)
        return cleaned

    def _value(self, value: Any, hint: Hint, key: Key) -> Any:
        kind, allowed = hint
        if isinstance(value, str) and not self._literal:
            problem = reference_problem(value)
            if problem:
                self._tell(key, f"`{'.'.join(key)}`: {problem}")
                return value
            if OPENING.search(value) or value == MISSING:
                return value  # the type is checked when it is resolved
        if is_dataclass(kind):
            assert isinstance(kind, type)
            return self._mapping(value, hints_of(kind), key)
        origin: Any = get_origin(kind)
        if origin in (Union, types.UnionType):
            options = [option for option in get_args(kind) if option is not type(None)]
            return None if value is None else self._value(value, (options[0], allowed), key)
        if origin is not None and issubclass(origin, Mapping):
            return self._free_mapping(value, (get_args(kind)[1], allowed), key)
        if origin is not None:  # a list, or another sequence in options of plugins
            if not isinstance(value, list | tuple):
                self._wrong(key, value, "a list")
                return []
            return [self._value(item, (get_args(kind)[0], allowed), (*key, str(i))) for i, item in enumerate(value)]
        return self._free(value, key) if kind is Any else self._scalar(value, kind, allowed, key)

    def _free_mapping(self, value: Any, hint: Hint, key: Key) -> Any:
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            self._wrong(key, value, "a mapping by name")
            return {}
        cleaned = {}
        for name, item in value.items():
            if not isinstance(name, str):
                self._tell((*key, str(name)), f"`{'.'.join(key)}`: the key {name!r} must be text; put it in quotes")
                continue
            inner = (*key, plain(name))
            cleaned[name] = self._value(item, (bool, None) if name == REPLACE else hint, inner)
        return cleaned

    def _free(self, value: Any, key: Key) -> Any:
        """Plugins' own options: anything plain, but no resolver and no key that is not text."""
        if isinstance(value, dict):
            return self._free_mapping(value, (Any, None), key)
        if isinstance(value, list):
            return [self._value(item, (Any, None), (*key, str(index))) for index, item in enumerate(value)]
        return value

    def _scalar(self, value: Any, kind: type, allowed: Allowed, key: Key) -> Any:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value) if abs(value) < 10**300 else float("inf")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
            self._wrong(key, value, names[kind])
        elif allowed is not None and (problem := allowed.problem(value)):
            self._tell(key, f"`{'.'.join(key)}` {problem}")
        return value

    def _wrong(self, key: Key, value: Any, wanted: str) -> None:
        name = f"`{'.'.join(key)}`" if key else "what stands here"
        self._tell(key, f"{name} must be {wanted}, not {value_text(value)}")


def value_text(value: Any) -> str:
    """A wrong value, for messages."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return f"the text {plain(repr(value)):.100}" if isinstance(value, str) else f"{value!s:.100}".lower()


def schema_keys() -> Iterator[str]:
    """Every key of the schema, dotted; `*` stands for a name that the recipe chooses, `[]` for the items of a list."""
    yield from schema_ranges()


@cache
def schema_ranges() -> Mapping[str, Allowed]:
    """Every key of the schema, as in `schema_keys`, with which values are allowed."""
    return dict(_keys(hints_of(Recipe), ""))


def _keys(hints: Mapping[str, Hint], prefix: str) -> Iterator[tuple[str, Allowed]]:
    for name, (hint, allowed) in hints.items():
        key = prefix + name
        yield key, allowed
        item: Any = hint
        while get_origin(item) in (dict, list) and key != "model":
            key += ".*" if get_origin(item) is dict else "[]"
            item = get_args(item)[-1]
        if key == "model":
            yield from _keys(model_hints(), "model.")
        elif is_dataclass(item):
            assert isinstance(item, type)
            yield from _keys(hints_of(item), f"{key}.")


def _unknown_key(name: str, key: Key, hints: Mapping[str, Hint]) -> str:
    """Names the nearest key at this place, else a key of that very name elsewhere."""
    dotted = plain(".".join((*key, name)))
    found = nearest(name, hints)
    if found:
        return f"unknown key `{dotted}`{found.replace('`', '`' + ''.join(f'{part}.' for part in key), 1)}"
    elsewhere = [known for known in schema_keys() if known.rsplit(".", 1)[-1] == name]
    if elsewhere:
        return f"unknown key `{dotted}`; did you mean `{elsewhere[0]}`?"
    known = f" (known here: {', '.join(hints)})" if key else nearest(name, schema_keys())
    return f"unknown key `{dotted}`{known}"


def _unknown_option(name: str, key: Key, hints: Mapping[str, Hint]) -> str:
    dotted = plain(".".join((*key, name)))
    return f"has no option `{dotted}`{nearest(name, hints)}; it has {', '.join(hints) or 'none'}"
