"""Recipes: composing files into the structured schema, the chain of stages, fingerprints and differences. No torch.

Order of precedence, the last one winning: included files, the file itself, its `stages` section of the recipe's name,
further files of the command line in order, `key=value` overrides. See docs/recipes.md for the language.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol

from mio.core.checkpoints.format import INDEX, STEP_FOLDER
from mio.core.errors import RecipeError, UserError
from mio.core.interpolation import MISSING, reference_problems, texts
from mio.core.merging import merge, resolve, typed
from mio.core.plugins import PluginManager
from mio.core.recipe_files import Checker, Layer, override_layer, read_layer
from mio.core.schema import Recipe
from mio.core.suggest import nearest
from mio.core.terminal import plain
from mio.core.transformer.config import TransformerConfig
from mio.core.yaml_text import Key, dump_yaml

NAME = re.compile(r"(?=.{1,100}\Z)[^\W_]([\w.\-]*[\w\-])?")
LONGEST_NAME = 100
"""Characters of a recipe's name, which names folders."""
MOST_FILES, DEEPEST_INCLUDE, MOST_KEYS = 200, 20, 200_000
"""Files that a recipe is composed of, how deep they include each other, and the keys of all."""
LONGEST_CHAIN = 100
"""Stages of a chain."""

STAGE_ONLY = frozenset({"name", "start_from"})
"""Keys that belong to one stage: overlays and overrides set them on the last stage of a chain alone."""

RUN_RECIPE = "recipe.yaml"
"""A folder that holds this file is a run folder."""


@dataclass
class _Composed:
    recipe: Recipe
    path: Path
    start_folder: Path
    """Folder that a relative `start_from` is relative to."""


def compose(recipes: Sequence[str], overrides: Sequence[str], manager: PluginManager) -> Recipe:
    """One recipe from files or names, merged left to right, and `key=value` overrides.

    Its `start_from` is left as it is written. Raises `RecipeError` with every unknown key and wrong type at once, and
    `UserError` for a file that does not exist.
    """
    return _compose(locate(recipes[0], manager), recipes[1:], overrides, manager, last=True).recipe


def chain(recipes: Sequence[str], overrides: Sequence[str], manager: PluginManager) -> list[Recipe]:
    """The stages of a recipe's chain, from the first to the one that `recipes` describe.

    The first of `recipes` is the stage's own; the others and the overrides apply to every stage but for `name` and
    `start_from`. In the result, `start_from` is empty, the path of a run folder, or `../NAME` of the stage before: run
    folders lie side by side. Raises `UserError`, and `RecipeError` for a chain that returns to itself.
    """
    path: Path | None = locate(recipes[0], manager)
    stages: list[Recipe] = []
    seen: list[Path] = []
    while path is not None:
        if path.resolve() in seen:
            way = " -> ".join(stage.name for stage in [*seen, path])
            raise RecipeError([f"{path}: `start_from` leads back to a recipe of the same chain: {way}"])
        seen.append(path.resolve())
        if len(seen) > LONGEST_CHAIN:
            raise RecipeError([f"{path}: the chain of `start_from` is longer than {LONGEST_CHAIN} stages"])
        composed = _compose(path, recipes[1:], overrides, manager, last=not stages)
        recipe = composed.recipe
        path, folder = _resolve_start(composed, manager)
        if stages:
            stages[0].start_from = f"../{recipe.name}"
        if folder is not None:
            recipe.start_from = _run_reference(folder, recipe)
        stages.insert(0, recipe)
    names = [recipe.name for recipe in stages]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError([f"two stages of the chain are called `{name}`; give each its own `name`"])
    return stages


def starting_folder(recipe: Recipe) -> Path | None:
    """The folder of the run or checkpoint that a recipe of `chain` starts from, or None."""
    if not recipe.start_from:
        return None
    return Path(os.path.normpath(Path(recipe.runtime.runs) / recipe.name / recipe.start_from))


def locate(name: str, manager: PluginManager) -> Path:
    """Path of a recipe given as a path or as a name that a plugin ships. Raises `UserError` with near names."""
    path = Path(name)
    if is_file(path):
        return path
    if is_file(path / RUN_RECIPE):
        raise UserError(f"{name}: is a run folder; its recipe is {path / RUN_RECIPE}")
    shipped = manager.recipes()
    if name in shipped:
        return shipped[name][1]
    beside = [str(path.parent / found) for found in _recipes_in(path.parent)]
    exact = [found for found in beside if found == f"{name}.yaml"]
    hint = f"; did you mean `{exact[0]}`?" if exact else nearest(name, [*beside, *shipped])
    known = f" (names that plugins ship: {', '.join(sorted(shipped))})" if shipped and not hint else ""
    raise UserError(f"no recipe {name:.200}{_there(path)}{hint}{known}")


def is_file(path: Path) -> bool:
    """Whether a file is there; a path that no file can have is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _recipes_in(folder: Path) -> list[str]:
    try:
        return sorted(found.name for found in folder.glob("*.yaml"))
    except (OSError, ValueError):
        return []


def _there(path: Path) -> str:
    """What is in the place of a recipe."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        return f" ({getattr(error, 'strerror', None) or error})"
    return " (a folder)" if stat.S_ISDIR(mode) else " (no regular file)"


def _compose(
    path: Path, overlays: Sequence[str], overrides: Sequence[str], manager: PluginManager, last: bool
) -> _Composed:
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
    return _Composed(recipe, path, start_folder)


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


