"""Checks that records come through shards as `mio tokenize` writes them, their media being objects or files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from mio.core.contract.values import Codes, Media, Record
from mio.core.data.hashing import FileHashes
from mio.core.data.held_out import record_key
from mio.core.data.partial import notes_of
from mio.core.data.shards.encode import ShardEncoder
from mio.core.data.shards.reader import Shard
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.tokenised import CodedMedia
from mio.testing.outcomes import RECORDS, Check, SkippedCheckError, items_in, media_in, same
from mio.testing.subject import Subject


class ShardChecks:
    """The check of one plugin's records."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def all(self) -> Iterator[Check]:
        """Name and function of every check."""
        if self._subject.has("mio_sources"):
            yield "records come through shards", self._sources
        for modality in self._subject.declared:
            if not modality.text:
                yield f"{modality.name}: media come through shards", partial(self._of_media, modality.name)

    def _sources(self) -> str:
        names = self._subject.own_sources
        own, lost, refused = {one.name for one in self._subject.declared}, list[str](), list[str]()
        for name in names:
            kept = []
            for record in self._subject.records(name):
                reasons = [self._subject.refused(one) for one in media_in(record) if one.modality in own]
                if any(reasons):
                    refused += [next(filter(None, reasons))]
                else:
                    kept.append(record)
            lost += self._through(name.replace("/", "-"), kept)
        told = f"; {len(lost)} fields are refused by plugins beside it: {lost[0]}" if lost else ""
        told += f"; {len(refused)} records hold an item that is refused: {refused[0]}" if refused else ""
        return f"{len(names)} sources{told}"

    def _of_media(self, modality: str) -> str:
        media = self._subject.media(modality)[:RECORDS]
        self._through(f"media-{modality}", [{modality: item} for item in media])
        kinds = sorted({type(item.data).__name__ for item in media})
        return f"{len(media)} items, each a {' or '.join(kinds)}{self._subject.refusals(modality)}"

    def _through(self, name: str, records: Sequence[Record]) -> list[str]:
        """Why fields were lost that hold media of other plugins' modalities alone, which these may refuse."""
        own, lost = {one.name for one in self._subject.declared}, list[str]()
        known = {declared.name for _, declared in self._subject.plugins.modalities()}
        used = {item.modality for record in records for item in items_in(record)}
        if used - known:
            listed = ", ".join(f"`{one}`" for one in sorted(used - known))
            raise SkippedCheckError(f"no plugin here declares {listed}; give one beside it (`--with NAME`)")
        codecs = self._subject.codecs(*sorted(used))
        used |= {part for one in used for part in codecs.modalities[one].part_names}
        fingerprints = {one: self._fingerprint(codecs, one) for one in used}
        hashes = FileHashes(self._subject.folder / "hashes.json", lambda _: None)
        key = partial(record_key, by=(), hashes=hashes)
        encoder = ShardEncoder(codecs, fingerprints, lambda _: "", key)
        calls = [partial(records.__getitem__, index) for index in range(len(records))]
        writer = encoder.encode(calls, 0, lambda index: f"record {index}", lambda: None)
        path = self._subject.folder / f"{name}.shard"
        writer.write(path, {"sample": encoder.sample()})
        shard = Shard(path)
        for index, record in enumerate(records):
            restored = shard[index]
            failed = notes_of(restored).failed
            for field, problem in failed.items():
                if problem.kind:  # what no template could use is not kept, and costs nothing
                    continue
                others = {one.modality for one in media_in(record.get(field))}
                assert others, f"record {index}: `{field}` is lost: {problem.reason}"
                assert not others & own, f"record {index}: `{field}` is lost: {problem.reason}"
                lost.append(problem.reason)
            for field, value in record.items():
                if field in restored and field not in failed:
                    _compare(codecs, value, restored[field], f"record {index}, `{field}`")
        return lost

    @staticmethod
    def _fingerprint(codecs: Codecs, modality: str) -> str:
        if not (codecs.is_coded(modality) or codecs.modalities[modality].parts):
            return ""
        return str(getattr(codecs.tokenizer(modality), "fingerprint", ""))


def _compare(codecs: Codecs, given: Any, restored: Any, where: str) -> None:
    """Raises `AssertionError` where a value is another one after it was in a shard."""
    match given:
        case Media() if isinstance(restored, CodedMedia):
            _compare(codecs, given, Media(given.modality, restored.data, restored.key, restored.label), where)
        case Codes():
            assert same(restored, given), f"{where}: the codes are others"
        case Media() if isinstance(restored, Codes):
            due = codecs.codes(given)
            assert np.array_equal(due, restored.codes), f"{where}: the codes are others than `encode` gives"
        case Media() if codecs.modalities[given.modality].parts:
            for part, codes in zip(codecs.split(given), restored.data, strict=True):
                _compare(codecs, part, codes, where)
        case Media():
            same_name = (restored.key, restored.label) == (given.key, given.label)
            assert same_name and same(restored.data, given.data), f"{where}: the media are others"  # noqa: PT018
        case str():
            assert restored == given, f"{where}: {restored!r} was {given!r}"
        case Mapping():
            for name, value in given.items():
                _compare(codecs, value, restored[name], f"{where}.{name}")
        case list() | tuple():
            assert len(given) == len(restored), f"{where}: {len(restored)} values, {len(given)} were given"
            for one, other in zip(given, restored, strict=True):
                _compare(codecs, one, other, where)
