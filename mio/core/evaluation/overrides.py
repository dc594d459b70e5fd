"""`key=value` for the evaluation of a run: what of its recipe decides nothing of the trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from mio.core.contract.checker import build
from mio.core.contract.tasks import Task
from mio.core.contract.values import Decoding
from mio.core.errors import RecipeError, nearest
from mio.core.generation.defaults import DEFAULT, generate_problems
from mio.core.recipe.layers import Layer, checker, override_layer
from mio.core.recipe.merging import merge
from mio.core.recipe.schema import Recipe
from mio.core.runs.run import Run

_SECTIONS = ("plugins", "evaluate", "generate")

_BUILDING = frozenset(
    f"mio_{what}"
    for what in ("modalities", "tokenizer", "detokenizer", "control_tokens", "encoder", "adapters", "head")
)
"""Hooks of plugins that are part of a model."""

Said = Mapping[str, Mapping[str, Any]]
"""What is said of decoding, by modality of the answer; `default`: of all."""


def overridden(run: Run, overrides: Sequence[str]) -> tuple[Run, Said]:
    """A run whose evaluation differs by these `key=value`, and what they say of decoding.

    `plugins.NAME.*` are options of plugins that declare nothing of the model, whether the recipe has them or not.

    Raises:
        RecipeError: with every key that is unknown or belongs to the training, and every wrong value.
        PluginError: there is no such plugin.
    """
    if not overrides:
        return run, {}
    layers = [override_layer(text) for text in overrides]
    problems = [problem for layer in layers for problem in _problems(layer)]
    if problems:
        raise RecipeError(problems)
    recipe = build(Recipe, merge(asdict(run.recipe), *(layer.content for layer in layers)))
    own = run.with_recipe(recipe)
    problems = [
        f"{layer.origin}: plugin `{name}` is part of the trained model, and so are its options; those of plugins that "
        "declare no modality, token or network can be set here"
        for layer in layers
        for name in layer.content.get("plugins") or ()
        if _BUILDING.intersection(run.manager.candidate(name).hooks)
    ]
    said = merge(*(layer.content.get("generate") or {} for layer in layers))
    if not problems and said:
        modalities = {declared.name: declared for _, declared in own.plugins.modalities()}
        problems = list(generate_problems(recipe, modalities, own.codecs.networks))
    if problems:
        raise RecipeError(problems)
    return own, said


def _problems(layer: Layer) -> list[str]:
    check = checker(literal=True)
    check.check(Recipe, layer.content)
    if check.problems:
        return [f"{layer.origin}: {text}" for _, text in check.problems]
    [section] = layer.content
    if section in _SECTIONS:
        return []
    known = ", ".join(f"`{name}`" for name in _SECTIONS)
    return [f"{layer.origin}: `{section}` belongs to the training; an evaluation is changed by keys of {known}"]


def decoded(task: Task, said: Said) -> Task:
    """A task with what is said of decoding in place of its own."""
    own = merge(said.get(DEFAULT) or {}, said.get(task.output) or {})
    known = [one.name for one in fields(Decoding)]
    for name in own:
        if name not in known:
            raise RecipeError([f"`generate`: unknown key `{name}`{nearest(name, known)}"])
    return replace(task, decoding=replace(task.decoding, **own)) if own else task
