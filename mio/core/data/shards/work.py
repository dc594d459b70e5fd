"""The work of `mio tokenize`: which shards there are to make, and making one. Any process can make any shard."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import xxhash

from mio.core.checksums import read_summed, write_summed
from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import TEXT, Record, Source
from mio.core.data.contents import SourceContent, told_changes
from mio.core.data.hashing import FileHashes, State
from mio.core.data.held_out import record_key
from mio.core.data.readers.cells import files_named
from mio.core.data.readers.tables import Stream
from mio.core.data.shards.encode import ShardEncoder
from mio.core.data.shards.format import SUFFIX, read_header, shard_name, verify
from mio.core.data.shards.reader import TokenIndex
from mio.core.data.shards.store import (
    ADVICE,
    FILES,
    INDEX,
    SOURCE,
    changes_since,
    refuse_other_tokenizers,
    source_digest,
    source_folder,
    source_identity,
    tokenizer_fingerprints,
    write_index,
)
from mio.core.data.shards.texts import SUFFIX as TEXTS
from mio.core.data.shards.texts import write_text_tokens
from mio.core.data.sources import OpenSource, dropping
from mio.core.errors import DataError, PluginError, UserError
from mio.core.files import remove_partial, write_text
from mio.core.tokens.codecs import Codecs

FAILED = "failed.jsonl"
"""Beside the shards: every record of which something could not be tokenised, and why."""


@dataclass(frozen=True)
class Job:
    """A source to be tokenised."""

    source: OpenSource
    folder: Path
    shard_records: int
    hashes: FileHashes
    kept: tuple[str, ...] = ()
    """Modalities whose media are kept, since networks read or make them."""

    @property
    def records(self) -> int | None:
        """How many records there are; None for a stream."""
        return None if isinstance(self.source.records, Stream) else len(self.source.records)

    @property
    def shards(self) -> int:
        """How many shards a source has that is no stream."""
        assert self.records is not None
        return math.ceil(self.records / self.shard_records)

    def range(self, number: int) -> range:
        """Records of a shard of a source that is no stream."""
        assert self.records is not None
        first = number * self.shard_records
        return range(first, min(first + self.shard_records, self.records))

    @cached_property
    def content(self) -> SourceContent:
        """Of the source."""
        return SourceContent(self.source.records, self.hashes)

    def described(self) -> dict[str, Any]:
        """What `source.json` says."""
        content = {
            **source_identity(self.source.config, self.kept),
            "content": self.content.fingerprint,
            "records": self.records,
            "shard_records": self.shard_records,
        }
        plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
        return plain

    @cached_property
    def digest(self) -> str:
        """Which every shard carries."""
        return source_digest(self.source.config, self.shard_records, self.kept)


def make_job(root: Path, source: OpenSource, shard_records: int, hashes: FileHashes, kept: tuple[str, ...] = ()) -> Job:
    """The job of a source, whose shards lie under `root`."""
    return Job(source, source_folder(root, source.config, kept), shard_records, hashes, kept)


def claim(job: Job) -> str:
    """Prepares the folder of a job, before any of its shards is made; returns a note for the person, or nothing.

    Which shards of a source that has changed have to be made again is seen when it is their turn. Raises `UserError`
    if shards of another size are there.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    for path in job.folder.iterdir():
        if path.is_dir() and path.suffix:
            raise DataError(f"{path}: is a folder where a file belongs; delete it and give `mio tokenize` again")
    note, now = "", job.described()
    if (job.folder / SOURCE).is_file():
        try:
            before = read_summed(job.folder / SOURCE, ADVICE)
            if before == now:
                return ""
            if before["shard_records"] != now["shard_records"]:
                raise UserError(
                    f"{job.folder}: holds shards of {before['shard_records']} records; give "
                    f"`--shard-records {before['shard_records']}`, or delete the folder"
                )
            note = f"{job.source.label}: the source has changed and is tokenised anew where it did"
            if changes := changes_since(job.folder, job.content):
                note += f" ({told_changes(changes)})"
        except (DataError, KeyError) as error:
            note = f"{job.source.label}: {job.folder / SOURCE} is damaged and written anew ({error})"
        (job.folder / INDEX).unlink(missing_ok=True)
    write_summed(job.folder / SOURCE, now)
    return note


def shards_there(job: Job) -> dict[str, State]:
    """The shards of a folder by name, as they are now."""
    return {path.name: State.of(path.stat()) for path in job.folder.glob(f"*{SUFFIX}") if path.is_file()}


