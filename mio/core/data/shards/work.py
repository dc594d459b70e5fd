"""The work of `mio tokenize`: which shards there are to make, and making one. Any process can make any shard."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

from mio.core.codecs import Codecs
from mio.core.data.shards.encode import ShardEncoder
from mio.core.data.shards.format import SUFFIX, read_header, shard_name, verify
from mio.core.data.shards.store import (
    INDEX,
    SOURCE,
    TokenIndex,
    read_json,
    refuse_other_tokenizers,
    source_folder,
    tokenizer_fingerprints,
    write_json,
)
from mio.core.data.shards.texts import SUFFIX as TEXTS
from mio.core.data.shards.texts import write_text_tokens
from mio.core.data.sources import OpenSource, StreamedSource, dropping
from mio.core.errors import DataError, PluginError, UserError
from mio.core.modality import TEXT, Record, Source
from mio.core.plugins import EnabledPlugins

FAILED = "failed.jsonl"
"""Beside the shards: every record of which something could not be tokenised, and why."""


@dataclass(frozen=True)
class Job:
    """A source to be tokenised."""

    source: OpenSource
    folder: Path
    shard_records: int

    @property
    def records(self) -> int | None:
        """How many records there are; None for a stream."""
        return None if isinstance(self.source.records, StreamedSource) else len(self.source.records)

    @property
    def shards(self) -> int:
        """How many shards a source has that is no stream."""
        assert self.records is not None
        return math.ceil(self.records / self.shard_records)

    @cached_property
    def content(self) -> str:
        """Fingerprint of the source, where it has one."""
        return str(getattr(self.source.records, "fingerprint", ""))

    def described(self) -> dict[str, Any]:
        """What `source.json` says."""
        config = self.source.config
        return {
            "dataset": config.dataset,
            "split": config.split,
            "options": config.options,
            "filters": config.filters,
            "content": self.content,
            "records": self.records,
            "shard_records": self.shard_records,
        }

    @cached_property
    def digest(self) -> str:
        """Fingerprint of what `source.json` says, which every shard carries."""
        text = json.dumps(self.described(), sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def make_job(root: Path, source: OpenSource, shard_records: int) -> Job:
    """The job of a source, whose shards lie under `root`."""
    return Job(source, source_folder(root, source.config), shard_records)


def claim(job: Job) -> str:
    """Prepares the folder of a job, before any of its shards is made; returns a note for the person, or nothing.

    Shards of a source that has changed since are removed. Raises `UserError` if shards of another size are there.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    note = ""
    if (job.folder / SOURCE).is_file():
        before, now = read_json(job.folder / SOURCE), json.loads(json.dumps(job.described(), default=str))
        if before == now:
            return ""
        if before["shard_records"] != now["shard_records"]:
            raise UserError(
                f"{job.folder}: holds shards of {before['shard_records']} records; give "
                f"`--shard-records {before['shard_records']}`, or delete the folder"
            )
        note = f"{job.source.label}: the source has changed and is tokenised anew"
        for path in (job.folder / INDEX, *job.folder.glob(f"*{SUFFIX}"), *job.folder.glob(f"*{TEXTS}")):
            path.unlink(missing_ok=True)
    write_json(job.folder / SOURCE, job.described())
    return note


