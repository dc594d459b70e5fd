"""How two recipes differ, in a researcher's terms: what is mixed, what is learnt, how it is trained. No torch.

Nothing is left out: what has no words of its own is named by its key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import PurePath
from typing import Any

from mio.core.contract.plugins import PluginManager
from mio.core.contract.values import Modality
from mio.core.errors import UserError
from mio.core.recipe.data_schema import SourceConfig
from mio.core.recipe.resolved import flat, reordered
from mio.core.recipe.schema import Recipe

Declared = Sequence[tuple[str, Modality]]
"""(plugin, declaration) of a recipe's modalities."""


@dataclass(frozen=True)
class Difference:
    """One of them. `before` or `after` is empty where there is nothing."""

    what: str
    before: str
    after: str

    def __str__(self) -> str:
        if not self.before:
            return f"+ {self.what}: {self.after}"
        return f"{self.what}: {self.before} -> {self.after}" if self.after else f"- {self.what}: {self.before}"


@dataclass
class Section:
    """Differences of one kind."""

    title: str
    differences: list[Difference] = field(default_factory=list)


_SECTIONS = {
    "stage": ("name", "start_from", "seed", "requires", "license"),
    "vocabulary": ("plugins",),
    "model": ("model",),
    "mixture": ("mixture",),
    "data": ("data",),
    "training": ("train",),
    "evaluation": ("evaluate", "validate", "generate"),
    "execution": ("runtime",),
}
"""By title: sections of a recipe."""


def compare(first: Recipe, second: Recipe, declared: tuple[Declared, Declared] = ((), ())) -> list[Section]:
    """Sections in which two recipes differ. `declared` are the modalities of each, where their plugins are at hand."""
    sections = {title: Section(title) for title in _SECTIONS}
    title_of = {key: title for title, keys in _SECTIONS.items() for key in keys}
    said: set[str] = set()
    for title, found in _IN_WORDS.items():
        for difference, keys in found(first, second, declared):
            said.update(keys)
            if difference is not None:
                sections[title].differences.append(difference)
    old, new = asdict(first), asdict(second)
    for key, before, after in reordered(old, new):
        section = sections[title_of[key.split(".")[0]]]
        section.differences.append(Difference(f"order of {key}", ", ".join(before), ", ".join(after)))
    one, other = dict(flat(old)), dict(flat(new))
    for key in dict.fromkeys([*one, *other]):
        if key in said or (key in one and key in other and one[key] == other[key]):
            continue
        head, _, rest = key.partition(".")
        title = title_of[head]
        what = rest if title in ("model", "training", "execution", "data", "mixture") and rest else key
        difference = Difference(what, *(_json(side[key]) if key in side else "" for side in (one, other)))
        if difference.before != difference.after:
            sections[title].differences.append(difference)
    return [section for section in sections.values() if section.differences]


def modalities(recipes: Sequence[Recipe], manager: PluginManager) -> tuple[tuple[Declared, Declared], list[str]]:
    """What two recipes' plugins declare, and why nothing of either is given where plugins are not at hand."""
    declared: list[Declared] = []
    missing: list[str] = []
    for recipe in recipes:
        try:
            declared.append(manager.enable(recipe.plugins).modalities())
        except UserError as error:
            missing.append(str(error))
    return ((), ()) if missing else (declared[0], declared[1]), list(dict.fromkeys(missing))


Found = Iterator[tuple[Difference | None, Sequence[str]]]
"""Differences, with the keys that they, or the absence of one, have said all about."""


def _stage(first: Recipe, second: Recipe, declared: tuple[Declared, Declared]) -> Found:  # noqa: ARG001
    starts = [PurePath(one.start_from).name or "nothing" for one in (first, second)]
    yield _differs("starts from", *starts), ["start_from"] if starts[0] != starts[1] else []
    yield _differs("name", first.name, second.name), ["name"]


def _vocabulary(first: Recipe, second: Recipe, declared: tuple[Declared, Declared]) -> Found:  # noqa: ARG001
    before, after = ({one.name: _of_modality(owner, one) for owner, one in side} for side in declared)
    for name in dict.fromkeys([*before, *after]):
        yield _differs(f"modality {name}", before.get(name, ""), after.get(name, "")), []


def _of_modality(owner: str, one: Modality) -> str:
    if one.text:
        return f"text of plugin {owner}"
    if one.parts:
        parts = one.parts if isinstance(one.parts, str) else " and ".join(one.parts)
        return f"made of {parts}"
    if not one.codebooks:
        return f"by networks, {one.begin} {one.end}".rstrip()
    sizes = " + ".join(f"{one.codebooks.count(size)} x {size}" for size in dict.fromkeys(one.codebooks))
    views = "".join(f", {view} by {list(books)}" for view, books in one.views.items())
    frames = f"{one.frames.minimum} to {one.frames.maximum} frames"
    return f"{sizes} codes, {one.layout}, {frames}, {one.begin} {one.end}{views}"


