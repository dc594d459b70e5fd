"""Checks of the corpora that a plugin ships, and of what makes documents of their records or drops them."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator

from mio.core.contract.values import EpochSource, Filter, Record, Source
from mio.core.errors import DataError, UserError, nearest
from mio.core.tokens.templates import CompiledTemplate
from mio.testing.corpora import SPLITS, read, why_broken
from mio.testing.digests import digest
from mio.testing.outcomes import RECORDS, Check, SkippedCheckError, same
from mio.testing.scans import EPOCHS, Scans
from mio.testing.subject import Subject


class SourceChecks:
    """The checks of one plugin's sources."""

    def __init__(self, subject: Subject, scans: Scans) -> None:
        self._subject = subject
        self._scans = scans

    def all(self) -> Iterator[Check]:
        """Name and function of every check."""
        if self._subject.has("mio_sources"):
            yield "sources can be opened", self._opened
        yield "sources give the same records again", self._again
        if self._subject.has("mio_sources"):
            yield "sources and records can be pickled", self._pickled
            yield "a key names one item for ever", self._keys
            yield "what is held out is not trained on", self._disjoint
        if self._subject.declared:
            yield "templates' fields are in the records", self._templates
        with contextlib.suppress(Exception):  # data modules that are not valid are reported
            if self._own_filters():
                yield "filters give reasons", self._filters

    def _opened(self) -> str:
        """A source that is given options has to take them; one that asks for some is left out."""
        told = []
        for name in self._subject.shipped:
            given = self._subject.plugins.given(name)
            found, reason = self._subject.opened(name)
            assert found or not given, f"`{name}` refuses the options {dict(given)}: {reason}"
            lacking = [f"`{split}`" for split in SPLITS if split not in found]
            if found and lacking:
                told.append(f"`{name}` has no {lacking[0]}: {reason}")
            elif not found:
                told.append(f"left out is {self._subject.refusal(name)}")
        return "; ".join(told) if self._subject.own_sources else ""

    def _again(self) -> str:
        count, broken = 0, list[str]()
        for name in self._subject.own_sources:
            factory = self._subject.plugins.sources()[name][1]
            for split in self._subject.splits(name):
                first, second = factory(split, {}), factory(split, {})
                where = f"`{name}` ({split})"
                assert len(first) == len(second) > 0, f"{where}: lengths {len(first)} and {len(second)}"
                _past_the_end(first, where)
                _named(first, second, where)
                indices = range(min(len(first), RECORDS))
                records = [read(first, index) for index in indices]
                problems = [why_broken(first, index) for index in indices if records[index] is None]
                assert len(problems) < len(records), (
                    f"{where}: the first {len(problems)} records are broken: {problems[0]}"
                )
                for index in reversed(indices):  # in another order
                    assert same(read(first, index), records[index]), f"{where}: record {index} differs when read again"
                    assert same(read(second, index), records[index]), (
                        f"{where}: record {index} differs in a fresh source"
                    )
                _epochs_again(first, second, records, where)
                count, broken = count + len(records), broken + problems
        return f"{count} records" + (f", {len(broken)} of them broken, as in: {broken[0]}" if broken else "")

    def _pickled(self) -> None:
        """As they are where work is handed to other processes."""
        for name in self._subject.own_sources:
            source = next(iter(self._subject.splits(name).values()))
            copy = pickle.loads(pickle.dumps(source))
            for index in range(min(len(source), RECORDS)):
                record = read(source, index)
                assert digest(read(copy, index)) == digest(record), f"`{name}`: the copy's record {index} is another"
                restored = pickle.loads(pickle.dumps(record))
                assert digest(restored) == digest(record), f"`{name}`: record {index} is another as a copy"

    def _keys(self) -> str:
        """One key of a modality has one content, in whichever source, split and epoch."""
        content: dict[tuple[str, str], tuple[str, str]] = {}
        unclear = 0
        for name, splits in self._scans.by_source.items():
            for split, scan in splits.items():
                unclear += scan.unclear
                for modality, key, found in scan.keys:
                    assert isinstance(key, str), f"`{name}`: the key {key!r} is no string"
                    assert key, f"`{name}`: an item of `{modality}` has an empty key"
                    where = f"`{name}` ({split})"
                    before, there = content.setdefault((modality, key), (found, where))
                    assert before == found, (
                        f"{where}: the key `{key}` of `{modality}` names another item than in {there}: "
                        "codes are computed once per key"
                    )
        return f"{len(content)} keys{_left_out(unclear)}"

    def _disjoint(self) -> str:
        """No test record is a training record. Records without media are left out: what a sentence says may recur."""
        looked, held_out, trained, unclear = 0, 0, 0, 0
        whole = [splits for splits in self._scans.by_source.items() if len(splits[1]) == len(SPLITS)]
        if not whole:
            raise SkippedCheckError("no source has both `train` and `test`")
        for name, splits in whole:
            train, test = splits["train"], splits["test"]
            for identity, (index, epoch) in test.identities.items():
                assert epoch or identity not in train.identities, (  # what is measured on is epoch 0
                    f"`{name}`: record {index} of `test` is in `train` too (as record "
                    f"{_named_place(train.identities[identity])}): what is measured on it is not held out"
                )
            looked, held_out = looked + test.with_media, held_out + test.records
            trained, unclear = trained + train.looked, unclear + train.unclear + test.unclear
        every = sum(splits["train"].records for _, splits in whole)
        return (
            f"{looked} held-out records with media (of {held_out} records) are none of the {trained} training records "
            f"(of {every}) that were looked at{_left_out(unclear)}"
        )

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

    def _own_filters(self) -> dict[str, Filter]:
        modules = [self._subject.plugins.datamodule(modality.name) for modality in self._subject.declared]
        return {name: drops for module in modules for name, drops in module.filters.items()}

    def _filters(self) -> str:
        """Each filter of the plugin's own data modules says of some record of a source, without options, whether it is
        dropped. One that asks for options, by a `UserError`, is left out."""
        filters = self._own_filters()
        records = [record for name in self._subject.own_sources for record in self._subject.records(name)]
        dropped, asking = 0, 0
        for name, drops in filters.items():
            reasons, problem = [], ""
            for record in records:
                try:
                    reasons.append(drops(record, {}))
                except UserError as error:
                    if not isinstance(error, DataError):
                        asking += 1
                        break
                except Exception as error:  # a filter need not know the records of every source
                    problem = f"{type(error).__name__}: {error}"
            else:
                assert reasons or not problem, f"filter `{name}` raises of every record {problem}"
            wrong = [reason for reason in reasons if not isinstance(reason, str)]
            assert not wrong, f'filter `{name}` returned {wrong[0]!r}, neither a reason to drop a record nor `""`'
            dropped += sum(map(bool, reasons))
        told = f", {asking} of which ask for options" if asking else ""
        return f"{len(filters)} filters{told}; {len(records)} records, dropped {dropped} times"


