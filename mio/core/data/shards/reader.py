"""Reads shards: any record in a few microseconds. Free of torch at import."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from mio.core.checksums import json_sum
from mio.core.contract.values import Codes, Record
from mio.core.data.hashing import FileHashes
from mio.core.data.partial import Failed, Notes, PartialRecord, notes_of
from mio.core.data.shards.format import map_arrays, read_checked, shard_name
from mio.core.data.shards.shapes import RecordShape
from mio.core.data.shards.texts import open_text_tokens
from mio.core.data.shards.writer import HOLE
from mio.core.errors import DataError, UserError

_PARSED = 4096
"""Shapes kept parsed."""


class Shard:
    """One shard, mapped into memory, every byte of which is as it was written.

    Texts bring their tokens where those of the tokenizer with the fingerprint `text` are beside the shard.
    """

    def __init__(self, path: Path, text: str = "", hashes: FileHashes | None = None) -> None:
        """`hashes` remember which files were checked. Raises `DataError` if the file is no whole shard."""
        self.path = path
        self.header, start = read_checked(path, hashes)
        if "modalities" not in self.header:
            raise DataError(f"{path}: holds no records, but tokens of texts; give `mio tokenize` again")
        self._arrays = arrays = map_arrays(path, self.header, start)
        self.first: int = self.header["first"]
        # memoryviews give Python's integers several times faster than arrays do
        self._shape_of, self._text_at, self._item_at, self._items, self._text_ends = (
            arrays[name].data for name in ("shape_of", "text_at", "item_at", "items", "text_ends")
        )
        self._keys = arrays["keys"].data
        self._text = arrays["text"].data
        self._tokens = open_text_tokens(path, self.header["checksum"], text, hashes) if text else None
        self._items_of = {
            name: (arrays[f"ends/{name}"].data, arrays[f"codes/{name}"], len(declared["codebooks"]))
            for name, declared in self.header["modalities"].items()
        }
        self._shapes: OrderedDict[int, RecordShape] = OrderedDict()

    def __len__(self) -> int:
        return len(self._shape_of)

    def __getitem__(self, place: int) -> Record:
        """Record `first + place` of the source. Raises `DataError` with its reason for one that could not be read."""
        number = self._shape_of[place]
        if number == HOLE:
            return self._hole(place)
        shape = self._shapes.get(number) or self._parsed(number)
        at, stop = self._text_at[place], self._text_at[place + 1]
        ends = self._text_ends[at : stop + 1].tolist()
        texts = [str(self._text[start:end], "utf-8") for start, end in pairwise(ends)]
        if self._tokens is not None:
            texts = list(map(self._tokens.text, range(at, stop), texts))
        numbers = self._items[self._item_at[place] : self._item_at[place + 1]].tolist()
        record = shape.fields.restore(iter(texts), map(self._item, shape.modalities, numbers))
        if shape.unusable or (self._failures and place in self._failures):
            return PartialRecord(record, Notes(shape.unusable | self._failures.get(place, {})))
        return record

    def key(self, place: int) -> int:
        """Key of record `first + place`, as it was made of what was tokenised."""
        key: int = self._keys[place]
        return key

    def _item(self, modality: str, number: int) -> Codes:
        ends, codes, books = self._items_of[modality]
        return Codes(modality, codes[ends[number] : ends[number + 1]].reshape(books, -1))

    def _parsed(self, number: int) -> RecordShape:
        ends = self._arrays["shape_ends"]
        text = self._arrays["shapes"][int(ends[number]) : int(ends[number + 1])].tobytes()
        shape = self._shapes[number] = RecordShape(json.loads(text))
        if len(self._shapes) > _PARSED:
            self._shapes.popitem(last=False)
        return shape

    @cached_property
    def _failures(self) -> dict[int, dict[str, Failed]]:
        """Fields that could not be tokenised, by place."""
        failures: dict[int, dict[str, Failed]] = {}
        for index, field, reason in self.header["failed"]:
            failures.setdefault(index - self.first, {})[field] = Failed(reason)
        return failures

    @cached_property
    def _dropped(self) -> dict[int, str]:
        return {index - self.first: reason for index, reason in self.header["dropped"]}

    def _hole(self, place: int) -> Record:
        if place in self._dropped:
            return PartialRecord({}, Notes(dropped=self._dropped[place]))
        raise DataError(self._failures[place][""].reason)


@dataclass(frozen=True)
class TokenIndex:
    """What is known of all shards of a source: `index.json`."""

    records: int
    shard_records: int
    content: str
    """Fingerprint of the source, where it has one."""
    tokenizers: dict[str, str]
    """Fingerprint by modality, of those that occur."""
    failed: int
    """Records of which at least one field could not be tokenised."""
    dropped: dict[str, int]
    """Records that filters left out, by reason."""
    shards: list[str]
    """Checksum of each shard."""
    source: str = ""
    """Digest of what `source.json` says of the recipe, which every shard carries too."""


class TokenisedSource:
    """The records of a tokenised source, by the folder of its shards. Shards are opened when they are first read."""

    def __init__(self, folder: Path, index: TokenIndex, hashes: FileHashes | None = None) -> None:
        """`hashes` remember which shards were found whole."""
        self.folder = folder
        self.fingerprint = index.content
        self.name_record: Callable[[int], str] = lambda index: f"{folder.name}: record {index}"
        """Names a record for messages: the way of the source itself, where that is at hand."""
        self.notes: list[str] = []
        """What of the source's files belongs to no record, where it is at hand."""
        self.text = ""
        """Fingerprint of the text tokenizer whose tokens texts are to bring."""
        self._index = index
        self._hashes = hashes
        self._shards: list[Shard | None] = [None] * len(index.shards)

    @property
    def digest(self) -> str:
        """Changes when any of the shards does."""
        return json_sum({"shards": self._index.shards})

    def __len__(self) -> int:
        return self._index.records

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self._index.records:
            raise IndexError(f"record {index} of {self._index.records}")
        shard, place = self._place(index)
        return shard[place]

    def key(self, index: int) -> int:
        """Key of a record (see `mio.core.data.held_out`); 0 for one that could not be read or was left out."""
        shard, place = self._place(index)
        return shard.key(place)

    def _place(self, index: int) -> tuple[Shard, int]:
        number, place = divmod(index, self._index.shard_records)
        return self._shards[number] or self._open(number), place

    @property
    def unused(self) -> Counter[str]:
        """What the records of the shards opened so far hold that no template could use, with their number."""
        counts: Counter[str] = Counter()
        for shard in self._shards:
            counts.update(shard.header["unstorable"] if shard is not None else ())
        return counts

    def locate(self, index: int) -> str:
        """Names a record for messages."""
        return self.name_record(index)

    def _open(self, number: int) -> Shard:
        """Raises `UserError` for a damaged shard: it costs the run, not its records."""
        path = self.folder / shard_name(number)
        try:
            shard = Shard(path, self.text, self._hashes)
        except DataError as error:
            raise UserError(str(error)) from error
        header, source = shard.header, self._index.source
        is_other = source and (header.get("source"), header.get("number")) != (source, number)
        if is_other or header["checksum"] != self._index.shards[number]:
            raise UserError(f"{path}: is not the shard that the folder's index names; give `mio tokenize` again")
        self._shards[number] = shard
        return shard


def dropped(record: Record) -> str:
    """Why a filter left a record out when it was tokenised; the empty string if none did."""
    return notes_of(record).dropped
