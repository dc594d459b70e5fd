"""The optimizer's rules beside the names that they are about. No torch."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence

from mio.core.errors import nearest
from mio.core.recipe.model import ENCODERS, ROW_PARAMETERS
from mio.core.recipe.schema import RuleConfig


def rule_problems(
    rules: Sequence[RuleConfig], names: Sequence[str], blocks: Sequence[str], encoders: Sequence[str] = ()
) -> Iterator[tuple[int, str]]:
    """(number of the rule, problem) of every rule that matches none of the parameters `names`, or whose `rows` match
    none of the vocabulary's `blocks` or are asked of a parameter that has none. What may be a parameter of `encoders`,
    modalities whose networks' names are not known yet, is no problem."""
    for index, rule in enumerate(rules):
        matching = fnmatch.filter(names, rule.pattern)
        if not matching and not may_be_of_encoder(rule.pattern, encoders):
            yield index, f"`{rule.pattern}` matches no parameter{_like(rule.pattern, names, encoders)}"
        for pattern in rule.rows:
            if not fnmatch.filter(blocks, pattern):
                yield index, f"`{rule.pattern}` has `rows: {pattern}`, which matches no vocabulary block"
        for name in matching if rule.rows else ():
            if name not in ROW_PARAMETERS:
                yield index, f"`{rule.pattern}` has `rows`, but `{name}` has no vocabulary rows"


def may_be_of_encoder(pattern: str, encoders: Sequence[str]) -> bool:
    """Whether a pattern may match names that begin like those of an encoder's network: `encoders.MODALITY.`."""
    head = re.split(r"[*?[]", pattern, maxsplit=1)[0]
    wild = head != pattern
    prefixes = [f"{ENCODERS}{name}." for name in encoders]
    return any(head.startswith(prefix) or (wild and prefix.startswith(head)) for prefix in prefixes)


def _like(pattern: str, names: Sequence[str], encoders: Sequence[str]) -> str:
    """What a pattern that matches nothing may have meant."""
    own = [name for name in names if name.startswith(ENCODERS)]
    if not pattern.startswith(ENCODERS):
        return f"; names look like `{next(iter(names), '')}`"
    if own:
        return nearest(pattern, own) or f"; names of encoders look like `{own[0]}`"
    if not encoders:
        return "; no modality of the recipe is read by an encoder"
    return f"; encoders read {', '.join(f'`{name}`' for name in encoders)}" + nearest(pattern.split(".")[1], encoders)