def _resolve_start(composed: _Composed, manager: PluginManager) -> tuple[Path | None, Path | None]:
    """(recipe, folder of a run or of a checkpoint) that the stage starts from; at most one of them is given."""
    start = composed.recipe.start_from
    if not start:
        return None, None
    for path in (composed.start_folder / start, Path(start)):
        if is_file(path):
            return path, None
        if is_file(path / RUN_RECIPE) or run_of_checkpoint(path) is not None:
            return None, path
    shipped = manager.recipes()
    if start in shipped:
        return shipped[start][1], None
    beside = _recipes_in(composed.start_folder)
    raise RecipeError(
        [
            f"{composed.path}: `start_from: {start}` is no recipe beside {composed.start_folder}, no run folder with a "
            f"{RUN_RECIPE}, no checkpoint in one, and no recipe that a plugin ships"
            f"{nearest(start, [*beside, *shipped])}"
        ]
    )


def _run_reference(folder: Path, recipe: Recipe) -> str:
    """How a resolved recipe names what it starts from: relative to its own folder where the runs lie side by side."""
    folder = folder.resolve()
    of_run = run_of_checkpoint(folder) or folder
    if of_run.parent == Path(recipe.runtime.runs).resolve():
        return f"../{folder.relative_to(of_run.parent)}"
    return str(folder)


def run_of_checkpoint(path: Path) -> Path | None:
    """The run folder of a folder that is a checkpoint, else None."""
    if not is_file(path / INDEX):
        return None
    of_run = path.resolve().parents[1]
    return of_run if is_file(of_run / RUN_RECIPE) else None


def load_resolved(path: Path) -> Recipe:
    """A recipe that `to_yaml` wrote: text means itself. Raises `RecipeError` if it does not fit the schema."""
    layer = read_layer(path)
    problems: list[str] = []
    checker = Checker(lambda key, text: problems.append(f"{layer.mark(key)}: {text}"), literal=True)
    content = checker.recipe(layer.content)
    if problems:
        raise RecipeError(problems)
    return typed(Recipe, content)


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe, every key of the schema included."""
    return dump_yaml(asdict(recipe))


def fingerprint(recipe: Recipe) -> str:
    """SHA-256 (hexadecimal) of everything except `runtime`. Where the folder of `start_from` lies does not matter."""
    return _fingerprint(asdict(recipe))


def stored_fingerprint(path: Path) -> str:
    """Fingerprint of a recipe that `to_yaml` wrote, of the keys that its schema had then. Raises `RecipeError`."""
    return _fingerprint(read_layer(path).content)


def _fingerprint(content: dict[str, Any]) -> str:
    content = {key: value for key, value in content.items() if key != "runtime"}
    start = PurePath(str(content.get("start_from", "")))
    content["start_from"] = f"{start.parents[1].name}/{start.name}" if STEP_FOLDER.fullmatch(start.name) else start.name
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))  # order counts: it is the vocabulary's
    return hashlib.sha256(text.encode()).hexdigest()


def _flat(value: Any, key: Key = ()) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flat(item, (*key, str(name)))
    else:
        yield ".".join(key), value


def diff(first: Recipe, second: Recipe, runtime: bool = False) -> list[str]:
    """Readable lines, one per key that differs: `- key: old`, `+ key: new`, or `key: old -> new`.

    The order of what a section names counts where it decides something: that of the plugins the ids, that of groups and
    sources who comes first. The section `runtime` counts only if asked for: it may change while a run is interrupted.
    """
    lines = list(_reordered(asdict(first), asdict(second)))
    old, new = dict(_flat(asdict(first))), dict(_flat(asdict(second)))
    for key in dict.fromkeys([*old, *new]):
        if key.split(".")[0] == "runtime" and not runtime:
            continue
        if key not in new:
            lines.append(f"- {key}: {_shown(old[key])}")
        elif key not in old:
            lines.append(f"+ {key}: {_shown(new[key])}")
        elif old[key] != new[key]:
            lines.append(f"{key}: {_shown(old[key])} -> {_shown(new[key])}")
    return lines


_UNORDERED = re.compile(r"model|runtime|plugins\..+|.*\.options")
"""Mappings that are options: the order of their keys decides nothing."""


def _reordered(old: Mapping[str, Any], new: Mapping[str, Any], key: Key = ()) -> Iterator[str]:
    if _UNORDERED.fullmatch(".".join(key)):
        return
    before, after = ([name for name in one if name in other] for one, other in ((old, new), (new, old)))
    if before != after:
        yield f"order of {'.'.join(key)}: {', '.join(before)} -> {', '.join(after)}"
    for name in before:
        if isinstance(old[name], dict) and isinstance(new[name], dict):
            yield from _reordered(old[name], new[name], (*key, name))


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class Presets(Protocol):
    """What `transformer_config` needs of the plugins."""

    def backbones(self) -> dict[str, tuple[str, Mapping[str, Any]]]: ...


def transformer_config(recipe: Recipe, plugins: Presets) -> TransformerConfig:
    """The transformer of a recipe: its preset, if it names one, with the fields that the recipe sets.

    Raises `RecipeError` for an unknown preset or a value of the wrong type, and for sizes that do not fit together.
    """
    given = dict(recipe.model)
    preset = given.pop("preset", "")
    content: Any = {}
    if preset:
        known = plugins.backbones()
        if preset not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise RecipeError(
                [f"`model.preset`: no plugin has a preset `{preset}`{nearest(preset, known)} (known: {listed})"]
            )
        content = dict(known[preset][1])
    problems: list[str] = []

    def tell(of_preset: bool) -> Checker:
        whose = f"preset `{preset}`: " if of_preset else ""
        return Checker(lambda _, text: problems.append(f"{whose}{text}"), literal=True)

    contents = [
        checker.of(TransformerConfig, one, ("model",)) for checker, one in ((tell(True), content), (tell(False), given))
    ]
    if problems:
        raise RecipeError(problems)
    config = typed(TransformerConfig, *contents)
    if problems := list(config.problems()):
        raise RecipeError(problems)
    return config
