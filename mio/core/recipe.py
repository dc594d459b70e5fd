"""Recipes: composing files into the structured schema, the chain of stages, fingerprints and differences. No torch.

Order of precedence, the last one winning: included files, the file itself, its `stages` section of the recipe's name,
further files of the command line in order, `key=value` overrides. See docs/recipes.md for the language.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePath
from typing import Any, Protocol

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mio.core.checkpoints.format import INDEX, STEP_FOLDER
from mio.core.errors import RecipeError, UserError
from mio.core.plugins import PluginManager
from mio.core.recipe_files import REPLACE, Key, Layer, SchemaChecker, override_layer, read_layer
from mio.core.schema import Recipe
from mio.core.suggest import nearest
from mio.core.transformer.config import TransformerConfig

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
    if path.is_file():
        return path
    if path.is_dir() and (path / RUN_RECIPE).is_file():
        raise UserError(f"{name}: is a run folder; its recipe is {path / RUN_RECIPE}")
    shipped = manager.recipes()
    if name in shipped:
        return shipped[name][1]
    beside = [str(path.parent / found.name) for found in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    exact = [found for found in beside if found == f"{name}.yaml"]
    hint = f"; did you mean `{exact[0]}`?" if exact else nearest(name, [*beside, *shipped])
    known = f" (names that plugins ship: {', '.join(sorted(shipped))})" if shipped and not hint else ""
    raise UserError(f"no recipe {name}{hint}{known}")


def _compose(
    path: Path, overlays: Sequence[str], overrides: Sequence[str], manager: PluginManager, last: bool
) -> _Composed:
    own = _layers(path, manager, ())
    names = {layer.content["name"] for layer in own if isinstance(layer.content.get("name"), str)} or {path.stem}
    extra = [layer for overlay in overlays for layer in _layers(locate(overlay, manager), manager, ())]
    extra += [override_layer(text) for text in overrides]
    if not last:
        for layer in extra:
            layer.content = {key: value for key, value in layer.content.items() if key not in STAGE_ONLY}
    checker = SchemaChecker()
    merged: dict[str, Any] = {}
    start_folder = path.parent
    for layer in [*own, *extra]:
        content = dict(layer.content)
        stages = content.pop("stages", None) or {}
        if "start_from" in content:
            start_folder = layer.folder
        merged = merge(merged, checker.check(layer, content))
        if not isinstance(stages, dict):
            checker.problems.append(f"{layer.mark(('stages',))}: `stages` must be a mapping of recipe names")
            continue
        for name, section in stages.items():
            checked = checker.check(layer, section, ("stages", str(name)), STAGE_ONLY)
            if name in names:
                merged = merge(merged, checked)
    if checker.problems:
        raise RecipeError(list(dict.fromkeys(checker.problems)))
    recipe = _structured(_without_marker(merged), str(path))
    recipe.name = recipe.name or path.stem
    if not re.fullmatch(r"[A-Za-z0-9][\w.\-]*", recipe.name):
        raise RecipeError([f"{path}: `name` {recipe.name!r} names a folder: letters, digits, `_`, `-` and `.` only"])
    return _Composed(recipe, path, start_folder)


def _layers(path: Path, manager: PluginManager, above: tuple[Path, ...]) -> list[Layer]:
    """The file's layer after those of the files that it includes."""
    if path.resolve() in above:
        raise RecipeError([f"{path}: `include` leads back to the file itself"])
    layer = read_layer(path)
    included = layer.content.pop("include", None) or []
    if not isinstance(included, list) or not all(isinstance(item, str) for item in included):
        raise RecipeError([f"{layer.mark(('include',))}: `include` must be a list of recipe files or names"])
    layers: list[Layer] = []
    for index, item in enumerate(included):
        beside = path.parent / item
        try:
            target = beside if beside.is_file() else locate(item, manager)
        except UserError as error:
            raise RecipeError([f"{layer.mark(('include', str(index)))}: {error}"]) from None
        layers += _layers(target, manager, (*above, path.resolve()))
    return [*layers, layer]


