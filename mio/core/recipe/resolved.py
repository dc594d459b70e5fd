"""Resolved recipes: written down, read again, identified, compared. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

from mio.core.contract.checker import Key, build
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError
from mio.core.recipe.layers import checker, read_layer
from mio.core.recipe.places import STEP_FOLDER
from mio.core.recipe.requirements import check_requirements, required_of
from mio.core.recipe.schema import Recipe
from mio.core.recipe.yaml_text import dump_yaml

OUTSIDE = ("runtime", "generate", "license", "requires")
"""Keys about how a run is carried out and used, not about what is learnt."""


def load_resolved(path: Path, manager: PluginManager | None = None) -> Recipe:
    """A recipe that `to_yaml` wrote: text means itself. Raises `RecipeError` if it does not fit the schema, and before
    that, given the plugins at hand, if what it requires is not met."""
    layer = read_layer(path)
    if manager is not None:
        check_requirements(list(required_of(layer.content, layer.mark)), manager)
    literal = checker(literal=True)
    content = literal.check(Recipe, _of_now(layer.content))
    if literal.problems:
        raise RecipeError([f"{layer.mark(key)}: {text}" for key, text in literal.problems])
    return build(Recipe, content)


def _of_now(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """A resolved recipe of mio 0.1, whose rules were lists of which the first to match wins, as it is now."""
    train = content.get("train")
    for section in ("optimizer", "lora"):
        holder = train.get(section) if isinstance(train, dict) else None
        if isinstance(train, dict) and isinstance(holder, dict) and isinstance(holder.get("rules"), list):
            listed = list(enumerate(holder["rules"], 1))
            rules = {f"rule{number}": rule for number, rule in reversed(listed)}
            train = {**train, section: {**holder, "rules": rules}}
    return {**content, "train": train} if "train" in content else content


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe, every key of the schema included."""
    return dump_yaml(asdict(recipe))


def fingerprint(recipe: Recipe) -> str:
    """SHA-256 (hexadecimal) of everything but what decides nothing of a training (`OUTSIDE`). Where the folder of
    `start_from` lies does not matter."""
    return content_fingerprint(asdict(recipe))


def stored_fingerprint(path: Path) -> str:
    """Fingerprint of a recipe that `to_yaml` wrote, of the keys that its schema had then. Raises `RecipeError`."""
    return content_fingerprint(read_layer(path).content)


def content_fingerprint(content: Mapping[str, Any]) -> str:
    """Fingerprint of the content of a resolved recipe."""
    content = {key: value for key, value in content.items() if key not in OUTSIDE}
    start = PurePath(str(content.get("start_from", "")))
    content["start_from"] = f"{start.parents[1].name}/{start.name}" if STEP_FOLDER.fullmatch(start.name) else start.name
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))  # order counts: it is the vocabulary's
    return hashlib.sha256(text.encode()).hexdigest()


def flat(value: Any, key: Key = ()) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings, in order."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from flat(item, (*key, str(name)))
    else:
        yield ".".join(key), value


def diff(first: Recipe, second: Recipe, runtime: bool = False) -> list[str]:
    """Readable lines, one per key that differs: `- key: old`, `+ key: new`, or `key: old -> new`.

    The order of what a section names counts where it decides something: that of the plugins the ids, that of groups and
    sources who comes first. Sections that decide nothing of a training (`OUTSIDE`) count only with `runtime`: they may
    change while a run is interrupted.
    """
    lines = [
        f"order of {key}: {', '.join(before)} -> {', '.join(after)}"
        for key, before, after in reordered(asdict(first), asdict(second))
    ]
    old, new = dict(flat(asdict(first))), dict(flat(asdict(second)))
    for key in dict.fromkeys([*old, *new]):
        if key.split(".")[0] in OUTSIDE and not runtime:
            continue
        if key not in new:
            lines.append(f"- {key}: {_shown(old[key])}")
        elif key not in old:
            lines.append(f"+ {key}: {_shown(new[key])}")
        elif old[key] != new[key]:
            lines.append(f"{key}: {_shown(old[key])} -> {_shown(new[key])}")
    return lines


_UNORDERED = re.compile(r"model|runtime|generate|generate\..+|plugins\..+|.*\.options")
"""Mappings that are options: the order of their keys decides nothing."""


def reordered(
    old: Mapping[str, Any], new: Mapping[str, Any], key: Key = ()
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Sections whose order decides something and differs: dotted key, and the names that both have in either order."""
    if _UNORDERED.fullmatch(".".join(key)):
        return
    before, after = ([name for name in one if name in other] for one, other in ((old, new), (new, old)))
    if before != after:
        yield ".".join(key), before, after
    for name in before:
        if isinstance(old[name], dict) and isinstance(new[name], dict):
            yield from reordered(old[name], new[name], (*key, name))


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
