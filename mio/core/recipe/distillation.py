"""Which groups of a recipe are learnt from the probabilities of what the stage starts from."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator

from mio.core.errors import nearest
from mio.core.recipe.schema import Recipe


def distilled_groups(recipe: Recipe) -> list[str]:
    """Groups of the mixture that `train.distillation` names, in their order."""
    config = recipe.train.distillation
    if not config.share:
        return []
    return [
        group
        for group in recipe.data.groups
        if recipe.mixture.read(group) and any(fnmatch.fnmatchcase(group, pattern) for pattern in config.groups)
    ]


def distillation_problems(recipe: Recipe) -> Iterator[str]:
    """What is wrong with `train.distillation`."""
    patterns = recipe.train.distillation.groups
    if not patterns:
        return
    if not recipe.start_from:
        yield "`train.distillation.groups` names groups, but the stage starts from nothing; give `start_from`"
    groups = [group for group in recipe.data.groups if recipe.mixture.read(group)]
    for pattern in patterns:
        if not fnmatch.filter(groups, pattern):
            yield (
                f"`train.distillation.groups`: `{pattern}` matches no group of the mixture{nearest(pattern, groups)} "
                f"(it has {', '.join(f'`{group}`' for group in groups) or 'none'})"
            )
