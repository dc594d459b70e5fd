"""The optimizer's rules beside the names that they are about. No torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence

from mio.core.recipe.model import ROW_PARAMETERS
from mio.core.recipe.schema import RuleConfig


def rule_problems(
    rules: Sequence[RuleConfig], names: Sequence[str], blocks: Sequence[str]
) -> Iterator[tuple[int, str]]:
    """(number of the rule, problem) of every rule that matches none of the parameters `names`, or whose `rows` match
    none of the vocabulary's `blocks` or are asked of a parameter that has none."""
    for index, rule in enumerate(rules):
        matching = fnmatch.filter(names, rule.pattern)
        if not matching:
            yield index, f"`{rule.pattern}` matches no parameter; names look like `{next(iter(names), '')}`"
        for pattern in rule.rows:
            if not fnmatch.filter(blocks, pattern):
                yield index, f"`{rule.pattern}` has `rows: {pattern}`, which matches no vocabulary block"
        for name in matching if rule.rows else ():
            if name not in ROW_PARAMETERS:
                yield index, f"`{rule.pattern}` has `rows`, but `{name}` has no vocabulary rows"
