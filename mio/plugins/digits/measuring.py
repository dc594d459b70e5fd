"""What the tasks of the digits world are made of: held-out items, judges of what answers say and show, ceilings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mio import Answer, Decoding, Media, Record, Task, Template, media
from mio.plugins.digits.corpus import Builder, Corpus
from mio.plugins.digits.judges import frames_of, last_clause, shows

if TYPE_CHECKING:
    from mio import RoundTrip

READ = 20_000
"""Records of a held-out corpus that are searched for different items."""

DECODING = Decoding(temperature=0.0, media_temperature=0.5)

Judge = Callable[[Sequence[Answer], Sequence[Record]], Sequence[bool]]
Ceiling = Callable[[Sequence[Record], "RoundTrip"], float]


def held_out(build: Builder, count: int) -> list[Record]:
    """The first `count` records of a held-out corpus that differ in their media, or in their words where they have no
    media; fewer if there are no more."""
    source = Corpus(build.__name__, build, "test", {"length": READ})
    seen: set[tuple[str, ...]] = set()
    records: list[Record] = []
    for index in range(len(source)):
        if len(records) == count:
            break
        record = source[index]
        keys = tuple(item.key for item in media_of(record)) or tuple(map(str, record.values()))
        if keys not in seen:
            seen.add(keys)
            records.append(record)
    return records


def media_of(value: Any) -> Iterator[Media]:
    """All media in a record or in values of one."""
    return (item for item in media.contents(value) if isinstance(item, Media))


def task(
    name: str,
    build: Builder,
    *,
    prompt: str,
    response: str,
    output: str,
    judge: Judge,
    ceiling: Ceiling | None = None,
    copies: bool = False,
) -> Task:
    """A task of the held-out records of a corpus."""
    return Task(
        name=name,
        template=Template(direction=name, prompt=prompt, response=response),
        records=lambda count: held_out(build, count),
        output=output,
        judge=judge,
        ceiling=ceiling,
        decoding=DECODING,
        copies=copies,
    )


def written(field: str) -> Judge:
    """The answer's text ends in the record's field: answers may explain first."""
    return lambda answers, records: [
        last_clause(answer.text) == record[field] for answer, record in zip(answers, records, strict=True)
    ]


def shown(field: str, modality: str = "image") -> Judge:
    """The answer's pictures, or what it says, are the digits that the record's field names."""
    return lambda answers, records: shows(answers, [record[field] for record in records], modality)


def of(*names: str) -> Callable[[Record], list[Media]]:
    """Media in some fields of a record, the frames of videos one by one."""
    return lambda record: [
        part
        for item in media_of([record[name] for name in names])
        for part in (frames_of(item) if item.modality == "video" else [item])
    ]
