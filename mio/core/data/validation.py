"""What a validation looks at: the first held-out documents of every stream, and the rows that they are packed into.

The documents are a function of recipe and data alone: records are looked at in an order of their own, which neither the
recipe's seed nor the number of ranks changes, so that runs which differ in these can be compared. Free of torch.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from mio.core.contract.plugins import EnabledPlugins
from mio.core.data.order import derive_seed
from mio.core.data.sample import CheckedSample
from mio.core.data.shards.reader import dropped
from mio.core.data.shards.store import TokenStore
from mio.core.data.sources import dropping, open_sources
from mio.core.data.streams import BROKEN, Memory, RecordStream
from mio.core.errors import DataError, MioError
from mio.core.recipe.schema import Recipe
from mio.core.tokens.rendered import Rendered

_REMEMBERED = 1_000_000
"""Tokens of documents that had to be rendered to be measured, from then until they are taken."""


@dataclass
class HeldOutDocuments:
    """Of one stream."""

    stream: int
    """Its index among the streams that are trained on."""
    documents: list[Rendered] = field(default_factory=list)
    """At most one row long each."""
    records: list[int] = field(default_factory=list)
    """The record of each."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Held-out records that were passed over, by reason."""


class HeldOutSources:
    """The streams that validate, by source: those of the sources that hold records out or have a split for it.

    Raises as `open_sources`, of the splits that validate.
    """

    def __init__(
        self,
        recipe: Recipe,
        plugins: EnabledPlugins,
        streams: Sequence[RecordStream],
        tokens: TokenStore | None = None,
    ) -> None:
        """`streams` are those that are trained on."""
        splits = {(one.group, one.name): one for one in open_sources(recipe, plugins, tokens, validates=True)}
        memory = Memory(_REMEMBERED)
        self._sources: list[list[tuple[int, RecordStream]]] = []
        for (group, name), members in groupby(enumerate(streams), key=lambda member: member[1].share[:2]):
            seed = derive_seed(0, "validation", group, name)
            own: list[tuple[int, RecordStream]] = []
            for index, stream in members:
                looked_at = replace(stream, seed=seed, memory=memory, validates=True, sample=CheckedSample())
                if split := splits.get((group, name)):
                    drop = dropped if split.tokenised else dropping(split.config, plugins)
                    looked_at = replace(looked_at, source=split.records, drop=drop, held_out=None)
                elif stream.held_out is None:
                    continue
                own.append((index, looked_at))
            if own:
                self._sources.append(own)

    def __len__(self) -> int:
        return len(self._sources)

    def documents(self, source: int, items: int) -> list[HeldOutDocuments]:
        """The first `items` documents of each stream of a source. Several streams take them from the same records.

        Raises:
            DataError: a stream has none; with what its records lack.
        """
        streams = self._sources[source]
        found = [HeldOutDocuments(index) for index, _ in streams]
        looked_at = 0
        for record in _held_out(streams[0][1]):
            if all(len(of.documents) == items for of in found):
                break
            looked_at += 1
            for of, (_, stream) in zip(found, streams, strict=True):
                if len(of.documents) < items:
                    _take(stream, record, of)
        for of, (_, stream) in zip(found, streams, strict=True):
            if not of.documents:
                raise DataError(_none_left(stream, looked_at, of.skipped))
        return found

    def records(self, source: int, items: int) -> list[tuple[RecordStream, list[int]]]:
        """Each stream of a source, with the records of its first `items` documents. Raises as `documents`."""
        found = self.documents(source, items)
        return [(stream, of.records) for of, (_, stream) in zip(found, self._sources[source], strict=True)]


def _held_out(stream: RecordStream) -> Iterator[int]:
    """Indices of the records that validate, in the stream's order, each once."""
    for n in range(len(stream)):
        record = stream.order(n)
        try:
            if stream.held_out is None or stream.held_out(record, stream.content_of(record)):
                yield record
        except MemoryError:
            raise
        except Exception as error:
            if isinstance(error, MioError) and not isinstance(error, DataError):
                raise
            # a record without a key cannot be used for anything: the checks before training report it


def _take(stream: RecordStream, record: int, found: HeldOutDocuments) -> None:
    """Adds a record's document, or the reason why there is none."""
    length = stream.measure(record)
    packing = stream.packing
    if length <= 0:
        found.skipped[stream.reason_of(record)] += 1
    elif length > packing.context and packing.too_long != "truncate":
        found.skipped["longer than the context"] += 1
    else:
        try:
            document = stream.document_of(record)
            codecs = stream.renderer.codecs
            for item in document.items:
                codecs.prepare(item.media)  # of which nothing is kept: arrays may be large
            for made in document.made:
                codecs.target(made.media)
            found.documents.append(document)
            found.records.append(record)
        except DataError:  # its media are damaged, which its length does not show
            found.skipped[BROKEN] += 1


def _none_left(stream: RecordStream, looked_at: int, skipped: Counter[str]) -> str:
    if not looked_at:
        return (
            f"{stream.name}: none of its {len(stream)} records is held out, so that nothing of it validates; raise the "
            "share (`held_out`), give it a `validation_split`, or hold nothing of it out: `held_out: 0`"
        )
    reasons = ", ".join(f"{reason} ({count})" for reason, count in skipped.items())
    return f"{stream.name}: none of its {looked_at} records that validate can be used: {reasons}; fix them"


def pack(lengths: Sequence[int], context: int) -> list[list[int]]:
    """Rows of documents of these lengths, none above `context`, as their numbers: best fit, the longest first."""
    rows: list[list[int]] = []
    space: list[tuple[int, int]] = []  # (what is left, row), ascending
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        place = bisect_left(space, (lengths[number], 0))
        left, row = space.pop(place) if place < len(space) else (context, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(number)
        insort(space, (left - lengths[number], row))
    return rows
