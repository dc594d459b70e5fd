"""Which items of documents have yet to be read."""

from __future__ import annotations

from collections.abc import Callable

from mio.core.contract.values import Media
from mio.core.tokens.documents import GENERATE, UNDERSTAND, Document
from mio.core.tokens.tokenised import CodedMedia
from mio.core.tokens.visitor import Visitor


class _Raw(Visitor[Media | None]):
    """An item that is not tokenised; None of everything else."""

    def media(self, media: Media) -> Media:
        return media

    def tokenised_media(self, media: Media) -> None:  # noqa: ARG002
        return None

    def other(self, value: object) -> None:  # noqa: ARG002
        return None


class _RawToWrite(_Raw):
    """The same of what is written, for which codes that an item brings will do."""

    def coded_media(self, media: CodedMedia) -> None:  # noqa: ARG002
        return None


_RAW = _Raw()
_RAW_METHODS = {UNDERSTAND: _Raw.methods, GENERATE: _RawToWrite.methods}


def raw_media(document: Document, without: Callable[[str, str], bool] | None = None) -> list[Media]:
    """The items of a document that are not tokenised yet, in order; `without` those of which it is true, by modality
    and view."""
    return [
        media
        for content, _, _, view in document.segments
        if (media := _RAW_METHODS[view][type(content)](_RAW, content)) is not None
        and not (without and without(media.modality, view))
    ]
