"""The schema of the data sections: sources, groups, mixture, packing. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mio.core.contract.ranges import number, one_of
from mio.core.errors import nearest


@dataclass
class SourceConfig:
    """One stream of records inside a group."""

    dataset: str = ""
    """Name of a corpus that a plugin ships (`digits/captions`), or of a reader of the core (`jsonl`)."""
    split: str = "train"
    options: dict[str, Any] = field(default_factory=dict)
    """Handed to the corpus or reader as they are."""
    templates: str = ""
    """Template set that turns a record into a document; empty for records that hold `messages` or `parts`."""
    directions: dict[str, float] = number(dict, 0, 1e9)
    """Share of each direction of the template set; empty means equal shares."""
    weight: float = number(1.0, 0, 1e9)
    """Share within the group, relative to the group's other sources."""
    form: str = one_of("", "", "plain", "chat")
    """`plain` or `chat`; empty means the recipe's `data.form`."""
    filters: dict[str, Any] = field(default_factory=dict)
    """Record filters by name, each with its options; records dropped are counted per reason."""
    held_out: float | None = number(None, 0, 1, below=True)
    """Share of the records that is never trained on, chosen by key; null: `data.held_out`, and none where another split
    validates."""
    held_out_by: list[str] = field(default_factory=list)
    """Fields that are a record's key: records that agree in them stay together. Empty: its media, or else its texts."""
    validation_split: str = ""
    """The split that validates in place of held-out records; empty: none does."""

    def problems(
        self,
        where: str,
        datasets: Collection[str],
        templates: Mapping[str, Collection[str]],
        filters: Collection[str],
    ) -> Iterator[str]:
        """What is wrong with the names, and with the numbers in options, one sentence each.

        Args:
            where: place in the recipe, for the messages.
            datasets: corpora and readers that exist.
            templates: directions of each template set that exists, the recipe's own sets included.
            filters: record filters that exist.
        """
        if self.dataset not in datasets:
            yield f"`{where}.dataset` names an unknown dataset `{self.dataset}`{nearest(self.dataset, datasets)}"
        known = templates.get(self.templates, ())
        if self.templates and self.templates not in templates:
            hint = nearest(self.templates, templates)
            yield f"`{where}.templates` names an unknown template set `{self.templates}`{hint}"
        elif self.directions and not self.templates:
            yield f"`{where}.directions` needs `{where}.templates`; set it, or remove the directions"
        else:
            for name in self.directions:
                if name not in known:
                    yield (
                        f"`{where}.directions` names a direction `{name}` that template set `{self.templates}` lacks"
                        f"{nearest(name, known)}"
                    )
        for name, options in self.filters.items():
            if name not in filters:
                yield f"`{where}.filters` names an unknown filter `{name}`{nearest(name, filters)}"
            if not isinstance(options, Mapping | None):
                yield f"`{where}.filters.{name}` must be a mapping of options, not {options!r:.60}"
        if self.validation_split and self.validation_split == self.split:
            yield f"`{where}.validation_split` is the split that is trained on, `{self.split}`; name another one"
        if self.validation_split and self.held_out:
            yield f"`{where}` has both `held_out` and `validation_split`; leave one of them out"
        yield from _not_finite(f"{where}.options", self.options)
        yield from _not_finite(f"{where}.filters", self.filters)


def _not_finite(where: str, value: object) -> Iterator[str]:
    """Problems of the numbers anywhere inside options: each must be finite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"`{where}` is {value}; it must be a finite number"
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _not_finite(f"{where}.{name}", inner)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _not_finite(f"{where}[{index}]", inner)


@dataclass
class GroupConfig:
    """Sources that share one ratio of the stage's mixture."""

    sources: dict[str, SourceConfig] = field(default_factory=dict)


@dataclass
class TemplateConfig:
    """One template of a set that the recipe defines or replaces."""

    direction: str = ""
    prompt: str = ""
    response: str = ""


@dataclass
class RampPoint:
    """The mixture at one moment of the stage."""

    at: float = number(1.0, 0, 1, above=True)
    """The moment, as a share of the stage's steps."""
    ratios: dict[str, float] = number(dict, 0, 1e9)
    """Ratio per group, in the scale of what comes before; a group that is left out keeps the ratio it has there."""


@dataclass
class MixtureConfig:
    """How much of each group the stage sees."""

    unit: str = one_of("tokens", "tokens", "rows")
    """`tokens`: a row mixes groups and shares count tokens. `rows`: a row holds one group and shares count rows."""
    ratios: dict[str, float] = number(dict, 0, 1e9)
    """Ratio per group, in any scale (`12:2:0:2`); a group that is left out or 0 is not read."""
    ramp: list[RampPoint] = field(default_factory=list)
    """Where the mixture goes from there: shares move in straight lines from one point to the next."""

    def points(self) -> list[RampPoint]:
        """The beginning and each point of the ramp, with the ratios of all groups that were named up to there."""
        points = [RampPoint(0.0, self.ratios)]
        for point in self.ramp:
            points.append(RampPoint(point.at, {**points[-1].ratios, **point.ratios}))
        return points

    def read(self, group: str) -> bool:
        """Whether a group has a share at any moment."""
        return any(point.ratios.get(group, 0) > 0 for point in self.points())


@dataclass
class PackingConfig:
    """How documents become rows."""

    context: int = number(256, 2, 2**22)
    """Positions L of a row. A document of n tokens takes n - 1 of them."""
    window: int = number(256, 1, 10**6)
    """Documents among which the best fit for a row is looked for."""
    too_long: str = one_of("truncate", "truncate", "skip", "error")
    """A document longer than the context: `truncate` (at a span's border, never inside one), `skip`, or `error`."""


@dataclass
class DataConfig:
    """What is learnt from: sources by group, how their records become documents, and how documents share rows."""

    groups: dict[str, GroupConfig] = field(default_factory=dict)
    templates: dict[str, list[TemplateConfig]] = field(default_factory=dict)
    """Template sets of the recipe's own; one named like a plugin's replaces it."""
    form: str = one_of("plain", "plain", "chat")
    """`plain`: prompt and response as one text, all of it trained. `chat`: ChatML, the assistant's turns trained."""
    system: dict[str, str] = field(default_factory=dict)
    """System prompts of the chat form: by the modality that the whole response consists of; `given_NAME`, where what is
    given holds a modality, the first that does; or `default`."""
    held_out: float = number(0.0, 0, 1, below=True)
    """Share of the records of every source that is never trained on, chosen by key, for validation."""
    max_skipped: float = number(0.0, 0, 1)
    """Share of a source's records that may be broken; beyond it the run stops before it trains."""
    packing: PackingConfig = field(default_factory=PackingConfig)

    def held_out_of(self, source: SourceConfig) -> float:
        """Share of a source's records that is held out."""
        if source.held_out is not None:
            return source.held_out
        return 0.0 if source.validation_split else self.held_out
