"""Which items of documents have yet to be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mio.core.contract.values import Media
from mio.core.tokens.documents import UNDERSTAND, Document
from mio.core.tokens.tokenised import CodedMedia
from mio.core.tokens.visitor import Visitor

if TYPE_CHECKING:
    from mio.core.tokens.rendering import Renderer


class _Raw(Visitor[Media | None]):
    """An item whose span is not made of codes that it brings; None of everything else."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self.view = UNDERSTAND

    def media(self, media: Media) -> Media:
        return media

    def tokenised_media(self, media: Media) -> None:  # noqa: ARG002
        return None

    def coded_media(self, media: CodedMedia) -> Media | None:
        return None if self._renderer.has_codes(media, self.view) else media

    def other(self, value: object) -> None:  # noqa: ARG002
        return None


def raw_media(document: Document, renderer: Renderer, to_code: bool = False) -> list[Media]:
    """The items of a document that a renderer has to read, in order; `to_code` those that become codes alone, and not
    those that networks read and make."""
    raw, methods = _Raw(renderer), _Raw.methods
    found = []
    for content, _, _, view in document.segments:
        raw.view = view
        media = methods[type(content)](raw, content)
        if media is not None and not (to_code and renderer.codecs.by_network(media.modality, view)):
            found.append(media)
    return found
