"""Resolved recipes, locks and vocabularies as the page shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mio.core.recipe.resolved import diff
from mio.core.recipe.schema import Recipe
from mio.report.reading import ReportedRun, listed, mapping, number

_MISSING = object()


@dataclass(frozen=True)
class Line:
    """One line of a recipe in YAML."""

    indent: int
    key: str
    value: str
    """As JSON, which is YAML too; empty where further lines follow."""
    kind: str
    """`text`, `number`, `word` (true, false, null), `list`, or empty."""
    changed: bool = False
    before: str = ""
    """What the parent has there."""


@dataclass(frozen=True)
class RecipeSection:
    """A key of a recipe with all that is below it."""

    name: str
    lines: list[Line]

    @property
    def changes(self) -> int:
        return sum(line.changed for line in self.lines)


def recipe_sections(recipe: Recipe, parent: Recipe | None) -> list[RecipeSection]:
    """Every key of a recipe; lines that the parent's recipe has otherwise are marked."""
    content, before = asdict(recipe), asdict(parent) if parent is not None else None
    return [
        RecipeSection(
            name, list(_lines(name, value, _MISSING if before is None else before.get(name), 0, before is None))
        )
        for name, value in content.items()
    ]


def _lines(key: str, value: Any, before: Any, indent: int, first: bool) -> Iterator[Line]:
    if isinstance(value, dict) and value:
        yield Line(indent, f"{key}:", "", "")
        for name, inner in value.items():
            old = before.get(name, _MISSING) if isinstance(before, dict) else _MISSING
            yield from _lines(str(name), inner, old, indent + 1, first)
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        yield Line(indent, f"{key}:", "", "")
        for place, one in enumerate(value):
            old = before[place] if isinstance(before, list) and place < len(before) else _MISSING
            changed = not first and old != one
            yield Line(indent + 1, "-", _json(one), "list", changed, "" if old is _MISSING else _json(old))
    else:
        changed = not first and before != value
        shown = "" if before is _MISSING else _json(before)
        yield Line(indent, f"{key}:", _json(value), _kind(value), changed, shown)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "word"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "list"


def changes(recipe: Recipe, parent: Recipe | None) -> list[str]:
    """What differs from the parent's recipe in what is learnt, a line each."""
    return diff(parent, recipe) if parent is not None else []


@dataclass(frozen=True)
class Fact:
    """A row of the lock."""

    what: str
    value: str


def lock_facts(lock: Mapping[str, Any]) -> list[tuple[str, list[Fact]]]:
    """Versions, fingerprints and history of a lock, by heading."""
    keys = ("mio", "python", "seed", "run", "recipe", "vocabulary")
    one = [Fact(key, str(lock[key])) for key in keys if lock.get(key) is not None]
    headed = [("Run", one)] if one else []
    for key, value in lock.items():
        if key != "files" and isinstance(value, Mapping) and value:
            headed.append((key.capitalize(), [Fact(str(name), str(inner)) for name, inner in value.items()]))
    history = [mapping(entry) for entry in listed(lock.get("history"))]
    if len(history) > 1:
        told = [Fact(f"after step {entry.get('step', '?')}", f"mio {entry.get('mio', '?')}") for entry in history]
        headed.append(("History", told))
    files = mapping(lock.get("files"))
    kept = [Fact(str(name), str(value)) for name, value in files.items() if not str(name).startswith("samples/")]
    if kept:
        headed.append(("Checksums", kept))
    return headed


@dataclass
class Block:
    """Neighbouring ids of one owner and kind in a vocabulary."""

    owner: str
    kind: str
    start: int
    size: int
    names: list[str] = field(default_factory=list)
    absent: bool = False
    share: float = 0.0
    """Of all ids."""
    colour: int = 0
    """Number of its owner."""


def vocabulary_blocks(run: ReportedRun) -> list[Block]:
    """The blocks of a vocabulary in order; single special tokens of one owner are one block."""
    blocks: list[Block] = []
    for entry in listed(run.vocabulary.get("blocks")):
        one = mapping(entry)
        owner, kind = str(one.get("owner", "?")), str(one.get("kind", "?"))
        start, size = int(number(one.get("start")) or 0), int(number(one.get("size")) or 0)
        absent, name = bool(one.get("absent")), str(one.get("name", ""))
        last = blocks[-1] if blocks else None
        if last and (last.owner, last.kind, last.absent) == (owner, kind, absent) and kind not in ("codes", "text"):
            last.size += size
            last.names.append(name)
        else:
            blocks.append(Block(owner, kind, start, size, [name], absent))
    total = sum(block.size for block in blocks) or 1
    owners = list(dict.fromkeys(block.owner for block in blocks))
    for block in blocks:
        block.share, block.colour = block.size / total, owners.index(block.owner)
    return blocks
