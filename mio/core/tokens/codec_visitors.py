"""What codecs make of values of any kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mio.core.contract.values import CodeArray, Codes, Media
from mio.core.tokens.encoding import int64
from mio.core.tokens.tokenised import CodedMedia
from mio.core.tokens.visitor import Result, Visitor

if TYPE_CHECKING:
    from mio.core.tokens.codecs import Codecs


class _OfCodecs(Visitor[Result]):
    def __init__(self, codecs: Codecs) -> None:
        self._codecs = codecs


class AsCodes(_OfCodecs[Codes]):
    """An item with its codes as int64."""

    def media(self, media: Media) -> Codes:
        return Codes(media.modality, self._codecs.codes(media))

    def coded_media(self, media: CodedMedia) -> Codes:
        return self.visit(media.codes)

    def codes(self, codes: Codes) -> Codes:
        return Codes(codes.modality, int64(codes.codes), codes.codebooks)


class Decodable(_OfCodecs[Any]):
    """What the detokenizer of an item is given: its codes, or its parts' media. Media that a head makes have none."""

    def media(self, media: Media) -> Any:
        if media.modality in self._codecs.makers:
            return self._codecs.opened(media).data
        if self._codecs.modalities[media.modality].parts:
            return self._codecs.round_trip(self._codecs.split(media))
        return self._codecs.written(media)

    def codes(self, codes: Codes) -> CodeArray:
        return self._codecs.written(codes)


class Items(_OfCodecs[list[Media | Codes]]):
    """Media and codes, of parts one by one."""

    def media(self, media: Media) -> list[Media | Codes]:
        return list(self._codecs.split(media)) if self._codecs.modalities[media.modality].parts else [media]

    def coded_media(self, media: CodedMedia) -> list[Media | Codes]:
        return self.visit(media.codes)

    def codes(self, codes: Codes) -> list[Media | Codes]:
        return [codes]

    def mapping(self, values: Mapping[str, Any]) -> list[Media | Codes]:
        return self.sequence(list(values.values()))

    def sequence(self, values: Sequence[Any]) -> list[Media | Codes]:
        return [item for value in values for item in self.visit(value)]

    def other(self, value: Any) -> list[Media | Codes]:  # noqa: ARG002
        return []
