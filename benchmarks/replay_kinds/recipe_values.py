"""Values of recipes in many spellings of YAML, against another reader that follows the specification of YAML 1.2."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from fuzzing import yaml12
from replays import Variant

from mio.core.contract.plugins import PluginManager
from mio.core.recipe.compose import compose
from mio.core.recipe.resolved import load_resolved, to_yaml

PLAIN = (
    *("1", "-1", "+7", "017", "0x1F", "0o17", "0b11", "1_000", "12:30:00", "1.", ".5", "1e3", "3e-5", "1E+2", "0e0"),
    *("true", "True", "TRUE", "tRUE", "yes", "no", "on", "off", "y", "N", "null", "Null", "NULL", "~", "nil"),
    *(".inf", "-.INF", ".nan", "inf", "2020-01-01", "2020-01-01T10:00:00Z", "1.2.3", "0x", "0o9", "1e", "e1"),
    *("a b", "a#b", "a: b", "é", "日本語", "\U0001f600", "=", "a,b", "@a", "%a", "!a", "&a", "*a", "a\tb"),
)  # fmt: skip
WRITTEN: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("plain in a block", lambda text: f"plugins:\n  x:\n    v: {text}\n"),
    ("plain in a flow", lambda text: f"plugins: {{x: {{v: {text} }}}}\n"),
    ("in a list of a block", lambda text: f"plugins:\n  x:\n    v:\n    - {text}\n    - 1\n"),
    ("in a list of a flow", lambda text: f"plugins: {{x: {{v: [1, {text} ]}}}}\n"),
    ("with a comment", lambda text: f"plugins:\n  x:\n    v: {text} # why\n"),
    ("single quotes", lambda text: "plugins: {x: {v: '" + text.replace("'", "''") + "'}}\n"),
    ("double quotes", lambda text: f"plugins: {{x: {{v: {json.dumps(text)}}}}}\n"),
    ("literal block", lambda text: f"plugins:\n  x:\n    v: |-\n      {text}\n      {text}\n"),
    ("folded block", lambda text: f"plugins:\n  x:\n    v: >\n      {text}\n      {text}\n\n      {text}\n"),
    ("kept block", lambda text: f"plugins:\n  x:\n    v: |+\n      {text}\n\n"),
    ("plain over two lines", lambda text: f"plugins:\n  x:\n    v: {text}\n      {text}\n"),
    ("behind an anchor", lambda text: f"plugins:\n  x:\n    v: &a {text}\n    w: *a\n"),
    ("tagged as text", lambda text: f"plugins:\n  x:\n    v: !!str {text}\n"),
    ("line ends of Windows", lambda text: f"plugins:\r\n  x:\r\n    v: {text}\r\n"),
    ("a document with marks", lambda text: f"%YAML 1.2\n---\nplugins: {{x: {{v: {text} }}}}\n...\n"),
    ("a complex key", lambda text: f"plugins:\n  x:\n    ? v\n    : {text}\n"),
)
MADE_AS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-be with mark", "utf-32")


def variants(folder: Path, random: Random) -> Iterator[Variant]:
    """Without end: a value, how it is written, and how the file is encoded."""
    number = 0
    while True:
        text, (how, write) = random.choice(PLAIN), random.choice(WRITTEN)
        encoding = random.choice(MADE_AS) if random.random() < 0.3 else "utf-8"
        number += 1
        path = folder / f"v{number}.yaml"
        content = write(text)
        raw = content.encode("utf-16-be") if "mark" in encoding else content.encode(encoding)
        path.write_bytes(b"\xfe\xff" + raw if "mark" in encoding else raw)
        yield Variant(f"{text!r}, {how}, {encoding}", *_sides(path, content))


def _sides(path: Path, content: str) -> tuple[Callable[[], Any], Callable[[Any], str], bool | None]:
    try:
        wanted = yaml12.read(content)["plugins"]["x"]
        # floating-point infinities, null and the like are values as any other: options of plugins are free
        readable: bool | None = True
    except (yaml12.Unreadable, KeyError, TypeError):
        # ruamel.yaml and PyYAML know some plain scalars as errors that are none, so either may refuse
        wanted, readable = None, None

    def read() -> Any:
        recipe = compose([str(path)], [], PluginManager([]))
        again = path.with_suffix(".resolved")
        again.write_text(to_yaml(recipe), encoding="utf-8")
        return recipe.plugins["x"], load_resolved(again).plugins["x"]

    def right(made: Any) -> str:
        if wanted is None:
            return ""
        first, again = made
        if not yaml12.same(first, wanted):
            return f"{content!r} was read as {first!r}, not {wanted!r}"
        return "" if yaml12.same(again, first) else f"{first!r} was written so that it is read as {again!r}"

    return read, right, readable
