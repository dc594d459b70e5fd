"""Plain data checked against dataclasses, key by key: unknown keys, types, ranges. Free of torch."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from mio.core.contract.ranges import ALLOWED, KEYS, Allowed
from mio.core.errors import UserError, nearest
from mio.core.terminal import plain

T = TypeVar("T")
Key = tuple[str, ...]
Hint = tuple[Any, Allowed | None]
"""Type of a key, and which values of it are allowed."""
_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@cache
def hints_of(kind: type) -> Mapping[str, Hint]:
    """Keys of a dataclass with what they may hold."""
    hints = get_type_hints(kind)
    return {one.name: (one.metadata.get(KEYS, hints[one.name]), one.metadata.get(ALLOWED)) for one in fields(kind)}


class Index(str):
    """Place of an item in a list, as a part of a key."""

    __slots__ = ()


def dotted(key: Key) -> str:
    """A key as messages and the documentation write it: `mixture.ramp[2].at`."""
    return "".join(f"[{part}]" if isinstance(part, Index) else f".{part}" for part in key).removeprefix(".")


def keys_of(kind: type, prefix: str = "", given: Any = None) -> Iterator[tuple[str, Any, Allowed | None]]:
    """Every key of a dataclass and of those inside it, dotted, with its default and which values are allowed.

    `*` stands for a name that the user chooses, `[]` for the items of a list. Defaults are the values of `given`, an
    object of the dataclass, where there is one.
    """
    for one, (hint, allowed) in zip(fields(kind), hints_of(kind).values(), strict=True):
        key, default = prefix + one.name, one.default
        if given is not None:
            default = getattr(given, one.name)
        elif one.default_factory is not MISSING:
            default = one.default_factory()
        yield key, None if default is MISSING else default, allowed
        inner: Any = hint
        while get_origin(inner) in (dict, list):
            key += ".*" if get_origin(inner) is dict else "[]"
            inner = _without_none(get_args(inner)[-1])
        if is_dataclass(inner):
            within = cast(type, inner)
            yield from keys_of(within, f"{key}.", default if isinstance(default, within) else None)


def _without_none(hint: Any) -> Any:
    """What a value that may be null is if it is not."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(option for option in get_args(hint) if option is not type(None))
    return hint


