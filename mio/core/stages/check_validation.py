"""What is wrong with what a recipe says about held-out records and validation. See `check.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mio.core.contract.plugins import EnabledPlugins
from mio.core.data.mixture import read_sources
from mio.core.data.readers import READERS
from mio.core.data.readers.options import split_problems
from mio.core.errors import nearest
from mio.core.recipe.schema import Recipe, ValidateConfig
from mio.core.stages.check_reading import networks_at_hand


def validation_problems(recipe: Recipe, plugins: EnabledPlugins) -> Iterator[str]:
    """One sentence each."""
    yield from _held_out(recipe, plugins)
    validate, runtime = recipe.validate, recipe.runtime
    known = plugins.tasks()
    for name in validate.tasks:
        if name not in known:
            yield f"`validate.tasks`: {plugins.no_task(name)}"
    if not validate.every:
        if validate.tasks:
            yield "`validate.tasks` names tasks, but `validate.every` is 0; say every how many steps to validate"
        return
    if not validate.tasks and not any(_validates(recipe)):
        yield (
            f"`validate.every` is {validate.every:,}, but there is nothing to validate on; hold records out "
            "(`data.held_out`), or name a `validation_split` of a source"
        )
        return
    figures = list(_figures(recipe, plugins))
    if validate.best not in figures and (runtime.keep_best or validate.best != ValidateConfig().best):
        yield f"`validate.best` is no figure of this recipe, `{validate.best}`{nearest(validate.best, figures)}"
    if runtime.keep_best and runtime.checkpoint_every % validate.every:
        yield (
            f"`runtime.keep_best` keeps checkpoints by a figure of validation, but `runtime.checkpoint_every` "
            f"{runtime.checkpoint_every:,} is no multiple of `validate.every` {validate.every:,}; make it one"
        )


def _held_out(recipe: Recipe, plugins: EnabledPlugins) -> Iterator[str]:
    shipped = plugins.sources()
    for group, config in recipe.data.groups.items():
        for name, source in config.sources.items():
            where = f"data.groups.{group}.sources.{name}"
            if source.held_out_by and not recipe.data.held_out_of(source):
                yield f"`{where}.held_out_by` says by what records are held out, but none are; give it `held_out`"
            if source.validation_split and source.dataset in READERS and source.dataset not in shipped:
                path = Path(str(source.options.get("path", "")))
                if split_problems(source.dataset, source.validation_split, path):
                    yield (
                        f"`{where}.validation_split` is `{source.validation_split}`, but what reader "
                        f"`{source.dataset}` reads has no splits; give a share, `held_out`"
                    )


def _validates(recipe: Recipe) -> Iterator[bool]:
    for _, _, source in read_sources(recipe.data, recipe.mixture):
        yield bool(source.validation_split or recipe.data.held_out_of(source))


def _figures(recipe: Recipe, plugins: EnabledPlugins) -> Iterator[str]:
    """Names that `validate.best` may have."""
    if any(_validates(recipe)):
        yield "loss"
    sets = {
        name: [template.direction for template in templates] for name, (_, templates) in plugins.templates().items()
    }
    sets |= {name: [template.direction for template in templates] for name, templates in recipe.data.templates.items()}
    for group, name, source in read_sources(recipe.data, recipe.mixture):
        if source.validation_split or recipe.data.held_out_of(source):
            yield f"loss/{group}"
            yield f"loss/{group}/{name}"
            for direction in dict.fromkeys(sets.get(source.templates, ())):
                if not source.directions or source.directions.get(direction, 0) > 0:
                    yield f"loss/{group}/{name}/{direction}"
    yield "modality/special"
    for _, declared in plugins.modalities():
        if not declared.parts:
            yield f"modality/{declared.name}"
            yield from (f"modality/{declared.name}/codebook{index}" for index in range(len(declared.codebooks)))
    heads = networks_at_hand(plugins)[0].heads
    yield from (f"heads/{name}" for name in heads if recipe.train.loss.heads.get(name, 1) > 0)
    yield from (f"tasks/{name}" for name in recipe.validate.tasks)
