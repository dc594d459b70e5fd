"""Problems of the data sections of a recipe, all of them at once. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping

from mio.core.contract.ranges import field_problems
from mio.core.errors import nearest
from mio.core.recipe.data_schema import DataConfig, MixtureConfig, SourceConfig


def check_data(data: DataConfig, mixture: MixtureConfig) -> list[str]:
    """Every problem that the data and mixture sections have by themselves, each one sentence."""
    out_of_range = [*field_problems(mixture, "mixture"), *field_problems(data, "data")]
    return [*out_of_range, *_mixture(data, mixture), *_groups(data)]


def check_source(
    where: str,
    source: SourceConfig,
    datasets: Collection[str],
    templates: Mapping[str, Collection[str]],
    filters: Collection[str],
) -> list[str]:
    """Problems of one source's names, and of the numbers in its options.

    Args:
        where: place in the recipe, for the messages.
        datasets: corpora and readers that exist.
        templates: directions of each template set that exists, the recipe's own sets included.
        filters: record filters that exist.
    """
    problems = []
    if source.dataset not in datasets:
        problems.append(
            f"`{where}.dataset` names an unknown dataset `{source.dataset}`{nearest(source.dataset, datasets)}"
        )
    if source.templates and source.templates not in templates:
        hint = nearest(source.templates, templates)
        problems.append(f"`{where}.templates` names an unknown template set `{source.templates}`{hint}")
    known = templates.get(source.templates)
    if known is not None:
        problems += [
            f"`{where}.directions` names a direction `{name}` that template set `{source.templates}` lacks"
            f"{nearest(name, known)}"
            for name in source.directions
            if name not in known
        ]
    elif source.directions and not source.templates:
        problems.append(f"`{where}.directions` needs `{where}.templates`; set it, or remove the directions")
    problems += [
        f"`{where}.filters` names an unknown filter `{name}`{nearest(name, filters)}"
        for name in source.filters
        if name not in filters
    ]
    problems += [
        f"`{where}.filters.{name}` must be a mapping of options, not {options!r:.60}"
        for name, options in source.filters.items()
        if not isinstance(options, Mapping | None)
    ]
    problems += not_finite(f"{where}.options", source.options)
    problems += not_finite(f"{where}.filters", source.filters)
    return problems


def not_finite(where: str, value: object) -> Iterator[str]:
    """Problems of the numbers anywhere inside options: each must be finite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"`{where}` is {value}; it must be a finite number"
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from not_finite(f"{where}.{name}", inner)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from not_finite(f"{where}[{index}]", inner)


def _mixture(data: DataConfig, mixture: MixtureConfig) -> Iterator[str]:
    for group, ratio in mixture.ratios.items():
        if group not in data.groups:
            yield f"`mixture.ratios` names an unknown group `{group}`{nearest(group, data.groups)}"
        elif ratio > 0 and not data.groups[group].sources:
            yield f"`mixture.ratios.{group}` is {ratio:g}, but `data.groups.{group}` has no sources; add one, or set 0"
    if not any(ratio > 0 for ratio in mixture.ratios.values()):
        yield "`mixture.ratios` has no ratio above 0; give at least one group a share"


def _groups(data: DataConfig) -> Iterator[str]:
    for group, config in data.groups.items():
        for name, source in config.sources.items():
            where = f"data.groups.{group}.sources.{name}"
            if source.directions and not any(share > 0 for share in source.directions.values()):
                yield f"`{where}.directions` has no share above 0; give at least one direction a share"
        if config.sources and not any(source.weight > 0 for source in config.sources.values()):
            yield f"`data.groups.{group}` has no source with a weight above 0; give at least one a weight"
