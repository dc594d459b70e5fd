"""Shares of groups, sources and directions after every row, for documents of any length.

The oracle counts the positions of the documents in the emitted rows and compares them with the closed form: no group
(in tokens), source or direction is further from its share of the level above than the positions of one row; groups of
rows are never a whole row away; documents come in the order of their stream or not at all, each once.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from replays import Variant

from mio.core.data.ledger import ledger
from mio.core.data.mixture import StreamShare
from mio.core.data.plan import Plan, Row
from mio.core.recipe.data_schema import MixtureConfig, PackingConfig

ROWS = 250


class Documents:
    """Documents of given lengths, for ever; 0 is one that cannot be used."""

    def __init__(self, share: StreamShare, lengths: list[int], context: int) -> None:
        self.share, self.name = share, share.name
        self.lengths, self.context, self.identity = lengths, context, "made"

    def __len__(self) -> int:
        return len(self.lengths)

    def length(self, n: int) -> int | None:
        return self.lengths[n % len(self)] or None

    def reason(self, n: int) -> str:  # noqa: ARG002
        return "broken"

    def truncated(self, n: int) -> int:
        return min(self.lengths[n % len(self)], self.context)

    def describe(self, n: int) -> str:
        return f"record {n % len(self)}"


def kinds(draw: random.Random, context: int) -> dict[str, list[int]]:
    """Lengths of the documents of a stream, by what is special about them."""
    divisor = draw.choice([2, 3, 4, 7, 9])
    return {
        "rows": [context],
        "halves": [context // 2 + draw.choice([0, 1])],
        f"1/{divisor}": [max(1, context // divisor + draw.choice([-1, 0, 1]))],
        "tiny": [draw.randint(1, max(1, context // 30)) for _ in range(20)],
        "ones": [1],
        "any": [draw.randint(1, context) for _ in range(60)],
        "huge and tiny": [1, context, 2, context - 1],
        "too long": [3 * context, 5, 0, context + 1],
        "articles": [min(4 * context, max(2, int(draw.lognormvariate(5, 1.2)))) for _ in range(60)],
    }


def wrong(
    streams: list[StreamShare], ratios: dict[str, float], unit: str, context: int, made: tuple[list[Row], Any]
) -> str:
    rows, report = made
    emitted: Counter[int] = Counter()
    of_groups: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    members: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, stream in enumerate(streams):
        for depth in range(4):
            members[stream[:depth]].append(index)
    for count, row in enumerate(rows, 1):
        if not 0 < sum(entry.length for entry in row) <= context:
            return f"row {count} has {sum(entry.length for entry in row)} positions"
        for entry in row:
            if (entry.stream, entry.n) in seen:
                return f"document {entry.n} of {streams[entry.stream].name} occurs twice"
            seen.add((entry.stream, entry.n))
            emitted[entry.stream] += entry.length
        if unit == "rows":
            if len({streams[entry.stream].group for entry in row}) > 1:
                return f"row {count} mixes groups"
            of_groups[streams[row[0].stream].group] += 1
            for group, ratio in ratios.items():
                if abs(of_groups[group] - count * ratio / sum(ratios.values())) >= 1:
                    return f"after {count} rows group {group} has {of_groups[group]}"
        for path, own in members.items():
            if not path or (unit == "rows" and len(path) == 1):
                continue
            above = members[path[:-1]]
            share = sum(streams[i].share for i in own) / sum(streams[i].share for i in above)
            off = sum(emitted[i] for i in own) - share * sum(emitted[i] for i in above)
            if abs(off) > context + 1e-6:
                return f"after {count} rows {'/'.join(path)} is {off / context:.3f} rows off its share"
    if report["tokens"] != sum(emitted.values()) or report["documents"] != len(seen):
        return "the ledger counts other tokens than the rows hold"
    for index, stream in enumerate(streams):
        told = report["mixture"][stream.group]["sources"][stream.source]["directions"][stream.direction]["tokens"]
        if told != emitted[index]:
            return f"the ledger says {told} tokens of {stream.name}, the rows hold {emitted[index]}"
    return ""


def variant(streams: list[Documents], mixture: MixtureConfig, packing: PackingConfig, about: str) -> Variant:
    def read() -> tuple[list[Row], Any]:
        plan = Plan(streams, mixture, packing)
        rows = [plan.next_row() for _ in range(ROWS // 2)]
        again = Plan(streams, mixture, packing)  # as a run that is continued
        again.restore(json.loads(json.dumps(plan.state())))
        rows += [again.next_row() for _ in range(ROWS - ROWS // 2)]
        return rows, ledger(again.state())

    def right(made: tuple[list[Row], Any]) -> str:
        return wrong([stream.share for stream in streams], mixture.ratios, mixture.unit, packing.context, made)

    where = f"context {packing.context}, window {packing.window}"
    return Variant(f"{len(streams)} streams by {mixture.unit}, {where}: {about}", read, right)


def variants(folder: Path, random: random.Random) -> Iterator[Variant]:  # noqa: ARG001
    for unit in ("tokens", "rows"):
        streams = [
            Documents(StreamShare("g", "s", name, 1.0), [length], 256) for name, length in (("a", 27), ("b", 28))
        ]
        packing = PackingConfig(context=256)
        yield variant(streams, MixtureConfig(unit=unit, ratios={"g": 1.0}), packing, "lengths 27 and 28")
    while True:
        unit, context = random.choice(["tokens", "rows"]), random.choice([16, 256, 1000, 2800])
        streams, chosen = [], set()
        ratios = {f"g{i}": float(random.choice([1, 1, 2, 12, 1000])) for i in range(random.choice([1, 1, 2, 4]))}
        for group, ratio in ratios.items():
            sources = [10 ** random.uniform(0, 3) for _ in range(random.randint(1, 3))]
            for place, weight in enumerate(sources):
                names = random.choice([("",), ("a", "b"), ("a", "b", "c")])
                shares = [random.choice([1, 1, 2, 1000]) for _ in names]
                for name, share in zip(names, shares, strict=True):
                    kind, lengths = random.choice(list(kinds(random, context).items()))
                    chosen.add(kind)
                    part = ratio * weight / sum(sources) * share / sum(shares)
                    streams.append(Documents(StreamShare(group, f"s{place}", name, part), lengths, context))
        packing = PackingConfig(context=context, window=random.choice([1, 16, 256, 512]))
        yield variant(streams, MixtureConfig(unit=unit, ratios=ratios), packing, ", ".join(sorted(chosen)))
