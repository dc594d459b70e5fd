"""Composes recipe files and overrides into the structured schema. No torch.

Order of precedence, the last one winning: included files, the file itself, its `stages` section of the recipe's name,
further files of the command line in order, `key=value` overrides. What they require adds up. See docs/recipes.md for
the language.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mio.core.contract.checker import Key, build
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError, UserError
from mio.core.recipe.interpolation import reference_problems, refers, walk
from mio.core.recipe.layers import Layer, checker, override_layer, read_layer
from mio.core.recipe.merging import merge, resolve
from mio.core.recipe.origins import inside, root_of
from mio.core.recipe.paths import path_keys, place_paths
from mio.core.recipe.places import is_file, locate
from mio.core.recipe.requirements import Required, added_up, check_requirements, required_of
from mio.core.recipe.schema import Recipe
from mio.core.terminal import plain, printable

NAME = re.compile(r"(?=.{1,100}\Z)[^\W_]([\w.\-]*[\w\-])?")
LONGEST_NAME = 100
"""Characters of a recipe's name, which names folders."""
MOST_FILES, DEEPEST_INCLUDE, MOST_KEYS = 200, 20, 200_000
"""Files that a recipe is composed of, how deep they include each other, and the keys of all."""

STAGE_ONLY = frozenset({"name", "start_from"})
"""Keys that belong to one stage: overlays and overrides set them on the last stage of a chain alone."""


@dataclass
class Composed:
    """A recipe, and where it comes from."""

    recipe: Recipe
    path: Path
    start_folder: Path
    """Folder that a relative `start_from` is relative to."""
    parts: Sequence[Part] = ()

    def place(self, *key: str) -> str:
        """The file and line, or the override, that set a key last; empty if none did."""
        return self._places.get(key, "")

    @cached_property
    def _places(self) -> dict[Key, str]:
        return {key: part.mark(key) for part in self.parts for key, _ in walk(part.content)}


class Part(NamedTuple):
    """A layer without its `stages`, or its section for one stage."""

    layer: Layer
    prefix: Key
    """Key of the section in the layer."""
    content: dict[str, Any]

    def mark(self, key: Key) -> str:
        """Place of a key of the content."""
        return self.layer.mark((*self.prefix, *key))


def compose(recipes: Sequence[str], overrides: Sequence[str], manager: PluginManager) -> Recipe:
    """One recipe from files or names, merged left to right, and `key=value` overrides.

    Its `start_from` is left as it is written. Raises `RecipeError` with every unknown key and wrong type at once, and
    `UserError` for a file that does not exist.
    """
    return compose_file(locate(recipes[0], manager), recipes[1:], overrides, manager, last=True).recipe


def compose_file(
    path: Path, overlays: Sequence[str], overrides: Sequence[str], manager: PluginManager, last: bool
) -> Composed:
    """One recipe file, whose includes come before it, with overlays and overrides on top.

    Args:
        overlays: further recipe files or names, merged left to right.
        last: whether it is the stage that was asked for. One that a stage starts from takes no keys of one stage alone
            (`STAGE_ONLY`) from overlays and overrides.

    Raises:
        RecipeError: with everything that is wrong with keys, types, ranges and requirements.
        UserError: for a file that does not exist.
    """
    sizes: list[int] = []
    own = _layers(path, manager, (), sizes)
    if not overlays and not any(layer.marks for layer in own):
        raise RecipeError([f"{path}: is empty, or holds nothing but comments; a recipe is a mapping of keys"])
    names = {layer.content["name"] for layer in own if isinstance(layer.content.get("name"), str)} or {path.stem}
    extra = [layer for overlay in overlays for layer in _layers(locate(overlay, manager), manager, (), sizes)]
    extra += [override_layer(text) for text in overrides]
    if not last:
        for layer in extra:
            layer.content = {key: value for key, value in layer.content.items() if key not in STAGE_ONLY}
    layers = [*own, *extra]
    check_requirements([one for layer in layers for one in _required(layer, names)], manager)
    start_folder = next((layer.folder for layer in reversed(layers) if "start_from" in layer.content), path.parent)
    problems: list[str] = []
    parts = [part for layer in layers for part in _parts(layer, names, problems)]
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
    merged = merge(*(part.content for part in parts))
    merged["name"] = merged.get("name") or path.stem
    if requires := added_up(part.content.get("requires", ()) for part in parts):
        merged["requires"] = requires
    recipe = _resolved(merged, parts)
    composed = Composed(recipe, path, start_folder, parts)
    _place_paths(composed, manager)
    if not NAME.fullmatch(recipe.name):
        text = (
            f"`name` {plain(repr(recipe.name)):.120} names a folder: at most {LONGEST_NAME} letters, digits, `_`, `-` "
            "and `.`, the first a letter or digit, the last no `.`"
        )
        raise RecipeError(_placed(parts, [(("name",), text)]))
    return composed


