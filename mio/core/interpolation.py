"""`${other.key}` in recipes: a value that refers to another key, and nothing else. No resolver exists; all is bounded.

A value that is one reference takes the other's value with its type; inside a text the other is written out. `\\${` is a
plain `${`, and `???`, which says that a value has to be given, is plain as `\\???`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mio.core.terminal import plain
from mio.core.yaml_text import DEEPEST, LARGEST_FILE, MOST_NODES, Key

MISSING = "???"
"""A value that has to be given by another file or an override."""
_DEEPEST = 32
"""References that lead on to references."""

OPENING = re.compile(r"(?<!\\)(?:\\\\)*\$\{")
"""A `${` behind an even number of backslashes."""
_REFERENCE = re.compile(r"[\w./\-\[\]]+\}")
_PIECE = re.compile(r"(\\*)\$\{(?:([\w./\-\[\]]+)\})?")


def reference_problem(value: str) -> str:
    """What is wrong with the interpolations of a text: a resolver would read the machine or run code."""
    for opening in OPENING.finditer(value):
        if not _REFERENCE.match(value, opening.end()):
            return "an interpolation names another key, as in `${train.steps}`, and nothing else; `\\${` is plain text"
    return ""


class _Wrong(Exception):
    """A reference that leads nowhere, told at the key that has it."""


def resolve(content: Mapping[str, Any], defaults: Mapping[str, Any], tell: Callable[[Key, str], None]) -> Any:
    """The content with every reference replaced; those that cannot be are left and told with their key.

    Args:
        defaults: values of keys that the content does not give.
    """
    return _Resolver(content, defaults, tell).value(content, ())


class _Resolver:
    def __init__(
        self, content: Mapping[str, Any], defaults: Mapping[str, Any], tell: Callable[[Key, str], None]
    ) -> None:
        self._content, self._defaults, self._tell = content, defaults, tell
        self._texts: dict[Key, Any] = {}
        self._open: list[Key] = []
        self._left, self._characters = 2 * MOST_NODES, LARGEST_FILE
        self._spent, self._depth = False, 0

    def value(self, value: Any, key: Key) -> Any:
        if self._spent:
            return value
        self._left -= bool(self._open)  # what files hold themselves is bounded where they are read
        if self._left < 0:
            self._spent = True
            raise _Wrong(f"interpolations make more than {2 * MOST_NODES:,} values, too many for a recipe")
        if isinstance(value, Mapping | list):
            return self._inside(value, key)
        if not isinstance(value, str) or ("${" not in value and "???" not in value):
            return value
        if self._open:
            return self._text(value, key)
        key_depth = self._depth
        try:
            return self._text(value, key)
        except _Wrong as error:
            self._open.clear()
            self._depth = key_depth
            self._tell(key, f"`{'.'.join(key)}`: {error}")
            return value

    def _inside(self, value: Any, key: Key) -> Any:
        self._depth += 1
        if self._depth > 2 * DEEPEST:
            self._spent = True
            raise _Wrong("interpolations put too many mappings and lists inside each other")
        if isinstance(value, Mapping):
            made: Any = {name: self.value(item, (*key, str(name))) for name, item in value.items()}
        else:
            made = [self.value(item, (*key, str(index))) for index, item in enumerate(value)]
        self._depth -= 1
        return made

    def _text(self, text: str, key: Key) -> Any:
        if text == MISSING:
            raise _Wrong("is `???`, a value that has to be given; give it, or write `\\???` for the text")
        if text.lstrip("\\") == MISSING:
            return text[1:]
        if key not in self._texts:
            if key in self._open:
                raise _Wrong(f"interpolations go round in a circle: {' -> '.join('.'.join(k) for k in self._open[:6])}")
            if len(self._open) >= _DEEPEST:
                raise _Wrong(f"more than {_DEEPEST} interpolations lead from one to the next")
            self._open.append(key)
            made = self._replaced(text, key)
            self._open.pop()
            if isinstance(made, dict | list):
                return made  # every place gets its own, and each counts
            self._texts[key] = made
        return self._texts[key]

    def _replaced(self, text: str, key: Key) -> Any:
        whole = _PIECE.fullmatch(text)
        if whole and whole[2] and not whole[1]:
            return self._looked_up(whole[2], key)
        pieces, end = [], 0
        for found in _PIECE.finditer(text):
            pieces += [text[end : found.start()], found[1][: len(found[1]) // 2]]
            end = found.end()
            if len(found[1]) % 2:
                pieces.append("${")
                end = found.start() + len(found[1]) + 2
            elif found[2]:
                pieces.append(self._written(found[2], key))
        made = "".join([*pieces, text[end:]])
        self._characters -= len(made)
        if self._characters < 0:
            self._spent = True
            raise _Wrong(f"interpolations make more than {LARGEST_FILE:,} characters, too many for a recipe")
        return made

    def _written(self, reference: str, key: Key) -> str:
        value = self._looked_up(reference, key)
        if isinstance(value, dict | list) or value is None:
            raise _Wrong(f"`${{{reference}}}` is no single value that could be part of a text")
        return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)

    def _looked_up(self, reference: str, key: Key) -> Any:
        target = self._target(reference, key)
        for place in (self._content, self._defaults):
            value: Any = place
            for part in target:
                if isinstance(value, Mapping) and part in value:
                    value = value[part]
                elif isinstance(value, list) and part.isdecimal() and len(part) < 6 and int(part) < len(value):
                    value = value[int(part)]
                else:
                    break
            else:
                if key[: len(target)] == target:
                    raise _Wrong(f"`${{{reference}}}` refers to what it is part of")
                return self.value(value, target)
        raise _Wrong(f"`${{{plain(reference)}}}` refers to a key that is missing; references start at the top")

    @staticmethod
    def _target(reference: str, key: Key) -> Key:
        """The key that is meant: from the top, or, with leading dots, from where the reference stands."""
        name = reference.lstrip(".")
        up = len(reference) - len(name)
        parts = tuple(part for part in re.split(r"[.\[\]]+", name) if part)
        if not parts or up > len(key):
            raise _Wrong(f"`${{{reference}}}` names no key")
        return (*key[: len(key) - up], *parts) if up else parts
