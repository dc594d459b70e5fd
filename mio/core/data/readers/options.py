"""Options of readers: what is wrong with them, told before anything is read.

Options that all readers share:

| option | meaning |
| --- | --- |
| `columns` | column of the data -> field of the record; columns that it does not name are left out |
| `fields` | field -> modality, `text` or `control`, where its name does not say so |
| `turns` | `{column, role, content}`: a column of turns under other names than the usual ones |
| `placeholders` | text -> modality: what stands for media in the text of conversations, beside `<NAME>` |
| `aligned` | column -> modality: lists of one length, at each place of which one is filled, as OBELICS has them |
| `inserted` | a list of texts and a list of items with the number of the text that each precedes, as MMC4 has them |
| `coded` | text may hold code tokens, as AnyGPT's corpora do |
| `folder` | where relative paths of media start |
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from mio.core.contract.controls import CONTROL
from mio.core.contract.values import TEXT
from mio.core.errors import nearest

TURNS = ("column", "role", "content")
INSERTED = ("texts", "items", "name", "place", "modality", "score", "least")
_REQUIRED = INSERTED[:5]
_MAPPINGS = ("columns", "fields", "turns", "placeholders", "aligned", "inserted")
SHARED: dict[str, type] = {"coded": bool, "folder": str, **dict.fromkeys(_MAPPINGS, Mapping)}
"""Options of every reader, with their types."""
_WORDS = {Mapping: "a mapping", bool: "`true` or `false`", str: "text"}


def option_problems(
    reader: str, options: Mapping[str, Any], own: Mapping[str, type], media: Collection[str], controls: bool = False
) -> list[str]:
    """What is wrong with a reader's options.

    Args:
        own: the reader's own options with their types.
        media: names of the modalities that are not text.
        controls: whether the recipe has control tokens.
    """
    types = {**own, **SHARED}
    problems = []
    for name, value in options.items():
        if name not in types:
            problems.append(f"reader `{reader}` has no option `{name}`{nearest(str(name), types)}")
        elif not isinstance(value, types[name]) or value == "":
            wanted = _WORDS.get(types[name], types[name].__name__)
            problems.append(f"reader `{reader}`: option `{name}` must be {wanted}, not {value!r:.60}")
    if not problems:
        problems = [*_inner_problems(options, [TEXT, *media], controls)]
    return problems


def split_problems(reader: str, split: str, path: Path) -> list[str]:
    """What is wrong with the split that is asked of a reader whose files are one split, as those at `path` are."""
    if split == "train" or reader in ("folder", "hub") or (reader == "arrow" and path.is_dir()):
        return []
    return [
        f"`split` is `{split}`, but what reader `{reader}` reads has no splits: leave it out, and give the `path` of "
        "the split's files"
    ]


def _inner_problems(options: Mapping[str, Any], known: list[str], controls: bool) -> Iterator[str]:
    for option in ("columns", "turns"):
        for name, value in (options.get(option) or {}).items():
            if not (isinstance(name, str) and isinstance(value, str) and name and value):
                yield f"option `{option}.{name}` must name a column or field, not {value!r:.60}"
    for option in ("fields", "placeholders", "aligned"):
        for name, modality in (options.get(option) or {}).items():
            if not (isinstance(name, str) and name.strip()):
                yield f"option `{option}` must have names as keys, not {name!r:.60}"
            if modality == CONTROL and option == "fields" and controls:
                continue
            if modality not in known or (option == "placeholders" and modality == TEXT):
                yield (
                    f"option `{option}.{name}` names an unknown modality `{modality!s:.60}`"
                    f"{nearest(str(modality), known)}"
                )
    fields = list((options.get("columns") or {}).values())
    yield from (
        f"option `columns` gives the field `{name}` to two columns"
        for name in dict.fromkeys(fields)
        if fields.count(name) > 1
    )
    yield from (
        f"option `turns` has no `{name}`{nearest(str(name), TURNS)}"
        for name in options.get("turns") or ()
        if name not in TURNS
    )
    inserted = options.get("inserted") or {}
    yield from (
        f"option `inserted` has no `{name}`{nearest(str(name), INSERTED)}" for name in inserted if name not in INSERTED
    )
    if not inserted:
        return
    for name in INSERTED:
        if name not in inserted:
            if name in _REQUIRED:
                yield f"option `inserted` needs `{name}`"
        elif name == "least":
            if isinstance(inserted[name], bool) or not isinstance(inserted[name], int | float):
                yield f"option `inserted.least` must be a number, not {inserted[name]!r:.60}"
        elif not isinstance(inserted[name], str) or not inserted[name]:
            yield f"option `inserted.{name}` must be text, not {inserted[name]!r:.60}"
        elif name == "modality" and inserted[name] not in known:
            hint = nearest(inserted[name], known)
            yield f"option `inserted.modality` names an unknown modality `{inserted[name]}`{hint}"