def _place_paths(composed: Composed, manager: PluginManager) -> None:
    """Puts in place of paths in options those of the files beside the recipe files that give them."""
    folders = {key: part.layer.folder for part in composed.parts for key, _ in walk(part.content)}

    def folder(key: Key) -> Path:
        return next((folders[key[:length]] for length in range(len(key), 0, -1) if key[:length] in folders), Path())

    recipe = composed.recipe
    sources = [(group, name) for group, one in recipe.data.groups.items() for name in one.sources]
    content = {
        "plugins": recipe.plugins,
        "data": {"groups": {group: {"sources": {}} for group in recipe.data.groups}},
    }
    for group, name in sources:
        options = recipe.data.groups[group].sources[name].options
        content["data"]["groups"][group]["sources"][name] = {"options": options}
    keys = list(path_keys(recipe, manager))
    try:
        place_paths(content, keys, folder)
    except UserError as error:
        raise RecipeError([f"{composed.path}: {error}"]) from None


def _required(layer: Layer, names: Collection[str]) -> Iterator[Required]:
    """What a layer requires of a recipe of these names."""
    yield from required_of(layer.content, layer.mark)
    stages = layer.content.get("stages")
    if isinstance(stages, dict):
        for name in sorted(names):
            yield from required_of(stages.get(name), layer.mark, ("stages", name))


def _parts(layer: Layer, names: Collection[str], problems: list[str]) -> Iterator[Part]:
    """The parts of a layer that apply to a recipe of these names. The sections for other recipes are checked too."""
    content = dict(layer.content)
    stages = content.pop("stages", None) or {}
    yield _checked(Part(layer, (), content), problems)
    if not isinstance(stages, dict):
        problems.append(f"{layer.mark(('stages',))}: `stages` must be a mapping of recipe names")
        return
    for name, section in stages.items():
        part = Part(layer, ("stages", plain(str(name))), section)
        if isinstance(section, dict):
            for key in sorted(STAGE_ONLY & section.keys()):
                problems.append(f"{part.mark((key,))}: `{key}` cannot be set here: it belongs to one recipe alone")
            part = part._replace(content={key: item for key, item in section.items() if key not in STAGE_ONLY})
        part = _checked(part, problems)
        if name in names:
            yield part


def _checked(part: Part, problems: list[str]) -> Part:
    check = checker()
    content = check.check(Recipe, part.content)
    problems += [f"{part.mark(key)}: {text}" for key, text in check.problems]
    return part._replace(content=content)


def _placed(parts: Sequence[Part], problems: Sequence[tuple[Key, str]]) -> list[str]:
    """The problems, each with the file and line, or the override, that set its key last."""
    places = {key: part.mark(key) for part in parts for key, _ in walk(part.content)}
    lines = []
    for key, text in problems:
        known = next(key[:length] for length in range(len(key), -1, -1) if key[:length] in places)
        lines.append(f"{places[known]}: {text}")
    return list(dict.fromkeys(lines))


def _resolved(merged: dict[str, Any], parts: Sequence[Part]) -> Recipe:
    """The recipe of merged content. Where that has references, also to defaults, what they lead to is checked too."""
    if any(refers(value) for _, value in walk(merged)):
        whole = merge(asdict(Recipe()), merged)
        problems = list(reference_problems(whole))
        if not problems:
            literal, resolved = checker(literal=True), resolve(whole)
            merged = literal.check(Recipe, {name: resolved[name] for name in merged})
            problems = literal.problems
        if problems:
            raise RecipeError(_placed(parts, problems))
    return build(Recipe, merged)


def _layers(path: Path, manager: PluginManager, above: tuple[Path, ...], sizes: list[int]) -> list[Layer]:
    """The file's layer after those of the files that it includes. `sizes` has the number of keys of each file."""
    if path.resolve() in above:
        raise RecipeError([f"{path}: `include` leads back to the file itself"])
    if len(sizes) >= MOST_FILES or len(above) >= DEEPEST_INCLUDE or sum(sizes) > MOST_KEYS:
        raise RecipeError(
            [
                f"{path}: `include` leads to more than {MOST_FILES} files or {MOST_KEYS:,} keys, counted as often as "
                f"they are included, or goes deeper than {DEEPEST_INCLUDE}"
            ]
        )
    layer = read_layer(path)
    sizes.append(len(layer.marks))
    included = layer.content.pop("include", None) or []
    if not isinstance(included, list) or not all(isinstance(item, str) for item in included):
        raise RecipeError([f"{layer.mark(('include',))}: `include` must be a list of recipe files or names"])
    layers: list[Layer] = []
    for index, item in enumerate(included):
        beside, root = path.parent / item, root_of(path.parent)
        try:
            if root is not None and not (inside(root, path.parent, item) and is_file(beside)):
                if item not in manager.recipes():
                    raise UserError(
                        f"`include: {printable(item):.200}` is not in what was fetched, and no plugin ships it"
                    )
                beside = manager.recipes()[item][1]
            target = beside if is_file(beside) else locate(item, manager)
        except UserError as error:
            raise RecipeError([f"{layer.mark(('include', str(index)))}: {error}"]) from None
        layers += _layers(target, manager, (*above, path.resolve()), sizes)
    return [*layers, layer]
