"""What one recipe file or override says, with the place of every key, and the check of it against the schema."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mio.core.contract.checker import Checker, Hint, Key, dotted, keys_of, value_text
from mio.core.errors import RecipeError, nearest
from mio.core.recipe.interpolation import reference_problem
from mio.core.recipe.schema import Recipe
from mio.core.recipe.yaml_text import DEEPEST, LARGEST_FILE, LONGEST_KEY, decode, parse_yaml
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
            content = file.read(LARGEST_FILE + 1)
        if content.startswith(b"PK\x03\x04"):
            raise RecipeError([f"{origin}: is a zip file; a bundle stands alone on the command line, or unpack it"])
        text = decode(content, origin)
    except (OSError, ValueError) as error:
        raise RecipeError([f"{origin}: cannot be read: {getattr(error, 'strerror', None) or error}"]) from None
    data, marks = parse_yaml(text, origin)
    if not isinstance(data, dict):
        raise RecipeError([f"{origin}: a recipe is a mapping of keys, not {value_text(data)}"])
    return Layer(origin, data, marks, path.parent)


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


def checker(literal: bool = False) -> Checker:
    """For content of recipes. `literal`: text means itself, as in a resolved recipe."""
    return Checker(_unknown_key) if literal else Checker(_unknown_key, reference_problem, {REPLACE: (bool, None)})


def _unknown_key(name: str, key: Key, known: Mapping[str, Hint]) -> str:
    """Names a key of that very name elsewhere, else the nearest at this place."""
    unknown = plain(dotted((*key, name)))
    keys = [one for one, *_ in keys_of(Recipe)]
    elsewhere = [one for one in keys if one.rsplit(".", 1)[-1] == name]
    if elsewhere:
        return f"unknown key `{unknown}`; did you mean `{elsewhere[0]}`?"
    if hint := nearest(name, known):
        return f"unknown key `{unknown}`{hint.replace('`', f'`{dotted(key)}.' if key else '`', 1)}"
    hint = f" (known here: {', '.join(known)})" if key else nearest(name, keys)
    return f"unknown key `{unknown}`{hint}"