class ShardWorker:
    """Makes shards with the tokenizers of one stage."""

    def __init__(self, plugins: EnabledPlugins, codecs: Codecs) -> None:
        """`codecs` have their weights loaded."""
        self._plugins = plugins
        self._codecs = codecs
        self._fingerprints = tokenizer_fingerprints(plugins, codecs)

    def run(self, job: Job, rank: int, ranks: int, tick: Callable[[], None], skip: Callable[[int], None]) -> None:
        """Makes every `ranks`-th shard of a job from `rank` on. Shards that are whole already are kept.

        Args:
            tick: called after every record.
            skip: called with the number of records of a shard that is kept.
        """
        if job.records is not None:
            for number in range(rank, job.shards, ranks):
                self.make(job, number, tick, skip)
            return
        assert isinstance(job.source.records, StreamedSource)
        rows = iter(job.source.records)
        number = count = 0
        while count == number * job.shard_records:
            shard = islice(rows, job.shard_records)
            if number % ranks != rank:
                count += sum(1 for _ in shard)
            elif kept := self.finished(job, number):
                count += sum(1 for _ in shard)
                self._tokenise_texts(job, number)
                skip(kept["records"])
            else:
                count += self._write(job, number, shard, tick)
            number += 1

    def make(self, job: Job, number: int, tick: Callable[[], None], skip: Callable[[int], None]) -> None:
        """Makes one shard of a source that is no stream, unless it is whole already."""
        assert job.records is not None
        if kept := self.finished(job, number):
            self._tokenise_texts(job, number)
            skip(kept["records"])
            return
        first = number * job.shard_records
        indices = range(first, min(first + job.shard_records, job.records))
        self._write(job, number, (partial(_read, job.source.records, index) for index in indices), tick)

    def finished(self, job: Job, number: int) -> dict[str, Any] | None:
        """Header of a shard that is there, every byte of it as it was written; None if it has to be made.

        Raises `DataError` if it was made by another tokenizer.
        """
        path = job.folder / shard_name(number)
        if not path.is_file():
            return None
        try:
            header = verify(path)
        except DataError:
            return None
        if header["source"] != job.digest:
            return None
        refuse_other_tokenizers(f"{job.source.label}: {path}", header["tokenizers"], self._fingerprints)
        return header

    def _write(self, job: Job, number: int, records: Iterator[Callable[[], Record]], tick: Callable[[], None]) -> int:
        encoder = ShardEncoder(self._codecs, self._fingerprints, dropping(job.source.config, self._plugins))
        locate = getattr(job.source.records, "locate", lambda index: f"record {index}")
        writer = encoder.encode(records, number * job.shard_records, locate, tick)
        if writer.records:
            header = {"source": job.digest, "number": number, "sample": encoder.sample()}
            writer.write(job.folder / shard_name(number), header)
            self._tokenise_texts(job, number)
        return writer.records

    def _tokenise_texts(self, job: Job, number: int) -> None:
        if TEXT in self._codecs.modalities:
            write_text_tokens(job.folder / shard_name(number), self._codecs.text)


def _read(source: Source, index: int) -> Record:
    try:
        return source[index]
    except IndexError as error:
        raise PluginError(
            f"a source says that it has {len(source)} records, but `[{index}]` raised IndexError"
        ) from error


def finish(job: Job) -> TokenIndex:
    """Writes the index of a job whose shards are all there, and the list of what failed."""
    headers: list[dict[str, Any]] = []
    while (path := job.folder / shard_name(len(headers))).is_file():
        headers.append(read_header(path)[0])
    records = sum(header["records"] for header in headers)
    if not headers or (job.records is not None and records != job.records):
        raise DataError(f"{job.source.label}: {job.folder} holds {records} of {job.records} records; tokenise again")
    failed = [found for header in headers for found in header["failed"]]
    tokenizers: dict[str, str] = {}
    for header in headers:
        tokenizers |= header["tokenizers"]
    index = TokenIndex(
        records=records,
        shard_records=job.shard_records,
        content=job.content,
        tokenizers=dict(sorted(tokenizers.items())),
        failed=len({record for record, _, _ in failed}),
        dropped=dict(sorted(Counter(reason for header in headers for _, reason in header["dropped"]).items())),
        shards=[header["checksum"] for header in headers],
    )
    lines = [json.dumps({"record": at, "field": field, "reason": reason}) + "\n" for at, field, reason in failed]
    (job.folder / FAILED).write_text("".join(lines), encoding="utf-8")
    write_json(job.folder / INDEX, index.__dict__)
    for left in job.folder.glob("*.partial"):  # of processes that were killed
        left.unlink(missing_ok=True)
    return index
