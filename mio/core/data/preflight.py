"""Reads records before training, so that a broken source is known in seconds and not after hours.

Files of media are read, and a few of them encoded (see `mio.core.data.sample`): what is wrong with the others shows
when they are trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mio.core.data.sample import sample
from mio.core.data.sources import OpenSource
from mio.core.data.streams import BROKEN, CUT_AWAY, EMPTY, HELD_OUT, WEIGHTLESS, RecordStream
from mio.core.errors import DataError

_LISTED = 100
_ADVICE = {
    WEIGHTLESS: "give what is to be learnt a weight above 0: in `train.loss`, and in the turns of conversations",
    CUT_AWAY: "raise `data.packing.context`, or set `data.packing.too_long: skip`",
    BROKEN: "fix them",
    EMPTY: "give them content",
    HELD_OUT: "lower the share that is `held_out`, or choose by other fields (`held_out_by`)",
}


def preflight(sources: Sequence[OpenSource], streams: Sequence[RecordStream], max_skipped: float) -> dict[str, Any]:
    """Checks every source in all of its directions. What was learnt about lengths spares the plan the same work.

    Returns, by `group/source`: `records`, `checked`, `tokenised` (read from shards), `broken`, `skipped` (count by
    reason, filters included; a record may count once per direction), `problems` (the first hundred broken records
    with their error) and `unknown` (records by what they hold that nothing reads, as far as it was looked at).

    Raises:
        DataError: the broken share of a source's records exceeds `max_skipped`, or none of them can be used in one of
            its directions.
    """
    report = {}
    for source in sources:
        own = [stream for stream in streams if stream.share[:2] == (source.group, source.name)]
        report[source.label] = _check(source, own, max_skipped)
    return report


def _check(source: OpenSource, streams: Sequence[RecordStream], max_skipped: float) -> dict[str, Any]:
    records = sample(len(source.records), source.shipped)
    skipped: Counter[str] = Counter()
    broken = 0
    problems: list[str] = []
    left_out = [Counter[str]() for _ in streams]
    for record in records:
        reasons = []
        for stream, counts in zip(streams, left_out, strict=True):
            if reason := stream.reason_of(record):
                reasons.append(reason)
                counts[reason] += 1
        skipped.update(reasons)
        if BROKEN in reasons:
            broken += 1
            if len(problems) < _LISTED:
                failing = next(stream for stream in streams if stream.reason_of(record) == BROKEN)
                problems.append(failing.describe_record(record))
    unknown: dict[str, int] = dict(getattr(source.records, "unused", {}))
    for stream in streams:
        for key, count in stream.unknown.items():  # each direction counts the same records
            unknown[key] = max(count, unknown.get(key, 0))
    report = {
        "records": len(source.records),
        "checked": len(records),
        "tokenised": source.tokenised,
        "broken": broken,
        "skipped": dict(skipped),
        "problems": problems,
        "unknown": unknown,
    }
    if notes := list(getattr(source.records, "notes", ())):  # what of the files belongs to no record
        report["notes"] = notes
    first = "; ".join(problems[:3])
    if broken > max_skipped * len(records):
        raise DataError(
            f"{source.label}: {broken} of {len(records)} records checked cannot be used, more than "
            f"`data.max_skipped: {max_skipped:g}` allows: {first}{'; ...' if broken > 3 else ''}. "
            f"Fix them, or raise `data.max_skipped` to at least {broken / len(records):.2g}"
        )
    if skipped.total() == len(records) * len(streams):
        raise DataError(_nothing_left(source.label, len(records), skipped))
    for stream, counts in zip(streams, left_out, strict=True):
        if counts.total() == len(records):
            raise DataError(_nothing_left(stream.name, len(records), counts))
    return report


def _nothing_left(name: str, checked: int, counts: Counter[str]) -> str:
    reasons = ", ".join(f"{reason} ({count})" for reason, count in counts.items())
    advice = next((advice for reason, advice in _ADVICE.items() if reason in counts), "loosen its filters")
    return f"{name}: none of {checked} records checked is left: {reasons}; {advice}"
