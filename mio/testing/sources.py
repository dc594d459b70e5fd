"""Checks of the corpora that a plugin ships, and of the templates that make documents of their records."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

from mio.core.contract.values import Media, Record, Source
from mio.core.errors import DataError, nearest
from mio.core.tokens.templates import CompiledTemplate
from mio.testing.digests import digest
from mio.testing.outcomes import RECORDS, Check, SkippedCheckError, media_in, same
from mio.testing.subject import Subject

_SCANNED = 50
"""Records of each split that are compared with those of the other."""


class SourceChecks:
    """The checks of one plugin's sources."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._read: dict[str, dict[str, list[Record]]] = {}

    def all(self) -> Iterator[Check]:
        """Name and function of every check."""
        yield "sources give the same records again", self._again
        if self._subject.has("mio_sources"):
            yield "sources and records can be pickled", self._pickled
            yield "a key names one item for ever", self._keys
            yield "what is held out is not trained on", self._disjoint
        if self._subject.declared:
            yield "templates' fields are in the records", self._templates

    def _again(self) -> None:
        for name in self._subject.own_sources:
            factory = self._subject.plugins.sources()[name][1]
            for split in ("train", "test"):
                first, second = factory(split, {}), factory(split, {})
                where = f"`{name}` ({split})"
                assert len(first) == len(second) > 0, f"{where}: lengths {len(first)} and {len(second)}"
                _past_the_end(first, where)
                indices = range(min(len(first), RECORDS))
                read = [first[index] for index in indices]
                for index in reversed(indices):  # in another order
                    assert same(first[index], read[index]), f"{where}: record {index} differs when read again"
                    assert same(second[index], read[index]), f"{where}: record {index} differs in a fresh source"

    def _pickled(self) -> None:
        """As they are where work is handed to other processes."""
        for name in self._subject.own_sources:
            source = self._subject.plugins.sources()[name][1]("train", {})
            copy = pickle.loads(pickle.dumps(source))
            for index in range(min(len(source), RECORDS)):
                record = source[index]
                assert digest(copy[index]) == digest(record), f"`{name}`: the copy's record {index} is another"
                restored = pickle.loads(pickle.dumps(record))
                assert digest(restored) == digest(record), f"`{name}`: record {index} is another as a copy"

    def _scanned(self, name: str) -> dict[str, list[Record]]:
        if name not in self._read:
            self._read[name] = {split: self._subject.records(name, split, _SCANNED) for split in ("train", "test")}
        return self._read[name]

    def _keys(self) -> str:
        """One key of a modality has one content, in whichever source and split."""
        content: dict[tuple[str, str], tuple[str, str]] = {}
        for name in self._subject.own_sources:
            for split, records in self._scanned(name).items():
                for media in (one for record in records for one in media_in(record)):
                    assert isinstance(media.key, str), f"`{name}`: the key {media.key!r} is no string"
                    assert media.key, f"`{name}`: an item of `{media.modality}` has an empty key"
                    found, where = digest(media.data), f"`{name}` ({split})"
                    before, there = content.setdefault((media.modality, media.key), (found, where))
                    assert before == found, (
                        f"{where}: the key `{media.key}` of `{media.modality}` names another item than in {there}: "
                        "codes are computed once per key"
                    )
        return f"{len(content)} keys"

    def _disjoint(self) -> str:
        """No test record is a training record. Records without media are left out: what a sentence says may recur."""
        count = 0
        for name in self._subject.own_sources:
            records = self._scanned(name)
            trained = {_identity(record) for record in records["train"]}
            for index, record in enumerate(records["test"]):
                if not media_in(record):
                    continue
                count += 1
                assert _identity(record) not in trained, (
                    f"`{name}`: record {index} of `test` is in `train` too: what is measured on it is not held out"
                )
        return f"{count} held-out records with media"

    def _templates(self) -> str:
        """Each template of the plugin's own data modules has its fields in some record of a source."""
        records = [record for name in self._subject.own_sources for record in self._subject.records(name)]
        flat = [record for record in records if "messages" not in record and "parts" not in record]
        if not flat:
            raise SkippedCheckError("no source of the plugin gives records of fields")
        known = sorted({field for record in flat for field in record})
        count = 0
        for modality in self._subject.declared:
            for name, templates in self._subject.plugins.datamodule(modality.name).templates.items():
                for template in templates:
                    compiled = CompiledTemplate(template, name)
                    count += 1
                    unknown = [field for field in compiled.fields if field not in known]
                    assert not unknown, (
                        f"template `{compiled.name}`: no record has a field `{unknown[0]}`{nearest(unknown[0], known)} "
                        f"(they have: {', '.join(known)})"
                    )
                    self._fills(compiled, flat)
        return f"{count} templates"

    @staticmethod
    def _fills(compiled: CompiledTemplate, records: list[Record]) -> None:
        problem = ""
        for record in records:
            try:
                compiled.filled(record)
            except DataError as error:
                problem = problem or str(error)
            else:
                return
        raise AssertionError(f"no record fills it: {problem}")


def _past_the_end(source: Source, where: str) -> None:
    try:
        source[len(source)]
    except IndexError:
        return
    raise AssertionError(f"{where}: reading past the end must raise IndexError")


def _identity(record: Record) -> str:
    """Of a record's media by content, whatever their keys are, and of its texts."""
    return digest(_without_keys(record))


def _without_keys(value: Any) -> Any:
    if isinstance(value, Media):
        return value.modality, value.data
    if isinstance(value, dict):
        return {name: _without_keys(inner) for name, inner in value.items()}
    return [_without_keys(inner) for inner in value] if isinstance(value, list | tuple) else value
