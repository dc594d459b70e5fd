"""What is in a plugin's corpora, read once for all checks that compare records with others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, islice
from math import gcd
from typing import Any

from mio.core.contract.values import EpochSource, Media, Record, Source
from mio.testing.corpora import read
from mio.testing.digests import digest
from mio.testing.outcomes import items_in, media_in
from mio.testing.subject import Subject

EPOCHS = 3
"""Epochs of a source that differs from one to the next."""
_SCANNED = 25
"""Records at each end of a split that are looked at, however long that takes."""
_SECONDS = 0.3
"""In which further ones are, spread over their splits, of all sources together."""
_MOST = 10_000
"""Most records of a split that are."""
_SPREAD = 0.618
"""Step from one of them to the next, as a share of the split: what is read so far is spread evenly at any time."""


@dataclass
class Scan:
    """What was seen of one split."""

    records: int
    looked: int = 0
    with_media: int = 0
    unclear: int = 0
    """Records that hold objects which are others whenever they are read."""
    identities: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of records with media, the place and epoch of each (see `identity`)."""
    keys: list[tuple[Any, Any, str]] = field(default_factory=list)
    """(modality, key, digest of the data) of media."""


class Scans:
    """Of the corpora of one plugin."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    @cached_property
    def by_source(self) -> dict[str, dict[str, Scan]]:
        """By source and split. Raises `SkippedCheckError` if there are no sources that can be opened."""
        splits = {name: self._subject.splits(name) for name in self._subject.own_sources}
        share = _SECONDS / sum(map(len, splits.values()))
        return {
            name: {split: _scan(source, share) for split, source in sources.items()} for name, sources in splits.items()
        }


def identity(record: Record) -> str:
    """The same for records whose texts and media are the same, whatever the media's keys are. Raises as `digest`."""
    return digest(_without_keys(record), inside=True)


def _scan(source: Source, seconds: float) -> Scan:
    """Of both ends of a split and, in these seconds, of what is between."""
    scan, end = Scan(len(source)), time.monotonic() + seconds
    for count, index in enumerate(_order(len(source))):
        if count == _MOST or (count >= 2 * _SCANNED and time.monotonic() > end):
            break
        record = read(source, index)
        if record is None:
            continue
        scan.looked += 1
        if not items_in(record):
            continue
        if not _can_be_told(record, partial(read, source, index)):
            scan.unclear += 1
            continue
        scan.with_media += 1
        scan.identities.setdefault(identity(record), (index, 0))
        scan.keys += _keys_of(record)
    if isinstance(source, EpochSource):
        for index in islice(_order(len(source)), 2 * _SCANNED):
            for epoch in range(1, EPOCHS):
                record = read(source, index, epoch)
                if record is not None and _can_be_told(record, partial(read, source, index, epoch)):
                    scan.keys += _keys_of(record)
                    if items_in(record):
                        scan.identities.setdefault(identity(record), (index, epoch))
    return scan


def _order(length: int) -> Iterator[int]:
    """The places of a split: those at its ends, then those between, in steps from one part of it to another."""
    begin, end = min(length, _SCANNED), max(min(length, _SCANNED), length - _SCANNED)
    middle = end - begin
    step = max(1, round(_SPREAD * middle))
    while gcd(step, middle) > 1:
        step += 1
    return chain(range(begin), range(end, length), (begin + step * count % middle for count in range(middle)))


def _keys_of(record: Record) -> list[tuple[Any, Any, str]]:
    return [(media.modality, media.key, digest(media.data, inside=True)) for media in media_in(record)]


def _can_be_told(record: Record, again: Callable[[], Record | None]) -> bool:
    """Whether a record is the same by what is inside of it when it is read again. One that holds objects of other
    packages need not be: one that has its place in memory there, or cannot be looked into, is compared with no other.
    """
    try:
        found = digest(record, inside=True)
        return found == digest(record) or found == digest(again(), inside=True)  # the first holds no such objects
    except Exception:  # which the check of pickled records reports
        return False


def _without_keys(value: Any) -> Any:
    """A record's media by content, whatever their keys are, and its texts."""
    if isinstance(value, Media):
        return value.modality, value.data
    if isinstance(value, Mapping):
        return {name: _without_keys(inner) for name, inner in value.items()}
    return [_without_keys(inner) for inner in value] if isinstance(value, list | tuple) else value