class ShardWorker:
    """Makes shards with the tokenizers of one stage."""

    def __init__(self, plugins: EnabledPlugins, codecs: Codecs) -> None:
        """`codecs` have their weights loaded."""
        self._plugins = plugins
        self._codecs = codecs
        self._fingerprints = tokenizer_fingerprints(plugins, codecs)

    def run(self, job: Job, rank: int, ranks: int, tick: Callable[[], None], skip: Callable[[int], None]) -> int:
        """Makes every `ranks`-th shard of a job from `rank` on; returns how many shards the source has.

        Shards that are whole and of the source's present content are kept.

        Args:
            tick: called after every record.
            skip: called with the number of records of a shard that is kept.
        """
        if job.records is not None:
            for number in range(rank, job.shards, ranks):
                self.make(job, number, tick, skip)
            return job.shards
        shards, stale = self._stream(job, lambda number: number % ranks == rank, tick, skip)
        if stale:  # the rows of these have gone by
            self._stream(job, stale.__contains__, tick, skip, again=True)
        return shards

    def make(self, job: Job, number: int, tick: Callable[[], None], skip: Callable[[int], None]) -> None:
        """Makes one shard of a source that is no stream, unless it is there already."""
        indices = job.range(number)
        content = job.content.digest(indices.start, indices.stop)
        if kept := self.finished(job, number, content):
            self._tokenise_texts(job, number)
            skip(kept["records"])
            return
        self._write(job, number, (partial(_read, job.source.records, index) for index in indices), tick, content)

    def finished(self, job: Job, number: int, content: str | None = None) -> dict[str, Any] | None:
        """Header of a shard that is there, every byte of it as it was written; None if it has to be made.

        Args:
            content: digest of what its records are made of now; None if that is not known yet.

        Raises `DataError` if it was made by another tokenizer.
        """
        path = job.folder / shard_name(number)
        if not path.is_file():
            return None
        try:
            header = verify(path, job.hashes)
        except DataError:
            return None
        if (header.get("source"), header.get("number")) != (job.digest, number):
            return None
        if content is not None and header["content"] != content:
            return None
        refuse_other_tokenizers(f"{job.source.label}: {path}", header["tokenizers"], self._fingerprints)
        return header

    def _stream(
        self,
        job: Job,
        mine: Callable[[int], bool],
        tick: Callable[[], None],
        skip: Callable[[int], None],
        again: bool = False,
    ) -> tuple[int, set[int]]:
        """Goes through a stream: (shards that it has, those that were left though their rows have changed)."""
        assert isinstance(job.source.records, Stream)
        rows = iter(job.source.records)
        stale: set[int] = set()
        number = count = 0
        while count == number * job.shard_records:
            digest = xxhash.xxh3_128()
            shard = _digested(islice(rows, job.shard_records), digest, job.hashes)
            if not mine(number):
                count += sum(1 for _ in islice(rows, job.shard_records))
            elif not again and (kept := self.finished(job, number)):
                read = sum(1 for _ in shard)
                count += read
                if kept["content"] == digest.hexdigest() and kept["records"] == read:
                    self._tokenise_texts(job, number)
                    skip(read)
                else:
                    stale.add(number)
            else:
                count += self._write(job, number, shard, tick, digest.hexdigest)
            number += 1
        return math.ceil(count / job.shard_records), stale

    def _write(
        self,
        job: Job,
        number: int,
        records: Iterator[Callable[[], Record]],
        tick: Callable[[], None],
        content: str | Callable[[], str],
    ) -> int:
        config = job.source.config
        key = partial(record_key, by=config.held_out_by, hashes=job.hashes)
        encoder = ShardEncoder(self._codecs, self._fingerprints, dropping(config, self._plugins), key)
        locate = getattr(job.source.records, "locate", lambda index: f"record {index}")
        writer = encoder.encode(records, number * job.shard_records, locate, tick)
        if writer.records:
            for texts in job.folder.glob(f"{number:06d}-*{TEXTS}"):  # of the shard that was there before
                texts.unlink(missing_ok=True)
            header = {
                "source": job.digest,
                "content": content if isinstance(content, str) else content(),
                "number": number,
                "sample": encoder.sample(),
            }
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


def _digested(rows: Iterator[Callable[[], Record]], digest: Any, hashes: FileHashes) -> Iterator[Callable[[], Record]]:
    """The rows of a stream, with all that they are made of added to `digest`."""
    for row in rows:
        raw = getattr(row, "raw", None)
        if raw is not None:
            digest.update(raw())
            digest.update("".join(hashes.of(files_named(row))).encode())
        yield row


def finish(job: Job, shards: int) -> TokenIndex:
    """Writes the index of a job whose shards are all there, and the list of what failed.

    Args:
        shards: how many there are.

    Raises:
        DataError: a shard is missing, or the source was changed while it was tokenised.
    """
    headers: list[dict[str, Any]] = []
    while len(headers) < shards and (path := job.folder / shard_name(len(headers))).is_file():
        headers.append(read_header(path)[0])
    records = sum(header["records"] for header in headers)
    if len(headers) < shards or not headers or (job.records is not None and records != job.records):
        raise DataError(f"{job.source.label}: {job.folder} holds {records} of {job.records} records; tokenise again")
    content = SourceContent(job.source.records, job.hashes)
    if content.fingerprint != job.content.fingerprint:
        raise DataError(f"{job.source.label}: its files were changed while they were tokenised; give it again")
    for path in job.folder.iterdir():  # of a source that had more records
        number = path.name[:6]
        if path.suffix in (SUFFIX, TEXTS) and not (number.isdigit() and int(number) < shards):
            path.unlink(missing_ok=True)
    failed = [entry for header in headers for entry in header["failed"]]
    tokenizers: dict[str, str] = {}
    for header in headers:
        tokenizers |= header["tokenizers"]
    index = TokenIndex(
        records=records,
        shard_records=job.shard_records,
        content=content.fingerprint,
        tokenizers=dict(sorted(tokenizers.items())),
        failed=len({record for record, _, _ in failed}),
        dropped=dict(sorted(Counter(reason for header in headers for _, reason in header["dropped"]).items())),
        shards=[header["checksum"] for header in headers],
        source=job.digest,
    )
    lines = [json.dumps({"record": at, "field": field, "reason": reason}) + "\n" for at, field, reason in failed]
    write_text(job.folder / FAILED, "".join(lines))
    write_summed(job.folder / FILES, content.files.to_json())
    write_index(job.folder, index)
    remove_partial(job.folder)
    return index