def merge(below: Any, above: Any) -> Any:
    """`above` merged over `below`: mappings key by key unless they say `_replace_: true`, all else replaced."""
    if not isinstance(above, dict):
        return above
    if not isinstance(below, dict) or above.get(REPLACE) is True:
        below = {}
    merged = dict(below)
    for key, value in above.items():
        if key != REPLACE:
            merged[key] = merge(merged.get(key), value)
    return merged


def _without_marker(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_marker(item) for key, item in value.items() if key != REPLACE}
    return value


def _structured(content: Mapping[str, Any], origin: str) -> Recipe:
    try:
        config = OmegaConf.merge(OmegaConf.structured(Recipe), content)
        recipe = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        key = f"`{error.full_key}`: " if error.full_key else ""
        raise RecipeError([f"{origin}: {key}{str(error).splitlines()[0]}"]) from None
    assert isinstance(recipe, Recipe)
    return recipe


def _resolve_start(composed: _Composed, manager: PluginManager) -> tuple[Path | None, Path | None]:
    """(recipe, folder of a run or of a checkpoint) that the stage starts from; at most one of them is given."""
    start = composed.recipe.start_from
    if not start:
        return None, None
    for path in (composed.start_folder / start, Path(start)):
        if path.is_file():
            return path, None
        if (path / RUN_RECIPE).is_file() or run_of_checkpoint(path) is not None:
            return None, path
    shipped = manager.recipes()
    if start in shipped:
        return shipped[start][1], None
    beside = [found.name for found in composed.start_folder.glob("*.yaml")]
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
    if not (path / INDEX).is_file():
        return None
    of_run = path.resolve().parents[1]
    return of_run if (of_run / RUN_RECIPE).is_file() else None


def load_resolved(path: Path) -> Recipe:
    """A recipe that `to_yaml` wrote. Raises `RecipeError` if it does not fit the schema."""
    layer = read_layer(path)
    checker = SchemaChecker()
    content = checker.check(layer, _escaped(layer.content))
    if checker.problems:
        raise RecipeError(checker.problems)
    return _structured(content, str(path))


def _escaped(value: Any) -> Any:
    """Text of a resolved recipe means itself: `${` opens no interpolation any more."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # OmegaConf halves the backslashes before `${`
    return value


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe, every key of the schema included."""
    return yaml.safe_dump(asdict(recipe), sort_keys=False, allow_unicode=True, width=120)


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
    try:
        config = OmegaConf.merge(OmegaConf.structured(TransformerConfig), content, given)
        transformer = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise RecipeError([f"`model.{error.full_key}`: {str(error).splitlines()[0]}"]) from None
    assert isinstance(transformer, TransformerConfig)
    problems = list(_size_problems(transformer))
    if problems:
        raise RecipeError(problems)
    return transformer


def _size_problems(config: TransformerConfig) -> Iterator[str]:
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, int | float) and value < 0:
            yield f"`model.{field.name}` is {value}; it must not be negative"
    for name in ("width", "layers", "heads"):
        if getattr(config, name) < 1:
            yield f"`model.{name}` is {getattr(config, name)}; it must be at least 1"
            return
    if not config.head_width and config.width % config.heads:
        yield f"`model.width` {config.width} is no multiple of `model.heads` {config.heads}; set `model.head_width`"
    elif (config.head_width or config.width // config.heads) % 2:
        yield "`model.head_width` (width / heads) must be even: the rotary embedding turns pairs"
    if config.kv_heads > 0 and config.heads % config.kv_heads:
        yield f"`model.heads` {config.heads} must be a multiple of `model.kv_heads` {config.kv_heads}"
    if config.experts and not 1 <= config.experts_per_token <= config.experts:
        yield f"`model.experts_per_token` {config.experts_per_token} must be from 1 to `model.experts` {config.experts}"
    if config.rope_scaling.kind not in ("none", "linear", "llama3"):
        yield f"`model.rope_scaling.kind` is `{config.rope_scaling.kind}`; it is none, linear or llama3"
