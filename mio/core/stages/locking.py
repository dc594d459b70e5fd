"""Lock files of recipes and of runs: what `mio recipe lock` writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mio.core.contract.declared_spans import declared_spans
from mio.core.contract.plugins import EnabledPlugins, PluginManager
from mio.core.contract.values import TEXT, TextTokenizer, Trainable
from mio.core.errors import UserError
from mio.core.recipe.chain import links
from mio.core.recipe.lock_file import (
    LockedSource,
    LockedStage,
    LockedStart,
    LockFile,
    is_lock,
    lock_sum,
    locked_recipes,
)
from mio.core.recipe.origins import root_of
from mio.core.recipe.paths import path_keys
from mio.core.recipe.places import CHAIN, JOURNAL, RECIPE, SOURCES, SUMMARY, is_file, locate, run_of_checkpoint
from mio.core.recipe.resolved import fingerprint, load_resolved
from mio.core.recipe.schema import Recipe
from mio.core.runs.lock import check_run, warn
from mio.core.runs.machine import machine
from mio.core.runs.source_code import code, packages
from mio.core.runs.versions import versions
from mio.core.stages.drift import Reproduction, check_accepted, drifts, refuse, start_of, weights_sum
from mio.core.stages.provenance import run_sources, sources_at_hand
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.vocabulary import Vocabulary


def circumstances(manager: PluginManager, recipe: Recipe, devices: int = 0) -> dict[str, Any]:
    """What trains a recipe here: versions, the plugins' packages included, code and machine. `devices` are those of a
    launcher. Raises `UserError` for a device that is not here."""
    plugins = list(recipe.plugins)
    found = versions(manager, plugins)
    found["packages"] |= packages(manager, plugins)
    return found | {"code": code(manager, plugins), "machine": machine(recipe.runtime, devices)}


def reproductions(
    recipes: Sequence[str], overrides: Sequence[str], manager: PluginManager, accepted: Sequence[str], devices: int
) -> dict[str, Reproduction]:
    """What a lock file says of each of its stages, by the name that the stage is given; nothing for other recipes.

    Raises `UserError` with everything that differs here and is in none of the `accepted` groups of drift. `devices` are
    those of all ranks.
    """
    groups = check_accepted(accepted)
    if not is_lock(recipes[0]):
        if groups:
            raise UserError(f"--drift is about lock files, and {recipes[0]} is none; leave it out")
        return {}
    path = locate(recipes[0], manager)
    lock = LockFile.read(path, manager)
    made = locked_recipes(lock, path, overrides)
    drift = refuse(recipes[0], drifts(lock, made, manager, devices if devices > 1 else 0), groups)
    about = recipes[0], lock_sum(path)
    return {
        recipe.name: Reproduction(*about, stage, tuple(groups), tuple(drift))
        for stage, recipe in zip(lock.stages, made, strict=True)
    }


def lock_recipe(recipes: Sequence[str], overrides: Sequence[str], manager: PluginManager) -> tuple[LockFile, list[str]]:
    """The lock of a chain that has not been trained, and a note on everything that is left open.

    What the stages read is hashed. Raises `UserError` as `links`, and for plugins that are not here.
    """
    lock = LockFile()
    notes: list[str] = []
    for index, link in enumerate(links(recipes, overrides, manager)):
        recipe, plugins = link.recipe, manager.enable(link.recipe.plugins)
        codecs = Codecs(plugins)
        stage = LockedStage(asdict(recipe), fingerprint(recipe), **circumstances(manager, recipe))
        stage.networks = _given(codecs.networks.fingerprints())
        stage.spans = declared_spans(codecs.modalities.values())
        if link.folder is not None:
            stage.start = start_of(link.folder)
        if index == 0 and link.folder is None:
            _tokens_known(stage, codecs, plugins, notes)
        else:
            notes.append(f"{recipe.name}: vocabulary and tokenizers are left open: they grow from what it starts from")
        stage.sources = _sources(recipe, plugins, notes)
        notes += _bound_to_here(recipe, manager)
        lock.stages.append(stage)
    return lock, notes


def _tokens_known(stage: LockedStage, codecs: Codecs, plugins: EnabledPlugins, notes: list[str]) -> None:
    """Notes fingerprints of tokenizers that need not be trained, and of the vocabulary if the text's is one of them."""
    known: dict[str, str] = {}
    for name, declared in codecs.modalities.items():
        if declared.parts or not (declared.text or codecs.is_coded(name)):
            continue
        try:
            tokenizer = codecs.tokenizer(name)
        except UserError as error:
            notes.append(f"{stage.name}: tokenizer of `{name}` is left open: {error}")
            continue
        if isinstance(tokenizer, Trainable):
            notes.append(f"{stage.name}: tokenizer of `{name}` is left open: it is trained on the recipe's data")
        else:
            known[name] = tokenizer.fingerprint
    stage.tokenizers = known
    if TEXT in known and isinstance(text := codecs.text, TextTokenizer):
        made = Vocabulary.build(text, plugins.modalities(), plugins.control_tokens())
        stage.vocabulary = made.fingerprint
    else:
        notes.append(f"{stage.name}: the vocabulary is left open, as the text tokenizer is")


