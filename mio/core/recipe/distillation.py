"""Which groups of a recipe are learnt from the probabilities of what the stage starts from."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator

from mio.core.errors import nearest
from mio.core.recipe.schema import DistillationConfig, Recipe

NOT = "!"
"""Before a pattern that takes away what it matches."""


def distilled_groups(recipe: Recipe) -> list[str]:
    """Groups of the mixture that `train.distillation` names, in their order."""
    config = recipe.train.distillation
    chosen: set[str] = set()
    for pattern in config.groups if config.share else ():
        found = fnmatch.filter(_groups(recipe), pattern.removeprefix(NOT))
        chosen = chosen.difference(found) if pattern.startswith(NOT) else chosen.union(found)
    return [group for group in _groups(recipe) if group in chosen]


def distillation_problems(recipe: Recipe) -> Iterator[str]:
    """What is wrong with `train.distillation`."""
    patterns, groups = recipe.train.distillation.groups, _groups(recipe)
    if not patterns:
        if recipe.train.distillation != DistillationConfig():
            yield (
                "`train.distillation` says how groups are learnt, but `train.distillation.groups` names none; name "
                "some, or turn it off with `train.distillation={_replace_: true}`"
            )
        return
    if not recipe.train.distillation.share:
        yield (
            "`train.distillation.share` is 0, and nothing would be learnt from probabilities; raise it, or leave "
            "`train.distillation.groups` out"
        )
    if not recipe.start_from:
        yield "`train.distillation.groups` names groups, but the stage starts from nothing; give `start_from`"
    unknown = [pattern for pattern in patterns if not fnmatch.filter(groups, pattern.removeprefix(NOT))]
    for pattern in unknown:
        yield (
            f"`train.distillation.groups`: `{pattern}` matches no group of the mixture"
            f"{nearest(pattern.removeprefix(NOT), groups)} "
            f"(it has {', '.join(f'`{group}`' for group in groups) or 'none'})"
        )
    if not unknown and recipe.train.distillation.share and not distilled_groups(recipe):
        yield f"`train.distillation.groups` is {patterns}, which leaves no group; name one, or leave it out"


def _groups(recipe: Recipe) -> list[str]:
    return [group for group in recipe.data.groups if recipe.mixture.read(group)]
