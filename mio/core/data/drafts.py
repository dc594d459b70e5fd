"""Rows of the plan to rows of tokens: documents are read one by one, and the media of all of them encoded together.

Media that are encoded on another device than the CPU leave a data worker as they were read: their spans are of the
right length and hold code 0, until `fill` writes the codes in the training process. A document whose media turn out to
be damaged keeps its place in the row as padding, since the plan was made without looking at them, and is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mio.core.contract.values import Media
from mio.core.data.batch import Batch, Slot
from mio.core.data.made import prepared_document
from mio.core.data.packing import Entry
from mio.core.data.plan import Row
from mio.core.data.reasons import reason_of
from mio.core.data.streams import RecordStream
from mio.core.data.unreadable import Lost
from mio.core.errors import DataError, PluginError
from mio.core.tokens.codecs import name_of
from mio.core.tokens.documents import Document
from mio.core.tokens.encoding import check_present
from mio.core.tokens.raw_media import raw_media
from mio.core.tokens.rendered import Rendered


@dataclass
class RenderedRows:
    """Rows of documents in the order of their places, and what is to be known about them."""

    rows: list[list[tuple[int, Rendered]]] = field(default_factory=list)
    """(stream index, document)."""
    slots: list[Slot] = field(default_factory=list)
    """Spans without codes yet."""
    lost: list[Lost] = field(default_factory=list)


class RowRenderer:
    """Renders rows of the plan over these streams. `pad` takes the place of the tokens of documents that are lost."""

    def __init__(self, streams: Sequence[RecordStream], pad: int) -> None:
        self._streams = streams
        self._pad = pad

    def render(self, rows: Sequence[Row]) -> RenderedRows:
        """Each entry's document, at most one row long.

        Raises:
            PluginError: media came out with another number of frames than their tokenizer had foretold.
            DataError: a record is not what it was, or a file of media cannot be read any more.
        """
        entries = [entry for row in rows for entry in row]
        drafts = [self._streams[entry.stream].draft(entry.n) for entry in entries]
        media = _MicroBatchMedia(self._streams)
        for draft in drafts:
            if isinstance(draft, Document):
                media.add(draft)
        media.encode()
        pairs = iter(zip(entries, drafts, strict=True))
        made = RenderedRows()
        for number, row in enumerate(rows):
            first = 0
            made.rows.append([])
            for _ in row:
                entry, draft = next(pairs)
                rendered = draft
                if isinstance(draft, Document):
                    rendered, spans = self._rendered(entry, draft, media, made.lost)
                    made.slots += [Slot(entry[:2], number, first, entry.length, *span) for span in spans]
                assert isinstance(rendered, Rendered)
                made.rows[-1].append((entry.stream, self._fitted(entry, rendered)))
                first += entry.length
        return made

    def fill(self, batch: Batch) -> Batch:
        """Writes the spans that a batch waits for, in place; what is lost becomes padding. In the training process."""
        if not batch.waiting:
            return batch
        renderer = self._streams[0].renderer
        failed = renderer.codecs.learn(slot.media for slot in batch.waiting)
        lost: dict[tuple[int, int], str] = {}
        for slot in batch.waiting:
            try:
                _raise_failed(failed, [slot.media])
                slot.write(batch, renderer.span(slot.media, slot.view))
            except (DataError, PluginError) as error:
                lost.setdefault(slot.document, self._reason(slot.document, error, ()))
        for slot in batch.waiting:
            if slot.document in lost:
                slot.blank(batch, self._pad)
        if lost:
            batch.weight = batch.summed_weight()
            batch.lost += [(*document, reason) for document, reason in lost.items()]
        batch.waiting = []
        return batch

    def _rendered(
        self, entry: Entry, document: Document, media: _MicroBatchMedia, lost: list[Lost]
    ) -> tuple[Rendered, list[_Span]]:
        """A document, or padding of its length if it is lost, and its spans without codes."""
        try:
            return media.rendered(document, self._streams[entry.stream].packing.context + 1)
        except (DataError, PluginError) as error:
            if not (items := raw_media(document, self._streams[entry.stream].renderer)):
                raise
            lost.append((*entry[:2], self._reason(entry[:2], error, items)))
            size = entry.length + 1
            tokens, spans = np.full(size, self._pad, np.int32), np.zeros((0, 2), np.int32)
            return Rendered(tokens, np.zeros(size, np.float32), spans), []

    def _reason(self, document: tuple[int, int], error: DataError | PluginError, media: Iterable[Media]) -> str:
        """Why a document is lost. Raises an error if that is no damage: a plugin's mistake, or a file that is gone."""
        stream, n = self._streams[document[0]], document[1]
        where = f"{stream.name}: {stream.locate(n)}"
        if isinstance(error, PluginError):
            raise PluginError(f"{where}: {error}") from error
        for item in media:
            check_present(item)
        return reason_of(error, where)

    def _fitted(self, entry: Entry, document: Rendered) -> Rendered:
        """The document at most one row long. Raises `DataError` if it does not take the place that was planned."""
        stream = self._streams[entry.stream]
        document = document.truncate(stream.packing.context + 1)
        if len(document.tokens) - 1 != entry.length:
            raise DataError(
                f"{stream.name}: {stream.locate(entry.n)}: takes {len(document.tokens) - 1} positions, and took "
                f"{entry.length} when its place was planned: the source gives another record than before. Restore what "
                "it was, or start a new run"
            )
        return document