def _sources(recipe: Recipe, plugins: EnabledPlugins, notes: list[str]) -> dict[str, LockedSource] | None:
    found = dict(sources_at_hand(recipe, plugins))
    wrong = {label: error for label, error in found.items() if isinstance(error, UserError)}
    if wrong:
        notes += [f"{recipe.name}: sources are left open: {label}: {error}" for label, error in wrong.items()]
        return None
    return {label: source for label, source in found.items() if isinstance(source, LockedSource)}


def lock_trained(folder: Path, manager: PluginManager, alone: bool = False) -> tuple[LockFile, list[str]]:
    """The lock of a run, and notes on what no lock can say of it. The runs that it builds on are its first stages, as
    far as they were trained and are there; `alone`: it starts from the run before as it is.

    Raises `UserError` for a folder that is no run, or not what its run wrote.
    """
    if is_file(folder / CHAIN):  # of a bundle, whose parent is elsewhere
        if alone:
            raise UserError(f"{folder}: is a bundle, with one lock of its whole chain, {CHAIN}; leave out --alone")
        check_run(folder, weights=False, tell=warn)
        return LockFile.read(folder / CHAIN, manager), []
    stages: list[LockedStage] = []
    notes: list[str] = []
    seen: set[Path] = set()
    while folder.resolve() not in seen:
        seen.add(folder.resolve())
        stage, start, noted = _trained(folder, manager, notes)
        stages.insert(0, stage)
        if start is None:
            break
        if alone and noted:
            stage.start = noted
            break
        if not is_file(start / RECIPE) and run_of_checkpoint(start) is None:
            raise UserError(
                f"{folder}: starts from {start}, which is not there; put it there, so that a lock can name it"
            )
        here = _same_start(folder, start, noted, notes)
        if alone or run_of_checkpoint(start) or not was_trained(start):
            stage.start = here
            break
        folder = start
    return LockFile(stages=stages), notes


def _same_start(folder: Path, start: Path, noted: LockedStart | None, notes: list[str]) -> LockedStart:
    """What lies in the folder that a run started from. Raises `UserError` if that is something else now."""
    here = start_of(start)
    if noted is None:
        notes.append(f"{folder.name}: was trained by a mio that noted no start: that it is what is in {start} is taken")
    elif (noted.weights, noted.vocabulary) != (here.weights, here.vocabulary):
        what = "weights" if noted.weights != here.weights else "vocabulary"
        old, new = getattr(noted, what), getattr(here, what)
        raise UserError(
            f"{folder}: started from `{noted.name}` with other {what} than {start} has now ({old[:12]} -> {new[:12]}); "
            "put those back, or lock the stage alone (--alone)"
        )
    return here


def was_trained(folder: Path) -> bool:
    """Whether a run was trained, and not imported."""
    return all(is_file(folder / name) for name in (RECIPE, SOURCES, JOURNAL, SUMMARY))


def _trained(
    folder: Path, manager: PluginManager, notes: list[str]
) -> tuple[LockedStage, Path | None, LockedStart | None]:
    """A stage that was trained, the folder that it started from, and what was in it then."""
    if not was_trained(folder):
        raise UserError(f"{folder}: holds no run that was trained to its end; `mio fit` trains one")
    lock = check_run(folder, weights=True, tell=warn)
    recipe = load_resolved(folder / RECIPE, manager)
    if len(lock.history) > 1:
        steps = ", ".join(str(entry.get("step")) for entry in lock.history)
        notes.append(
            f"{recipe.name}: versions, code or machine changed while it trained (steps {steps}); the last count"
        )
    if "machine" not in lock.versions:
        notes.append(f"{recipe.name}: was trained by a mio that noted no machine and no code: these are left open")
    notes += _bound_to_here(recipe, manager)
    made = LockedStage(
        recipe=asdict(recipe),
        fingerprint=fingerprint(recipe),
        **lock.versions,
        vocabulary=lock.vocabulary,
        tokenizers=lock.tokenizers,
        networks=_given(lock.networks),
        spans=lock.spans,
        sources=run_sources(folder),
        weights=weights_sum(folder),
    )
    noted = LockedStart(**lock.start) if lock.start else None
    return made, Path(os.path.normpath(folder / recipe.start_from)) if recipe.start_from else None, noted


def _bound_to_here(recipe: Recipe, manager: PluginManager) -> Iterator[str]:
    """Notes on paths that another machine may not have: relative ones begin in the working folder, wherever that is."""
    for key in path_keys(recipe, manager):
        value: Any = asdict(recipe)
        for name in key:
            value = value.get(name) if isinstance(value, dict) else None
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, str) and Path(path).is_absolute():
                what = f"{recipe.name}: `{'.'.join(key)}` is {path}, and has to be where the lock is used"
                fetched = root_of(Path(path)) is not None
                yield f"{what}; to pass the lock on, make it in a clone of what was fetched" if fetched else what


def _given(networks: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    return {kind: dict(fingerprints) for kind, fingerprints in networks.items() if fingerprints}
