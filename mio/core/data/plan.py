"""The plan of a run: one global sequence of rows, a pure function of recipe and seed. Free of torch.

Every rank and every data worker follows the same plan and builds only its own rows of it. The plan decides which
documents there are and where they go; it looks at nothing but their lengths. Its state is small and explicit, and is
restored directly, never replayed. A plan that is told the `Changes` of another follows it without looking at documents.

A document of n tokens takes n - 1 positions, each of which predicts the token after it. Lengths, shares and counters
are all in positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

from mio.core.data.mixture import Mixture, Node, RowSchedule, StreamShare
from mio.core.data.packing import Entry, Pool
from mio.core.data.ramp import Ramp
from mio.core.data.ramped_mixture import RampedMixture, RampedRows
from mio.core.data.streams import HELD_OUT, RecordStream
from mio.core.errors import DataError
from mio.core.recipe.data_schema import MixtureConfig, PackingConfig

VERSION = 2
"""Version of a plan's state and of what it means: 2 since no share is a row off at any moment."""

TOO_LONG = "longer than the context"
_RESERVE = 0.5
"""Share of a row that is left to the best fit: enough for several documents, so that some add up to it exactly."""
_EXAMPLES = 20

Row = list[Entry]
"""One packed row: its documents in order."""


@dataclass
class Counts:
    """What happened to the documents of one stream, since the beginning of the run."""

    next: int = 0
    """Number of the next document to be drawn."""
    drawn: int = 0
    """Positions of the documents drawn, those that wait for a row included."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Documents drawn and passed over, by reason."""
    documents: int = 0
    """Documents in the rows emitted."""
    positions: int = 0
    """Positions of these documents."""
    truncated: int = 0
    """Those among them that lost their end."""
    rows: int = 0
    """Rows that hold at least one of them."""


@dataclass
class Changes:
    """What happened to a plan in some rows: little, where the state of all that waits would be much."""

    drawn: list[tuple[int, Entry]] = field(default_factory=list)
    """(pool, document) of the documents drawn."""
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    """(stream, reason, description) of those passed over; the first few are described."""
    rows: list[tuple[int, Row]] = field(default_factory=list)
    """(pool, row) of the rows emitted."""


