"""The optimizer's rules beside the names that they are about. No torch."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from mio.core.errors import nearest
from mio.core.recipe.model import ADAPTERS, ROW_PARAMETERS, network_of
from mio.core.recipe.schema import OptimizerConfig, RuleConfig


class _Rule(Protocol):
    pattern: str


class _Block(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def start(self) -> int: ...


R = TypeVar("R", bound=_Rule)
B = TypeVar("B", bound=_Block)

NEW = "new"
"""In `rows`, of a rule and of adapters: the vocabulary blocks that the stage adds to what it starts from."""
UNTRAINED = "untrained"
"""In `rows` of a rule: those that what the stage starts from has never told apart, of whatever block."""


def applied(rules: Mapping[str, R | None]) -> dict[str, R]:
    """Rules by name in their order, without those that are taken away."""
    return {name: rule for name, rule in rules.items() if rule is not None}


def rule_of(parameter: str, rules: Mapping[str, R | None]) -> R | None:
    """The rule that applies to a parameter: the last one that matches its name; None if none does. A rule with `rows`
    is about embedding and head alone."""
    matching = (rule for rule in applied(rules).values() if fnmatch.fnmatchcase(parameter, rule.pattern))
    meant = (rule for rule in matching if parameter in ROW_PARAMETERS or not getattr(rule, "rows", ()))
    return next(reversed(list(meant)), None)


def asked_blocks(blocks: Sequence[B], patterns: Sequence[str], known: int) -> list[B]:
    """Blocks of a vocabulary that match any of `patterns`, of a stage that starts with `known` ids: those that begin
    later are `new`."""
    names = [pattern for pattern in patterns if pattern != NEW]
    return [
        block
        for block in blocks
        if any(fnmatch.fnmatchcase(block.name, name) for name in names) or (NEW in patterns and block.start >= known)
    ]


def pulls(config: OptimizerConfig) -> bool:
    """Whether anything is pulled toward what the stage starts from."""
    return bool(config.pull or any(rule.pull for rule in applied(config.rules).values()))


def names_untrained(config: OptimizerConfig) -> bool:
    """Whether a rule trains rows that what the stage starts from has never told apart."""
    return any(UNTRAINED in rule.rows for rule in applied(config.rules).values())


def rule_problems(
    rules: Mapping[str, RuleConfig | None], names: Sequence[str], blocks: Sequence[str], networks: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """(name of the rule, problem) of every rule that matches none of the parameters `names`, or that has `rows` and
    matches none with rows of the vocabulary, or none of its `blocks`. What may be a parameter of one of `networks`, of
    whose names only the beginnings are known yet (see `network_names`), is no problem."""
    for own, rule in applied(rules).items():
        matching = fnmatch.filter(names, rule.pattern)
        if rule.rows and not set(matching) & set(ROW_PARAMETERS):
            there = [name for name in names if name in ROW_PARAMETERS]
            if any(name.startswith("rows.") for name in names):
                yield own, f"`{rule.pattern}` has `rows`: beside adapters, `train.lora.rows` says which are trained"
                continue
            had = f"; of what is trained, {', '.join(f'`{name}`' for name in there) or 'nothing'} has rows"
            yield own, f"`{rule.pattern}` has `rows`, but matches nothing that has rows of the vocabulary{had}"
        elif not matching and not may_be_of_network(rule.pattern, networks):
            yield own, f"`{rule.pattern}` matches no parameter{like_names(rule.pattern, names, networks)}"
        for pattern in rule.rows:
            if pattern not in (NEW, UNTRAINED) and not fnmatch.filter(blocks, pattern):
                near = nearest(pattern, [NEW, UNTRAINED, *blocks])
                yield own, f"`{rule.pattern}` has `rows: {pattern}`, which matches no vocabulary block{near}"


_TOKENS = re.compile(r"\*|\[!?\]?[^]]*\]|.", re.DOTALL)
"""What a shell-style pattern consists of."""


def may_be_of_network(pattern: str, networks: Sequence[str]) -> bool:
    """Whether a pattern may match names that begin like those of a plugin's network."""
    inside = f".{ADAPTERS}."
    layer, written, own = pattern.partition(inside)
    for network in networks:
        of_layer, adapts, plugin = network.partition(inside)
        if written and adapts:  # the word is meant for the place where it stands
            if fnmatch.fnmatchcase(of_layer, layer) and _may_begin(own, f"{plugin}."):
                return True
        elif _may_begin(pattern, f"{network}."):
            return True
    return False


def _may_begin(pattern: str, text: str) -> bool:
    """Whether a pattern matches something that begins with `text`."""
    tokens = _TOKENS.findall(pattern)
    at = _skipped({0}, tokens)  # places in the pattern that are reached by what was read of the text
    for character in text:
        stays = {place for place in at if place < len(tokens) and tokens[place] == "*"}
        passes = {
            place + 1 for place in at - stays if place < len(tokens) and fnmatch.fnmatchcase(character, tokens[place])
        }
        at = _skipped(stays | passes, tokens)
    return bool(at - {len(tokens)}) or (len(tokens) in at and tokens[-1:] == ["*"])


def _skipped(places: set[int], tokens: Sequence[str]) -> set[int]:
    """With the places behind stars, each of which may match nothing."""
    found = set(places)
    for place in places:
        behind = place
        while behind < len(tokens) and tokens[behind] == "*":
            behind += 1
            found.add(behind)
    return found


_OF_KIND = {
    "encoders": ("encoders", "encoders read {}", "no modality of the recipe is read by an encoder"),
    "heads": ("heads", "heads make {}", "no modality of the recipe is made by a head"),
    ADAPTERS: ("adapters", "adapters are those of the plugins {}", "no plugin of the recipe has adapters"),
}
"""By kind of network: its plural, what there is, and what is said where there is nothing."""


def like_names(pattern: str, names: Sequence[str], networks: Sequence[str] = ()) -> str:
    """What a pattern that matches none of these names may have meant."""
    kind = ADAPTERS if f".{ADAPTERS}." in pattern else pattern.partition(".")[0]
    if kind not in _OF_KIND:
        return f"; names look like `{next(iter(names), '')}`"
    plural, there, nothing = _OF_KIND[kind]
    own = [name for name in names if network_of(name).partition(".")[0] == kind]
    if own:
        return nearest(pattern, own) or f"; names of {plural} look like `{own[0]}`"
    found = [network_of(f"{network}.").split(".", 1) for network in networks]
    known = list(dict.fromkeys(name for of_kind, name in found if of_kind == kind))
    if not known:
        return f"; {nothing}"
    meant = pattern.rpartition(f".{ADAPTERS}.")[2] if kind == ADAPTERS else pattern.partition(".")[2]
    listed = ", ".join(f"`{name}`" for name in known)
    return f"; {there.format(listed)}" + nearest(meant.split(".")[0], known)
