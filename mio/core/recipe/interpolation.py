"""`${other.key}` in recipes before OmegaConf resolves it: a reference names a key that is there, and all is bounded.

OmegaConf by itself runs resolvers, which read the machine, and expands without bounds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mio.core.contract.checker import Index, Key, dotted
from mio.core.recipe.yaml_text import DEEPEST, LARGEST_FILE, MOST_NODES

MISSING = "???"
"""A value that another file or an override has to set."""
_MOST_STEPS = 32
"""References that lead on to references."""

_NAME = r"[\w/\-]+"
_REFERENCE = re.compile(rf"(\.*(?:{_NAME}|\[{_NAME}\])(?:\.{_NAME}|\[{_NAME}\])*)\}}")
_OPENING = re.compile(r"(?<!\\)(?:\\\\)*\$\{")
"""A `${` behind an even number of backslashes."""


def reference_problem(value: str) -> str | None:
    """What is wrong with the interpolations of a text: a resolver would read the machine or run code. Empty if nothing
    is; None for a text that means itself."""
    openings = [opening.end() for opening in _OPENING.finditer(value)]
    if not all(_REFERENCE.match(value, end) for end in openings):
        return "an interpolation names another key, as in `${train.steps}`, and nothing else; `\\${` is plain text"
    return "" if openings or value == MISSING else None


class _Wrong(Exception):
    """A reference that leads nowhere, reported at the key that has it."""


class _TooMuch(_Wrong):
    """More than a recipe may become."""


def reference_problems(content: Mapping[str, Any]) -> Iterator[tuple[Key, str]]:
    """(key, problem) of values that nobody has set, and of references that OmegaConf could not resolve in bounds."""
    sizes, total = _Sizes(content), _NOTHING
    for key, text in walk(content):
        if not refers(text):
            continue
        try:
            total = _together(total, sizes.of(text, key, (), len(key)))
        except _Wrong as error:
            yield key, f"`{dotted(key)}`: {error}"
            if isinstance(error, _TooMuch):
                return  # whatever refers to it is too much as well


def walk(value: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    """The value and every one inside it, with its key."""
    yield key, value
    for name, item in _items(value):
        yield from walk(item, (*key, name))


def refers(value: Any) -> bool:
    """Whether a value is a text that may hold references, escaped ones too, or `???`."""
    return isinstance(value, str) and ("${" in value or value.endswith(MISSING))


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping | list):
        if isinstance(value, Mapping):
            yield from ((str(name), item) for name, item in value.items())
        else:
            yield from ((Index(number), item) for number, item in enumerate(value))


class _Size(NamedTuple):
    """What a value is once its references are followed."""

    values: int
    """With those on the way to it, each of which OmegaConf visits."""
    characters: int
    levels: int = 1
    steps: int = 0
    """References that lead to it."""
    single: bool = False
    """Text or a number, which can be part of a text."""


_NOTHING = _Size(0, 0)


def _together(*sizes: _Size) -> _Size:
    values, characters, levels, steps, _ = zip(_NOTHING, *sizes, strict=True)
    if sum(values) > 2 * MOST_NODES:
        raise _TooMuch(f"interpolations make more than {2 * MOST_NODES:,} values, too many for a recipe")
    if sum(characters) > LARGEST_FILE:
        raise _TooMuch(f"interpolations make more than {LARGEST_FILE:,} characters, too many for a recipe")
    return _Size(sum(values), sum(characters), max(levels), max(steps))


def _check_levels(levels: int) -> None:
    if levels > DEEPEST:
        raise _TooMuch(f"interpolations put more than {DEEPEST} mappings and lists inside each other")


def _check_steps(steps: int) -> None:
    if steps > _MOST_STEPS:
        raise _Wrong(f"more than {_MOST_STEPS} interpolations lead from one to the next")


class _Sizes:
    """Sizes of what the references of a recipe lead to, each key measured once."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content
        self._known: dict[Key, _Size] = {}

    def of(self, value: Any, key: Key, followed: tuple[Key, ...], depth: int) -> _Size:
        """Of the value of a key that `followed` led to. It will stand inside `depth` mappings and lists."""
        _check_levels(depth + 1)
        if isinstance(value, Mapping | list):
            size = _together(*(self.of(item, (*key, name), followed, depth + 1) for name, item in _items(value)))
            return size._replace(values=size.values + 1, levels=size.levels + 1)
        if value == MISSING:
            raise _Wrong("is `???`, a value that has to be given; give it, or write `\\???` for the text")
        if not isinstance(value, str):
            return _Size(1, 0, single=isinstance(value, int | float) and not isinstance(value, bool))
        matches = [_REFERENCE.match(value, opening.end()) for opening in _OPENING.finditer(value)]
        references = [match[1] for match in matches if match]
        sizes = [self._of_reference(reference, key, followed, depth) for reference in references]
        whole = [value] == [f"${{{reference}}}" for reference in references]
        for reference, size in zip(references, sizes, strict=True):
            if not (size.single or whole):
                raise _Wrong(f"`${{{reference:.100}}}` is no single value, text or number, that may be in a text")
        size = _together(_Size(1, len(value)), *sizes)
        _check_steps(size.steps + bool(references))
        return size._replace(steps=size.steps + bool(references), single=not whole or sizes[0].single)

    def _of_reference(self, reference: str, key: Key, followed: tuple[Key, ...], depth: int) -> _Size:
        target = _target(reference, key)
        if key[: len(target)] == target:
            raise _Wrong(f"`${{{reference:.100}}}` refers to what it is part of")
        if target in followed:
            raise _Wrong(f"interpolations go round in a circle: {' -> '.join(dotted(one) for one in followed[:6])}")
        _check_steps(len(followed) + 1)
        if target not in self._known:
            value: Any = self._content
            for part in target:
                if isinstance(value, Mapping) and part in value:
                    value = value[part]
                elif isinstance(value, list) and part.isdecimal() and len(part) < 6 and int(part) < len(value):
                    value = value[int(part)]
                else:
                    shown = f"`${{{reference:.100}}}`"
                    raise _Wrong(f"{shown} refers to a key that is missing; references start at the top")
            self._known[target] = self.of(value, target, (*followed, target), depth)
        _check_levels(depth + self._known[target].levels)
        return self._known[target]


def _target(reference: str, key: Key) -> Key:
    """The key that is meant: from the top, or, with leading dots, from where the reference stands."""
    name = reference.lstrip(".")
    up = len(reference) - len(name)
    if up > len(key):
        raise _Wrong(f"`${{{reference:.100}}}` names no key")
    parts = tuple(part for part in re.split(r"[.\[\]]+", name) if part)
    return (*key[: len(key) - up], *parts) if up else parts