_Span = tuple[int, Media, str]
"""First token of a span inside its document, its item as it was read, and the view."""


class _MicroBatchMedia:
    """The media of the documents of a micro batch: encoded, or read where they are encoded elsewhere."""

    def __init__(self, streams: Sequence[RecordStream]) -> None:
        self._renderer = streams[0].renderer
        self._expanded: dict[int, Document | DataError] = {}
        self._here: list[Media] = []
        self._elsewhere: dict[str, Media] = {}
        self._failed: dict[str, DataError | PluginError] = {}

    def add(self, document: Document) -> None:
        """Takes up the media of a document."""
        if not raw_media(document, self._renderer):
            return
        try:
            expanded = self._renderer.expanded(document)
        except DataError as error:
            self._expanded[id(document)] = error
            return
        self._expanded[id(document)] = expanded
        for item in raw_media(expanded, self._renderer, to_code=True):
            if item.modality in self._renderer.codecs.elsewhere:
                self._elsewhere[name_of(item)] = item
            else:
                self._here.append(item)

    def encode(self) -> None:
        """Encodes what was taken up; reads what is encoded elsewhere."""
        if self._here:
            self._failed |= self._renderer.codecs.learn(self._here)
        for name, item in self._elsewhere.items():
            try:
                self._elsewhere[name] = self._renderer.codecs.opened(item)
            except DataError as error:
                self._failed[name] = error

    def rendered(self, document: Document, size: int) -> tuple[Rendered, list[_Span]]:
        """A document and those of its spans that have no codes yet and end within `size` tokens. Raises what is wrong
        with its media."""
        expanded = self._expanded.get(id(document))
        if expanded is None:  # nothing of it is raw
            return self._renderer.render(document).truncate(size), []
        if isinstance(expanded, DataError):
            raise expanded
        _raise_failed(self._failed, raw_media(expanded, self._renderer))
        codecs = self._renderer.codecs
        rendered = self._renderer.render(expanded, codecs.elsewhere if self._elsewhere else ())
        rendered = rendered.truncate(size)
        if rendered.items or rendered.made:
            rendered = prepared_document(rendered, codecs)
        return rendered, [(blank.first, self._elsewhere[name_of(blank.media)], blank.view) for blank in rendered.blanks]


def _raise_failed(failed: Mapping[str, DataError | PluginError], items: Iterable[Media]) -> None:
    for item in items:
        if error := failed.get(name_of(item)):
            raise error
