"""Composes recipe files and overrides into the structured schema. No torch.

Order of precedence, the last one winning: included files, the file itself, its `stages` section of the recipe's name,
further files of the command line in order, `key=value` overrides. See docs/recipes.md for the language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError, UserError
from mio.core.recipe.files import Checker, Layer, override_layer, read_layer
from mio.core.recipe.interpolation import MISSING, reference_problems, texts
from mio.core.recipe.locate import is_file, locate
from mio.core.recipe.merging import merge, resolve, typed
from mio.core.recipe.schema import Recipe
from mio.core.recipe.yaml_text import Key
from mio.core.terminal import plain

NAME = re.compile(r"(?=.{1,100}\Z)[^\W_]([\w.\-]*[\w\-])?")
LONGEST_NAME = 100
"""Characters of a recipe's name, which names folders."""
MOST_FILES, DEEPEST_INCLUDE, MOST_KEYS = 200, 20, 200_000
"""Files that a recipe is composed of, how deep they include each other, and the keys of all."""

STAGE_ONLY = frozenset({"name", "start_from"})
"""Keys that belong to one stage: overlays and overrides set them on the last stage of a chain alone."""


@dataclass
class Composed:
    """A recipe, and where it was said."""

    recipe: Recipe
    path: Path
    start_folder: Path
    """Folder that a relative `start_from` is relative to."""


def compose(recipes: Sequence[str], overrides: Sequence[str], manager: PluginManager) -> Recipe:
    """One recipe from files or names, merged left to right, and `key=value` overrides.

    Its `start_from` is left as it is written. Raises `RecipeError` with every unknown key and wrong type at once, and
    `UserError` for a file that does not exist.
    """
    return compose_file(locate(recipes[0], manager), recipes[1:], overrides, manager, last=True).recipe


def compose_file(
    path: Path, overlays: Sequence[str], overrides: Sequence[str], manager: PluginManager, last: bool
) -> Composed:
    read: list[int] = []
    own = _layers(path, manager, (), read)
    names = {layer.content["name"] for layer in own if isinstance(layer.content.get("name"), str)} or {path.stem}
    extra = [layer for overlay in overlays for layer in _layers(locate(overlay, manager), manager, (), read)]
    extra += [override_layer(text) for text in overrides]
    if not last:
        for layer in extra:
            layer.content = {key: value for key, value in layer.content.items() if key not in STAGE_ONLY}
    problems: list[str] = []
    said: list[tuple[Layer, Key, Any]] = []
    start_folder = path.parent
    for layer in [*own, *extra]:
        content = dict(layer.content)
        stages = content.pop("stages", None) or {}
        if "start_from" in content:
            start_folder = layer.folder
        said.append((layer, (), _checked(layer, (), content, problems)))
        if not isinstance(stages, dict):
            problems.append(f"{layer.mark(('stages',))}: `stages` must be a mapping of recipe names")
            continue
        for name, section in stages.items():
            prefix = ("stages", plain(str(name)))
            checked = _checked(layer, prefix, _without_stage_keys(layer, prefix, section, problems), problems)
            if name in names:
                said.append((layer, prefix, checked))
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
    merged = merge(*(content for _, _, content in said))
    merged["name"] = merged.get("name") or path.stem
    recipe = _resolved(merged, lambda key: _place(said, key))
    if not NAME.fullmatch(recipe.name):
        raise RecipeError(
            [
                f"{_place(said, ('name',))}: `name` {plain(repr(recipe.name)):.120} names a folder: at most "
                f"{LONGEST_NAME} letters, digits, `_`, `-` and `.`, the first a letter or digit, the last no `.`"
            ]
        )
    return Composed(recipe, path, start_folder)


def _checked(layer: Layer, prefix: Key, content: Any, problems: list[str]) -> Any:
    return Checker(lambda key, text: problems.append(f"{layer.mark((*prefix, *key))}: {text}")).recipe(content)


def _without_stage_keys(layer: Layer, prefix: Key, section: Any, problems: list[str]) -> Any:
    if not isinstance(section, dict):
        return section
    for name in sorted(STAGE_ONLY & section.keys()):
        problems.append(f"{layer.mark((*prefix, name))}: `{name}` cannot be set here: it belongs to one recipe alone")
    return {name: value for name, value in section.items() if name not in STAGE_ONLY}


def _place(said: Sequence[tuple[Layer, Key, Any]], key: Key) -> str:
    """File and line, or override, that said last what stands under a key."""
    for length in range(len(key), -1, -1):
        for layer, prefix, content in reversed(said):
            if _holds(content, key[:length]):
                return layer.mark((*prefix, *key[:length]))
    return "recipe"


def _holds(content: Any, key: Key) -> bool:
    for name in key:
        if isinstance(content, list):
            content = dict(enumerate(content)).get(int(name)) if name.isdecimal() else None
        elif isinstance(content, dict) and name in content:
            content = content[name]
        else:
            return False
    return True


def _resolved(merged: Mapping[str, Any], place: Callable[[Key], str]) -> Recipe:
    """The recipe of merged content, references replaced, also those to defaults."""
    problems: list[str] = []
    checker = Checker(lambda key, text: problems.append(f"{place(key)}: {text}"), literal=True)
    content: Any = merged
    if any("${" in text or text.endswith(MISSING) for _, text in texts(merged)):
        whole = merge(asdict(Recipe()), merged)
        problems += [f"{place(key)}: {text}" for key, text in reference_problems(whole)]
        if not problems:
            resolved = resolve(whole)
            content = {name: resolved[name] for name in merged}
    if not problems:
        content = checker.recipe(content)
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
    return typed(Recipe, content)


def _layers(path: Path, manager: PluginManager, above: tuple[Path, ...], read: list[int]) -> list[Layer]:
    """The file's layer after those of the files that it includes. `read` has the number of keys of each file."""
    if path.resolve() in above:
        raise RecipeError([f"{path}: `include` leads back to the file itself"])
    if len(read) >= MOST_FILES or len(above) >= DEEPEST_INCLUDE or sum(read) > MOST_KEYS:
        raise RecipeError(
            [
                f"{path}: `include` leads to more than {MOST_FILES} files or {MOST_KEYS:,} keys, counted as often as "
                f"they are included, or goes deeper than {DEEPEST_INCLUDE}"
            ]
        )
    layer = read_layer(path)
    read.append(len(layer.marks))
    included = layer.content.pop("include", None) or []
    if not isinstance(included, list) or not all(isinstance(item, str) for item in included):
        raise RecipeError([f"{layer.mark(('include',))}: `include` must be a list of recipe files or names"])
    layers: list[Layer] = []
    for index, item in enumerate(included):
        beside = path.parent / item
        try:
            target = beside if is_file(beside) else locate(item, manager)
        except UserError as error:
            raise RecipeError([f"{layer.mark(('include', str(index)))}: {error}"]) from None
        layers += _layers(target, manager, (*above, path.resolve()), read)
    return [*layers, layer]