def _past_the_end(source: Source, where: str) -> None:
    try:
        source[len(source)]
    except IndexError:
        return
    raise AssertionError(f"{where}: reading past the end must raise IndexError")


def _named(first: Source, second: Source, where: str) -> None:
    """What a source may say of its records and of itself."""
    if locate := getattr(first, "locate", None):
        for index in range(min(len(first), RECORDS)):
            name = locate(index)
            assert isinstance(name, str), f"{where}: `locate({index})` gives {name!r}, which is no name"
            assert name, f"{where}: `locate({index})` gives an empty name"
    for found in [one.fingerprint for one in (first, second) if hasattr(one, "fingerprint")]:
        assert isinstance(found, str), f"{where}: `fingerprint` is {found!r}, which is no string"
    known, other = (getattr(one, "fingerprint", "") for one in (first, second))
    assert known == other, f"{where}: `fingerprint` differs in a fresh source: no run that reads it could go on"


def _epochs_again(first: Source, second: Source, records: list[Record | None], where: str) -> None:
    """Records of an epoch follow from its number and theirs; those of epoch 0 are those of `[i]`."""
    if not (isinstance(first, EpochSource) and isinstance(second, EpochSource)):
        return
    for index, record in enumerate(records):
        if record is not None:
            assert same(first.at_epoch(index, 0), record), f"{where}: record {index} of epoch 0 is not `[{index}]`"
        for epoch in range(1, EPOCHS):
            found = read(first, index, epoch)
            for source, when in ((first, "when read again"), (second, "in a fresh source")):
                assert same(read(source, index, epoch), found), (
                    f"{where}: record {index} of epoch {epoch} differs {when}: it follows from both numbers alone"
                )


def _named_place(place: tuple[int, int]) -> str:
    """A record's number, with its epoch if that is not the first."""
    index, epoch = place
    return f"{index} of epoch {epoch}" if epoch else f"{index}"


def _left_out(unclear: int) -> str:
    return f"; {unclear} records left out, whose objects are others whenever they are read" if unclear else ""
