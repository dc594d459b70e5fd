"""Streams of documents: the records of one source in one direction, shuffled, filtered and rendered. Free of torch."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mio.core.contract.values import EpochSource, Record, Source
from mio.core.data.mixture import StreamShare
from mio.core.data.order import Order
from mio.core.data.partial import notes_of
from mio.core.data.reasons import reason_of
from mio.core.data.sample import CheckedSample
from mio.core.errors import DataError, MioError, PluginError, UserError
from mio.core.recipe.data_schema import PackingConfig
from mio.core.tokens.documents import Document
from mio.core.tokens.raw_media import raw_media
from mio.core.tokens.rendered import Rendered
from mio.core.tokens.rendering import Renderer

BROKEN = "broken"
"""Reason of a record that cannot be read or rendered."""
EMPTY = "empty"
"""Reason of a document of fewer than two tokens, which predicts nothing."""
WEIGHTLESS = "nothing to learn"
"""Reason of a document of whose tokens none has a weight in the loss."""
HELD_OUT = "held out"
"""Reason of a record that is kept for validation."""
TRAINED_ON = "trained on"
"""Reason of a record that is not held out, where those that are are looked for."""
CUT_AWAY = "nothing to learn within the context"
"""Reason of a document that is too long, and whose beginning within the context has no weight in the loss."""

_UNKNOWN = 0
_EPOCHS = 3
"""Later epochs whose lengths are remembered: rows are planned ahead of the one that is read."""


class Memory:
    """Documents that had to be rendered to be measured, `tokens` tokens of 8 bytes at most. The least recently used one
    leaves first."""

    def __init__(self, tokens: int = 8_000_000) -> None:
        self._room = tokens
        self._kept: OrderedDict[tuple[str, int], Rendered] = OrderedDict()

    def get(self, key: tuple[str, int]) -> Rendered | None:
        """What was put under `key`, if it is still there."""
        document = self._kept.get(key)
        if document is not None:
            self._kept.move_to_end(key)
        return document

    def put(self, key: tuple[str, int], document: Rendered) -> None:
        """Keeps a document that is not kept yet."""
        self._kept[key] = document
        self._room -= len(document.tokens)
        while self._room < 0:
            _, dropped = self._kept.popitem(last=False)
            self._room += len(dropped.tokens)


@dataclass(eq=False)
class RecordStream:
    """The documents of one direction of one source. The n-th one is record `order(n)`, whatever happened before.

    A record of an `EpochSource` has a number for each epoch: `epoch x records + index`. All others have one for all.
    """

    share: StreamShare
    source: Source
    to_document: Callable[[Record, int], Document]
    """A record, and its index, to its document."""
    renderer: Renderer
    drop: Callable[[Record], str]
    """A reason to leave a record out, one of a few phrases, or the empty string."""
    packing: PackingConfig
    seed: int
    """Of the order."""
    content: str
    """Fingerprint of everything that shapes the documents beside the seed."""
    memory: Memory
    """Where rendered documents are kept, shared by the streams of a run."""
    held_out: Callable[[int, Record], bool] | None = None
    """Whether a record, by its index, is held out; None: none is."""
    validates: bool = False
    """Whether it is the records held out that can be used, and not the others."""
    sample: CheckedSample = field(default_factory=CheckedSample)
    """Records that are checked when they are measured."""

    def __post_init__(self) -> None:
        self.name = self.share.name
        self.order = Order(len(self.source), self.seed)
        self.identity = f"{self.content}-{self.seed:016x}"
        """Changes whenever the documents or their order could change."""
        self.unknown: Counter[str] = Counter()
        """Keys inside the records measured that nothing reads, with the number of records that have them."""
        # length by record, learnt once; a reason's number below 0. Zero pages cost nothing until they are written.
        self._lengths: npt.NDArray[np.int32] = np.zeros(len(self.source), dtype=np.int32)
        self._later: dict[int, npt.NDArray[np.int32]] = {}
        """The same by epoch, of the last ones of an `EpochSource` that were asked for."""
        self._reasons: list[str] = []
        self._by_epoch = self.source if isinstance(self.source, EpochSource) else None

    def __len__(self) -> int:
        return len(self._lengths)

    def record(self, n: int) -> int:
        """Number of the n-th document's record."""
        if self._by_epoch is None:
            return self.order(n)
        return n // len(self) * len(self) + self.order(n)

    def length(self, n: int) -> int | None:
        """Positions of the n-th document, untruncated; None if it cannot be used (see `reason`)."""
        length = self.measure(self.record(n))
        return length if length > 0 else None

    def reason(self, n: int) -> str:
        """Why the n-th document cannot be used: one of a few phrases, to be counted by."""
        return self.reason_of(self.record(n))

    def truncated(self, n: int) -> int:
        """Positions of the n-th document once it is truncated to the context; 0 if none is left."""
        record = self.record(n)
        document = self.memory.get((self.name, record)) or self._outline(self._document(record))
        return max(0, len(document.truncate(self.packing.context + 1).tokens) - 1)

    def draft(self, n: int) -> Rendered | Document:
        """The n-th document, as it was rendered if that is remembered."""
        record = self.record(n)
        return self.memory.get((self.name, record)) or self._document(record)

    def document(self, n: int) -> Rendered:
        """The n-th document, at most one row long."""
        return self.document_of(self.record(n))

    def document_of(self, record: int) -> Rendered:
        """A record's document, at most one row long."""
        rendered = self.memory.get((self.name, record))
        if rendered is None:
            rendered = self._read(record)
        return rendered.truncate(self.packing.context + 1)

    def unrendered(self, record: int) -> Document:
        """A record's document before it is rendered."""
        return self._document(record)

    def locate(self, n: int) -> str:
        """Names the record behind the n-th document."""
        return self._where(self.record(n))

    def describe(self, n: int) -> str:
        """The record behind the n-th document and, if it is broken, how."""
        return self.describe_record(self.record(n))

    def measure(self, record: int) -> int:
        """Positions of a record's document; below 0 if it cannot be used."""
        lengths, index = self._lengths, record
        if record >= len(lengths):
            epoch, index = divmod(record, len(lengths))
            lengths = self._of_epoch(epoch)
        length: int = lengths.item(index)
        if length == _UNKNOWN:
            length = lengths[index] = self._measure(record)
        return length

    def _of_epoch(self, epoch: int) -> npt.NDArray[np.int32]:
        """Lengths by index of a later epoch."""
        lengths = self._later.get(epoch)
        if lengths is None:
            lengths = self._later[epoch] = np.zeros_like(self._lengths)
            if len(self._later) > _EPOCHS:
                del self._later[next(iter(self._later))]
        return lengths

    def reason_of(self, record: int) -> str:
        """Why a record that was measured cannot be used; the empty string if it can."""
        length = self.measure(record)
        return "" if length > 0 else self._reasons[-1 - length]

    def describe_record(self, record: int) -> str:
        """Names a record: the reader's word for its place, or its number, and its error if it is broken."""
        where = self._where(record)
        if self.measure(record) > 0 or self.reason_of(record) != BROKEN:
            return where
        try:
            content = self.content_of(record)
            self.drop(content)
            if self.held_out is not None:
                self._holds_out(record, content)
            document, codecs = self._document(record), self.renderer.codecs
            rendered = self.renderer.render(document)
            for item in raw_media(self.renderer.expanded(document), self.renderer):
                codecs.check_readable(item)
            for read in rendered.items:
                codecs.prepare(read.media)
            for made in rendered.made:
                codecs.target(made.media)
        except Exception as error:
            return reason_of(error, where)
        return where

    def _measure(self, record: int) -> int:
        try:
            content = self.content_of(record)
            reason = self.drop(content)
            if reason:
                return self._number(reason)
            if self.held_out is not None and self._holds_out(record, content) != self.validates:
                return self._number(TRAINED_ON if self.validates else HELD_OUT)
            self.unknown.update(notes_of(content).unknown)
            document = self.to_document(content, record % len(self))
            if not self.renderer.learns(document):
                return self._number(WEIGHTLESS)
            tokens = self.renderer.measure(document)
            rendered = None
            if tokens is None:
                rendered = self._render_and_keep(document, record)
                tokens = len(rendered.tokens)
            elif record in self.sample.read:
                self._check(document, record, tokens)
            if tokens - 1 > self.packing.context and self.packing.too_long == "truncate":
                rendered = rendered or self._outline(document)
                if not rendered.truncate(self.packing.context + 1).weights[1:].any():
                    return self._number(CUT_AWAY)
        except MemoryError:
            raise
        except PluginError as error:
            where = f"{self.name}: {self._where(record)}"
            raise PluginError(f"{error}" if f"{error}".startswith(self.name) else f"{where}: {error}") from error
        except Exception as error:
            if type(error) is UserError:  # a mistake of the user's, not in this record
                raise UserError(f"{self.name}: {self._where(record)}: {error}") from error
            if isinstance(error, MioError) and not isinstance(error, DataError):
                raise
            return self._number(BROKEN)
        return tokens - 1 if tokens > 1 else self._number(EMPTY)

    def _check(self, document: Document, record: int, tokens: int) -> None:
        """Reads the media of a document that was measured, and encodes them or prepares them for networks if the sample
        says so. Raises `DataError` for damage, and `PluginError` where a plugin does not do what it foretold."""
        if not raw_media(document, self.renderer):
            return
        codecs = self.renderer.codecs
        document = self.renderer.expanded(document)
        for item in raw_media(document, self.renderer):
            codecs.check_readable(item)
        if record in self.sample.encoded:
            for error in codecs.learn(raw_media(document, self.renderer, to_code=True)).values():
                raise error
            rendered = self.renderer.render(document)
            if len(rendered.tokens) != tokens:
                raise PluginError(
                    f"has {len(rendered.tokens)} tokens, {tokens} were foretold: a tokenizer's `frames`, or a "
                    "splitter, does not say the same each time"
                )
            where = f"{self.name}: {self._where(record)}"
            for read in rendered.items:
                codecs.check_prepared(read.media, where)
            for made in rendered.made:
                codecs.check_target(made.media, where)

    def _outline(self, document: Document) -> Rendered:
        """The document rendered, but that media hold no codes yet."""
        if raw_media(document, self.renderer):
            return self.renderer.render(document, self.renderer.codecs.modalities)
        return self.renderer.render(document)

    def _where(self, record: int) -> str:
        locate = getattr(self.source, "locate", None)
        epoch, index = divmod(record, len(self))
        where: str = locate(index) if locate else f"record {index}"
        return f"{where} of epoch {epoch}" if epoch else where

    def _holds_out(self, record: int, content: Record) -> bool:
        """Whether a record is held out, which all of its epochs are or none: that of epoch 0 says it."""
        assert self.held_out is not None
        index = record % len(self)
        return self.held_out(index, content if index == record else self.content_of(index))

    def _render_and_keep(self, document: Document, record: int) -> Rendered:
        rendered = self.renderer.render(document)
        self.memory.put((self.name, record), rendered)
        return rendered

    def content_of(self, record: int) -> Record:
        """A record, as its source gives it."""
        epoch, index = divmod(record, len(self))
        try:
            return self._by_epoch.at_epoch(index, epoch) if self._by_epoch is not None else self.source[index]
        except IndexError as error:
            raise PluginError(
                f"{self.name}: its source says that it has {len(self)} records, but record {index} raised IndexError"
            ) from error

    def _document(self, record: int) -> Document:
        return self.to_document(self.content_of(record), record % len(self))

    def _read(self, record: int) -> Rendered:
        return self.renderer.render(self._document(record))

    def _number(self, reason: str) -> int:
        """Below 0: how a reason is noted among the lengths."""
        if reason not in self._reasons:
            self._reasons.append(reason)
        return -1 - self._reasons.index(reason)
