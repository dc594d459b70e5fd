"""What groups are given while the mixture changes, after every row, for documents of any length.

The oracle integrates the shares in exact fractions, by the middle of each straight piece of a row, and counts the
positions of the documents in the emitted rows: no group is further from the integral of its ramp than the positions of
one row, or, of rows, than `1 - 1 / (2k - 2)` of one for k groups.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from replay_kinds.shares import Documents, kinds
from replays import Variant

from mio.core.data.ledger import group_shares
from mio.core.data.mixture import StreamShare
from mio.core.data.plan import Plan, Row
from mio.core.data.ramp import mean_shares
from mio.core.recipe.data_schema import MixtureConfig, PackingConfig, RampPoint


class Point(NamedTuple):
    """Exact shares at a moment of the stage."""

    at: Fraction
    shares: list[Fraction]


def points_of(mixture: MixtureConfig, groups: Sequence[str]) -> list[Point]:
    tables = [(0.0, mixture.ratios), *((point.at, point.ratios) for point in mixture.ramp)]
    exact = [(Fraction(str(at)), [Fraction(str(ratios[group])) for group in groups]) for at, ratios in tables]
    return [Point(at, [ratio / sum(ratios) for ratio in ratios]) for at, ratios in exact]


def due_in(points: Sequence[Point], row: int, length: int) -> list[Fraction]:
    """The integral of each share over a row."""
    cuts = [Fraction(row), *(at * length for at, _ in points if row < at * length < row + 1), Fraction(row + 1)]
    due = [Fraction(0)] * len(points[0].shares)
    for start, end in pairwise(cuts):
        middle = (start + end) / 2 / length
        before = max(index for index, (at, _) in enumerate(points) if at <= middle)
        first, last = points[before], points[min(before + 1, len(points) - 1)]
        part = (middle - first.at) / (last.at - first.at) if last.at > first.at else Fraction(0)
        due = [d + (end - start) * (a + part * (b - a)) for d, a, b in zip(due, first.shares, last.shares, strict=True)]
    return due


def wrong(
    streams: list[Documents], mixture: MixtureConfig, length: int, context: int, made: tuple[list[Row], Plan]
) -> str:
    rows, plan = made
    points, by_rows = points_of(mixture, plan.groups), mixture.unit == "rows"
    bound = Fraction(context) if not by_rows else 1 - Fraction(1, max(2, 2 * len(plan.groups) - 2))
    due, given = [Fraction(0)] * len(plan.groups), [0] * len(plan.groups)
    for count, row in enumerate(rows):
        of_groups = [plan.groups.index(streams[entry.stream].share.group) for entry in row]
        amounts = [1] if by_rows else [entry.length for entry in row]
        for group, amount in zip(of_groups, amounts, strict=False):
            given[group] += amount
        due = [d + more * sum(amounts) for d, more in zip(due, due_in(points, count, length), strict=True)]
        for group, owed, had in zip(plan.groups, due, given, strict=True):
            if abs(owed - had) > bound:
                return (
                    f"after {count + 1} rows {group} is {float((had - owed) / bound):.4f} times the bound off its ramp"
                )
    for owed, had, (target, achieved) in zip(due, given, group_shares(plan.state()).values(), strict=True):
        if abs(target - owed / sum(due)) > 1e-6 or abs(achieved - had / sum(given)) > 1e-6:
            return "the ledger has other shares than the rows"
    return ""


def made_mixture(random: random.Random, unit: str) -> MixtureConfig:
    """Groups that come, go and jump."""
    moments = sorted({random.choice([0.1, 0.25, 0.5, 0.7, 1.0, round(random.uniform(0.01, 1), 3)]) for _ in range(3)})
    if random.random() < 0.5 and moments[0] < 1:
        moments.insert(0, moments[0])
    groups = [f"g{index}" for index in range(random.randint(2, 5))]
    tables = [{group: random.choice([0.0, 0.0, 1.0, 3.0, 0.7, 1000.0]) for group in groups} for _ in [0.0, *moments]]
    for table in tables:
        table["g0"] = table["g0"] or 1.0
    read = [group for group in groups if any(table[group] for table in tables)]
    first, *later = ({group: table[group] for group in read} for table in tables)
    return MixtureConfig(unit=unit, ratios=first, ramp=[RampPoint(*one) for one in zip(moments, later, strict=True)])


def variants(folder: Path, random: random.Random) -> Iterator[Variant]:  # noqa: ARG001
    while True:
        mixture, context = made_mixture(random, random.choice(["tokens", "rows"])), random.choice([16, 256, 1000, 2800])
        length, chosen = random.choice([7, 40, 200]), set()
        groups, streams = list(mixture.ratios), []
        for group, mean in zip(groups, mean_shares(mixture, groups), strict=True):
            weights = [10 ** random.uniform(0, 3) for _ in range(random.randint(1, 3))]
            for place, weight in enumerate(weights):
                kind, lengths = random.choice(list(kinds(random, context).items()))
                chosen.add(kind)
                share = StreamShare(group, f"s{place}", "", mean * weight / sum(weights))
                streams.append(Documents(share, lengths, context))
        packing = PackingConfig(context=context, window=random.choice([1, 16, 256, 512]))
        yield variant(streams, mixture, packing, length, ", ".join(sorted(chosen)))


def variant(
    streams: list[Documents], mixture: MixtureConfig, packing: PackingConfig, length: int, about: str
) -> Variant:
    def read() -> tuple[list[Row], Plan]:
        plan = Plan(streams, mixture, packing, length)
        rows = [plan.next_row() for _ in range(length // 2)]
        again = Plan(streams, mixture, packing, length)  # as a run that is continued
        again.restore(json.loads(json.dumps(plan.state())))
        return rows + [again.next_row() for _ in range(length + 10 - length // 2)], again

    def right(made: tuple[list[Row], Plan]) -> str:
        return wrong(streams, mixture, length, packing.context, made)

    points = ", ".join(f"{point.at:g} {list(point.ratios.values())}" for point in mixture.ramp)
    where = f"{length} rows of {packing.context} by {mixture.unit}, window {packing.window}"
    return Variant(f"{where}: {list(mixture.ratios.values())}, {points}: {about}", read, right)