class Plan:
    """Produces the rows one after the other.

    With unit `tokens` a row may hold documents of all streams and shares count positions. With unit `rows` a row holds
    documents of one group, the groups share the rows, and positions are shared out inside each group.

    A pool holds `window` documents per kind of row, and at least one of every stream. A row takes the oldest document
    of the stream that is due, again and again, as long as half of the row stays free; the rest is filled with the
    documents that leave the least of it. Shares are thereby steered twice, when documents are drawn and when they are
    emitted, because the pool may hold back one kind of document more than another. After every row each group, source
    and direction is within the positions of one row of its share of what the level above it was given. Where the
    mixture changes, what is due to a group is the sum over the rows of its share in the row, of the row's positions.

    Args:
        length: rows of the whole run, over which a mixture changes; of no other it matters.
    """

    def __init__(
        self, streams: Sequence[RecordStream], mixture: MixtureConfig, packing: PackingConfig, length: int = 0
    ) -> None:
        self.streams = list(streams)
        self.packing = packing
        self.rows = 0
        """Rows emitted so far."""
        self.counts = [Counts() for _ in streams]
        self.examples: list[str] = []
        """The first records that were skipped, described."""
        self.changes: Changes | None = None
        """Where what happens is noted, if anywhere."""
        shares = [stream.share for stream in streams]
        self.groups = list(dict.fromkeys(share.group for share in shares))
        """Groups that are read, in order."""
        self._drawn = Mixture(shares)
        self._emitted = Mixture(shares)
        self.schedule: RowSchedule | RampedRows | None = None
        """Who gets the next row, with unit `rows`."""
        self._ramp: Ramp | None = None
        self._dues = [0] * len(self.groups)
        """By a ramp, with unit `tokens`: what is due to each group, in positions x the ramp's scale x the context."""
        if mixture.ramp:
            self._follow_ramp(mixture, shares, length)
        elif mixture.unit == "rows":
            self.schedule = RowSchedule([mixture.ratios[group] for group in self.groups])
        self._pools = [Pool(len(streams)) for _ in range(len(self.groups) if self.schedule else 1)]
        self.identity: dict[str, Any] = {
            "unit": mixture.unit,
            "ratios": {group: mixture.ratios.get(group, 0.0) for group in self.groups},
            "context": packing.context,
            "window": packing.window,
            "too_long": packing.too_long,
            "streams": {
                stream.name: {
                    "path": list(stream.share[:3]),
                    "share": stream.share.share,
                    "records": len(stream),
                    "content": stream.identity,
                }
                for stream in self.streams
            },
        }
        """Everything that the sequence of rows depends on."""
        if mixture.ramp:
            self.identity |= {"ramp": [asdict(point) for point in mixture.points()[1:]], "length": length}

    def _follow_ramp(self, mixture: MixtureConfig, shares: Sequence[StreamShare], length: int) -> None:
        if mixture.unit == "rows":
            self._ramp = Ramp(mixture, self.groups, length)
            self.schedule = RampedRows(self._ramp, len(self.groups))
        else:
            context = self.packing.context
            self._ramp = Ramp(mixture, self.groups, length * context)
            self._drawn = RampedMixture(shares, self._ramp, context)
            self._emitted = RampedMixture(shares, self._ramp, context)

    def _aim(self) -> None:
        """Turns mixtures that change to the next row; documents that are drawn to when those that wait are emitted."""
        drawn, emitted = self._drawn, self._emitted
        if isinstance(drawn, RampedMixture) and isinstance(emitted, RampedMixture):
            emitted.aim(self.rows, self._dues)
            drawn.aim(self.rows, self._dues, drawn.given - emitted.given)

    def next_row(self) -> Row:
        """The next row of the run. Raises `DataError` when a stream has nothing that can be used."""
        kind = self.schedule.pick() if self.schedule else 0
        pool, node, context = self._pools[kind], self._node(self._drawn, kind), self.packing.context
        self._aim()
        for stream in range(node.start, node.stop):
            if not pool.waiting[stream]:
                self._take_in(kind, self._draw(stream))
        while len(pool) < self.packing.window:
            if self._ramp and not self.schedule and node.count >= context:
                self._aim()
            self._take_in(kind, self._draw(self._drawn.pick(node)))
        row: Row = []
        self._add_due(kind, row, context, context * _RESERVE)
        space = context - sum(entry.length for entry in row)
        for entry in self._best_fit(kind, space):
            self._move(kind, entry, row)
            space -= entry.length
        self._add_due(kind, row, space, 0)
        self._count(kind, row)
        return row

    def _add_due(self, kind: int, row: Row, space: int, reserve: float) -> None:
        """Moves the documents that are due to `row`, one after the other, as long as they leave `reserve` of `space`.
        The first one of a row need not."""
        pool, node = self._pools[kind], self._node(self._emitted, kind)
        while space:
            entry = pool.oldest(self._emitted.due(node, pool.next_length))
            if entry.length > space or (row and space - entry.length < reserve):
                break
            self._emitted.give(entry.stream, entry.length)
            self._move(kind, entry, row)
            space -= entry.length

    def _best_fit(self, kind: int, space: int) -> list[Entry]:
        """Waiting documents that fill `space` best and leave every share within reach, counted as emitted.

        Where those that fill it best do not, the stream among them that is furthest ahead goes without.
        """
        pool, mixture, node = self._pools[kind], self._emitted, self._node(self._emitted, kind)
        without = set(self._emitted.idle)
        while chosen := pool.best_fit(space, without):
            for entry in chosen:
                mixture.give(entry.stream, entry.length)
            if mixture.within_reach(node, self.packing.context):
                break
            without.add(min((mixture.shortfall(entry.stream, node), entry.stream) for entry in chosen)[1])
            for entry in chosen:
                mixture.give(entry.stream, -entry.length)
        return chosen

    def _move(self, kind: int, entry: Entry, row: Row) -> None:
        """From the pool to a row. Some document of every stream always waits."""
        row.append(self._pools[kind].remove(entry.stream, entry.n))
        if not self._pools[kind].waiting[entry.stream]:
            self._take_in(kind, self._draw(entry.stream))

    def _node(self, mixture: Mixture, kind: int) -> Node:
        """The streams that rows of a kind hold documents of."""
        return mixture.groups[kind] if self.schedule else mixture.root

    def follow(self, changes: Changes) -> None:
        """Comes to where the plan is that noted `changes`, which began where this one stands.

        The plan is then good for its `state`: the shares by which rows are made are taken up by `restore` alone.
        """
        for kind, entry in changes.drawn:
            self.counts[entry.stream].next += 1
            self._take_in(kind, entry)
        for stream, reason, description in changes.skipped:
            self.counts[stream].next += 1
            self._count_skipped(stream, reason, description)
        for kind, row in changes.rows:
            pool = self._pools[kind]
            self._count(kind, [pool.remove(stream, n) for stream, n, _, _ in row])

    def _draw(self, stream: int) -> Entry:
        """The next document of a stream that can be used."""
        counts, source = self.counts[stream], self.streams[stream]
        for _ in range(2 * len(source)):  # holds a whole epoch, wherever it starts
            n = counts.next
            counts.next += 1
            length = source.length(n)
            if length is None:
                self._skip(stream, n, source.reason(n))
                continue
            too_long = length > self.packing.context
            if too_long:
                if self.packing.too_long == "error":
                    raise DataError(
                        f"{source.name}: {source.describe(n)} has {length + 1} tokens, more than a row of "
                        f"{self.packing.context} positions takes; raise `data.packing.context`, or set "
                        "`data.packing.too_long` to `truncate` or `skip`"
                    )
                length = source.truncated(n) if self.packing.too_long == "truncate" else 0
                if not length:
                    self._skip(stream, n, TOO_LONG)
                    continue
            self._drawn.give(stream, length)
            return Entry(stream, n, length, too_long)
        reasons = ", ".join(f"{reason} ({count})" for reason, count in counts.skipped.items())
        raise DataError(
            f"{source.name}: none of its {len(source)} records can be used: {reasons}; the first one: "
            f"{source.describe(0)}. Fix the data, or set the ratio of the group or the weight of the source to 0"
        )

    def _skip(self, stream: int, n: int, reason: str) -> None:
        described = ""
        if len(self.examples) < _EXAMPLES and reason != HELD_OUT:
            described = f"{self.streams[stream].name}: {self.streams[stream].describe(n)}: {reason}"
        self._count_skipped(stream, reason, described)

    def _count_skipped(self, stream: int, reason: str, described: str) -> None:
        skipped = self.counts[stream].skipped
        skipped[reason] = skipped.get(reason, 0) + 1
        if described:
            self.examples.append(described)
        if self.changes is not None:
            self.changes.skipped.append((stream, reason, described))

    def _take_in(self, kind: int, entry: Entry) -> None:
        self._pools[kind].add(entry)
        self.counts[entry.stream].drawn += entry.length
        if self.changes is not None:
            self.changes.drawn.append((kind, entry))

    def _count(self, kind: int, row: Row) -> None:
        if self._ramp and not self.schedule:
            begin, context = self.rows * self.packing.context, self.packing.context
            positions = sum(entry.length for entry in row)
            shares = zip(self._ramp.dues(begin), self._ramp.dues(begin + context), strict=True)
            self._dues = [
                due + (after - before) * positions for due, (before, after) in zip(self._dues, shares, strict=True)
            ]
        self.rows += 1
        if self.schedule:
            self.schedule.counts[kind] += 1
        for stream, _, length, truncated in row:
            counts = self.counts[stream]
            counts.documents += 1
            counts.positions += length
            counts.truncated += truncated
        for stream in {entry.stream for entry in row}:
            self.counts[stream].rows += 1
        if self.changes is not None:
            self.changes.rows.append((kind, row))

    def _exact_dues(self) -> list[Fraction]:
        """What is due to each group by the ramp, in rows or positions."""
        assert self._ramp is not None
        if self.schedule:
            return [Fraction(due, self._ramp.scale) for due in self._ramp.dues(self.rows)]
        return [Fraction(due, self._ramp.scale * self.packing.context) for due in self._dues]

    def counters(self) -> dict[str, Any]:
        """The state without the documents that wait, which are many: what reports are made of."""
        return {
            "version": VERSION,
            "identity": self.identity,
            **({"dues": [str(due) for due in self._exact_dues()]} if self._ramp else {}),
            "rows": self.rows,
            "group_rows": list(self.schedule.counts) if self.schedule else [],
            "leaves": {
                stream.name: {**vars(counts), "skipped": dict(counts.skipped)}
                for stream, counts in zip(self.streams, self.counts, strict=True)
            },
            "examples": list(self.examples),
        }

    def state(self) -> dict[str, Any]:
        """All that the rest of the sequence depends on, and the counters: values of JSON alone, nothing shared."""
        return {**self.counters(), "pools": [list(map(list, pool)) for pool in self._pools]}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues exactly after the row at which `state` was taken.

        Raises:
            DataError: the state is of another layout, or of a plan with other data, shares or packing.
        """
        if state["version"] != VERSION:
            raise DataError(
                f"the data cursor has layout {state['version']}, this version of mio reads {VERSION}; continue the run "
                "with the version that started it, or start a new one"
            )
        changes = _differences(state["identity"], self.identity)
        if changes:
            raise DataError(
                f"the run cannot go on, its data changed: {'; '.join(changes)}. Restore what it was, or start a new run"
            )
        self.rows = state["rows"]
        self.counts = [Counts(**{**saved, "skipped": dict(saved["skipped"])}) for saved in state["leaves"].values()]
        self.examples = list(state["examples"])
        self._drawn.restore([counts.drawn for counts in self.counts])
        self._emitted.restore([counts.positions for counts in self.counts])
        if self.schedule:
            self.schedule.counts = list(state["group_rows"])
        elif self._ramp:
            self._dues = [int(Fraction(due) * self._ramp.scale * self.packing.context) for due in state["dues"]]
        for index, entries in enumerate(state["pools"]):
            self._pools[index] = Pool(len(self.streams))
            for stream, n, length, truncated in entries:
                self._pools[index].add(Entry(stream, n, length, truncated))


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    keys = [key for key in before | now if key != "streams" and before.get(key) != now.get(key)]
    other = [f"`{key}` was {before.get(key)}, is {now.get(key)}" for key in keys]
    old, new = before["streams"], now["streams"]
    other += [f"`{name}` is gone" for name in old if name not in new]
    other += [f"`{name}` is new" for name in new if name not in old]
    for name in (name for name in new if name in old):
        changed = [key for key in new[name] if old[name][key] != new[name][key]]
        if changed:
            other.append(f"`{name}` has another {', '.join(changed)}")
    if not other and list(old) != list(new):
        other.append("the sources are in another order")
    return other