def _mixture(first: Recipe, second: Recipe, declared: tuple[Declared, Declared]) -> Found:  # noqa: ARG001
    shares = [[(point.at, _shares(point.ratios)) for point in one.mixture.points()] for one in (first, second)]
    groups = dict.fromkeys(group for of in shares for _, ratios in of for group in ratios)
    for group in groups:
        exact = [[(moment, ratios.get(group, 0)) for moment, ratios in of] for of in shares]
        for digits in _DIGITS:
            before, after = (
                _over_time(of, one.mixture.unit, digits) for of, one in zip(exact, (first, second), strict=True)
            )
            if before != after or exact[0] == exact[1]:
                break
        yield _differs(group, before, after), [f"mixture.ratios.{group}"]
    yield None, ["mixture.ramp"]
    yield _differs("shares count", first.mixture.unit, second.mixture.unit), ["mixture.unit"]


_DIGITS = (3, 6, 17)
"""Of shares and moments: no more than show the difference."""


def _shares(ratios: Mapping[str, float]) -> dict[str, Fraction]:
    exact = {group: Fraction(str(ratio)) for group, ratio in ratios.items() if ratio > 0}
    total = sum(exact.values())
    return {group: ratio / total for group, ratio in exact.items()}


def _over_time(shares: Sequence[tuple[float, Fraction | int]], unit: str, digits: int) -> str:
    """Share of a group, at each moment of a ramp."""
    if not any(share for _, share in shares):
        return ""
    said = [
        f"{float(100 * share):.{digits}g} %{f' at {moment:.{digits}g}' if moment else ''}" for moment, share in shares
    ]
    return f"{', '.join(said)} of {unit}"


def _data(first: Recipe, second: Recipe, declared: tuple[Declared, Declared]) -> Found:  # noqa: ARG001
    before, after = (
        {(group, name): source for group, of in one.data.groups.items() for name, source in of.sources.items()}
        for one in (first, second)
    )
    for group, name in dict.fromkeys([*before, *after]):
        if (group, name) in before and (group, name) in after:
            continue  # what differs between them is named by its key
        sides = (_source(side.get((group, name))) for side in (before, after))
        place = f"data.groups.{group}.sources.{name}"
        keys = [key for one in (first, second) for key, _ in flat(asdict(one)) if key.startswith(f"{place}.")]
        yield _differs(f"source {group}/{name}", *sides), keys
    context = [one.data.packing.context for one in (first, second)]
    yield _differs("context", *(f"{one:,} positions" for one in context)), ["data.packing.context"]


def _source(source: SourceConfig | None) -> str:
    if source is None:
        return ""
    templates = f", templates {source.templates}" if source.templates else ""
    options = f", {_json(source.options)}" if source.options else ""
    return f"{source.dataset} {source.split}{templates}{options}"


def _training(first: Recipe, second: Recipe, declared: tuple[Declared, Declared]) -> Found:  # noqa: ARG001
    tokens = [one.train.rows * one.data.packing.context for one in (first, second)]
    yield _differs("positions of a step", *(f"{one:,}" for one in tokens)), []
    whole = [of_step * one.train.steps for of_step, one in zip(tokens, (first, second), strict=True)]
    yield _differs("positions in all", *(f"{one:,}" for one in whole)), []


def _evaluation(first: Recipe, second: Recipe, declared: tuple[Declared, Declared]) -> Found:  # noqa: ARG001
    for what, before, after in (
        ("tasks", first.evaluate.tasks, second.evaluate.tasks),
        ("tasks while training", first.validate.tasks, second.validate.tasks),
    ):
        gone, come = ([name for name in one if name not in other] for one, other in ((before, after), (after, before)))
        yield _differs(what, ", ".join(gone), ""), []
        yield _differs(what, "", ", ".join(come)), []
    told = [key for key, one, other in (("evaluate", first.evaluate, second.evaluate),
                                        ("validate", first.validate, second.validate))
            if sorted(one.tasks) != sorted(other.tasks)]  # fmt: skip
    yield None, [f"{key}.tasks" for key in told]


_IN_WORDS: dict[str, Callable[[Recipe, Recipe, tuple[Declared, Declared]], Found]] = {
    "stage": _stage,
    "vocabulary": _vocabulary,
    "mixture": _mixture,
    "data": _data,
    "training": _training,
    "evaluation": _evaluation,
}


def _differs(what: str, before: str, after: str) -> Difference | None:
    return Difference(what, before, after) if before != after else None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