class Checker:
    """Checks values against dataclasses and collects what is wrong.

    Args:
        unknown: sentence about an unknown name, of the name, the key it stands under, and the keys that there are.
        reference: of a text, None where it means itself; otherwise it stands for another value, whose type is not known
            yet, and the answer is what is wrong with that, if anything.
        extra: keys that every mapping may have.
    """

    def __init__(
        self,
        unknown: Callable[[str, Key, Mapping[str, Hint]], str] | None = None,
        reference: Callable[[str], str | None] = lambda _: None,
        extra: Mapping[str, Hint] | None = None,
    ) -> None:
        self._unknown, self._reference, self._extra = unknown or _unknown_option, reference, extra or {}
        self.problems: list[tuple[Key, str]] = []
        """Key and sentence of each problem."""

    def check(self, kind: type, value: Any, key: Key = ()) -> Any:
        """The value of `key` as the dataclass has it: empty mappings for nothing, floats where floats are due."""
        known, cleaned = hints_of(kind), {}
        for name, item in self._items(value, key, "a mapping"):
            inner = (*key, plain(str(name)))
            hint = self._extra.get(name) or known.get(name)
            if hint is None:
                self.problems.append((inner, self._unknown(str(name), key, known)))
            else:
                cleaned[name] = self._value(item, hint, inner)
        return cleaned

    def _items(self, value: Any, key: Key, wanted: str) -> Iterator[tuple[Any, Any]]:
        if isinstance(value, Mapping):
            yield from value.items()
        elif value is not None:
            self._wrong(key, value, wanted)

    def _value(self, value: Any, hint: Hint, key: Key) -> Any:
        kind, allowed = hint
        if isinstance(value, str) and (problem := self._reference(value)) is not None:
            if problem:
                self.problems.append((key, f"`{dotted(key)}`: {problem}"))
            return value
        if is_dataclass(kind):
            return self.check(cast(type, kind), value, key)
        origin: Any = get_origin(kind)
        inner = (get_args(kind)[-1] if origin else Any, allowed)
        if origin in (Union, types.UnionType):
            options = [option for option in get_args(kind) if option is not type(None)]
            return None if value is None else self._value(value, (options[0], allowed), key)
        if kind is Any:
            origin = type(value) if isinstance(value, dict | list) else None
        if origin is None:
            return value if kind is Any else self._scalar(value, kind, allowed, key)
        if issubclass(origin, Mapping):
            return self._by_name(value, inner, key)
        if not isinstance(value, list | tuple):
            self._wrong(key, value, "a list")
            return []
        return [self._value(item, inner, (*key, Index(index))) for index, item in enumerate(value)]

    def _by_name(self, value: Any, hint: Hint, key: Key) -> dict[str, Any]:
        """A mapping whose keys are names of the user's."""
        cleaned = {}
        for name, item in self._items(value, key, "a mapping by name"):
            if isinstance(name, str):
                cleaned[name] = self._value(item, self._extra.get(name, hint), (*key, plain(name)))
            else:
                text = f"`{dotted(key)}`: the key {name!r} must be text; put it in quotes"
                self.problems.append(((*key, str(name)), text))
        return cleaned

    def _scalar(self, value: Any, kind: type, allowed: Allowed | None, key: Key) -> Any:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value) if abs(value) < 10**300 else float("inf")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self._wrong(key, value, _NAMES[kind])
        elif allowed is not None and (problem := allowed.problem(value)):
            self.problems.append((key, f"`{dotted(key)}` {problem}"))
        return value

    def _wrong(self, key: Key, value: Any, wanted: str) -> None:
        name = f"`{dotted(key)}`" if key else "what stands here"
        self.problems.append((key, f"{name} must be {wanted}, not {value_text(value)}"))


def build(kind: type[T], content: Mapping[str, Any]) -> T:
    """A dataclass of content that a `Checker` has passed, those inside it included; defaults for what is missing."""
    hints = _types_of(cast(type, kind))
    return kind(**{name: _built(value, hints[name]) for name, value in content.items()})


_types_of = cache(get_type_hints)


def _built(value: Any, kind: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return build(cast(type, kind), value)
    if origin in (Union, types.UnionType):
        return None if value is None else _built(value, next(one for one in inner if one is not type(None)))
    if isinstance(value, Mapping):
        return {name: _built(item, inner[-1] if inner else Any) for name, item in value.items()}
    if isinstance(value, list):
        return [_built(item, inner[0] if inner else Any) for item in value]
    return value


def value_text(value: Any) -> str:
    """A wrong value, for messages."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return f"the text {plain(repr(value)):.100}" if isinstance(value, str) else f"{value!s:.100}".lower()


def read_options(kind: type[T], given: Mapping[str, Any], where: str) -> T:
    """The options of a plugin, source or filter as a dataclass, with defaults for those that are missing.

    Args:
        kind: a dataclass with one field per option. Types may be `int`, `float`, `str`, `bool`, those or None,
            `Sequence[...]`, `Mapping[str, ...]`, `Any`, and further dataclasses; `mio.number` and `mio.one_of` make
            fields with a range.
        given: what the recipe says.
        where: what the options belong to, as `plugins.sketch`, for the message.

    Raises:
        UserError: with every option that is unknown, of the wrong type, or out of its range.
    """
    checker = Checker()
    options = checker.check(kind, given)
    if checker.problems:
        texts = (text for _, text in checker.problems)
        raise UserError("; ".join(f"{where}{'' if text.startswith('has ') else ':'} {text}" for text in texts))
    return build(kind, options)


def _unknown_option(name: str, key: Key, known: Mapping[str, Hint]) -> str:
    return f"has no option `{plain(dotted((*key, name)))}`{nearest(name, known)}; it has {', '.join(known) or 'none'}"
