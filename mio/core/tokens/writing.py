"""What a renderer does with the contents of documents, by their kind: writes their tokens, or counts them."""

from __future__ import annotations

from collections.abc import Container, Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mio.core.contract.controls import Control
from mio.core.contract.values import CodeArray, Codes, Media
from mio.core.errors import DataError
from mio.core.tokens.documents import UNDERSTAND, Document, Special
from mio.core.tokens.encoding import int64
from mio.core.tokens.raw_media import raw_media
from mio.core.tokens.rendered import Blank, Item, Made, Said
from mio.core.tokens.spans import SpanPlan, TokenArray
from mio.core.tokens.tokenised import CodedMedia, TokenisedText
from mio.core.tokens.visitor import Visitor

if TYPE_CHECKING:
    from mio.core.tokens.rendering import Renderer

LONG = 256
"""Longest text, in characters, whose tokens are kept: literals, labels and short answers, not articles."""


class Carrier(Enum):
    """What a span of a modality in a view consists of."""

    CODES = "codes"
    ENCODER = "encoder"
    """Positions whose embeddings a network makes of the media."""
    HEAD = "head"
    """The positions in which a network learns to make the media, and those by which it is read."""
    PARTS = "parts"
    """Spans of another modality, or one of each of several."""


class RoleWeights(NamedTuple):
    """Loss weights of what has one role."""

    text: float
    media: float
    control: float


class Spans(Visitor[None]):
    """Does one thing with every span of some contents: parts of an item one by one, and each by its carrier."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self.view = UNDERSTAND

    def media(self, media: Media) -> None:
        carrier = self._renderer.carrier(media.modality, self.view)
        if carrier is Carrier.CODES:
            self.to_codes(media)
        elif carrier is Carrier.ENCODER:
            self.to_read(media)
        elif carrier is Carrier.HEAD:
            self.to_make(media)
        else:
            for part in self._renderer.parts(media):
                self.visit(part)

    def coded_media(self, media: CodedMedia) -> None:
        if self._renderer.has_codes(media, self.view):
            for codes in self._renderer.coded(media):
                self.visit(codes)
        else:
            self.media(media)

    def codes(self, codes: Codes) -> None:
        name = codes.modality
        carrier = self._renderer.carrier(name, self.view)
        if carrier is Carrier.ENCODER:
            raise DataError(f"`{name}` is read by an encoder, which needs the media: it is given as codes")
        if carrier is Carrier.HEAD:
            raise DataError(f"`{name}` is made by a head, which learns from the media: it is given as codes")
        if carrier is Carrier.PARTS:
            parts = " and ".join(f"`{part}`" for part in self._renderer.vocabulary.modality(name).part_names)
            raise DataError(f"`{name}` has no codes of its own: give those of each {parts} in it")
        plan = self._renderer.plan(name, self.view)
        self.of_codes(plan, plan.carried(int64(codes.codes), "", codes.codebooks), codes)

    def to_codes(self, media: Media) -> None:
        """An item that is tokenised."""
        raise NotImplementedError

    def to_read(self, media: Media) -> None:
        """An item that an encoder reads."""
        raise NotImplementedError

    def to_make(self, media: Media) -> None:
        """An item that a head makes."""
        raise NotImplementedError

    def of_codes(self, plan: SpanPlan, carried: CodeArray, codes: Codes) -> None:
        """An item given as codes."""
        raise NotImplementedError


class Writing(Spans):
    """What a document becomes, piece by piece: a text, a special token, a span, or one of the parts of a span that
    networks read and make. What is only `asked` about is not learnt."""

    def __init__(self, renderer: Renderer, blank: Container[str], asked: bool = False) -> None:
        self._renderer = renderer
        self._blank = blank
        self._asked = asked
        self._weights, self._supervised, self._text_weight = RoleWeights(0, 0, 0), 0.0, 0.0
        self._length = 0
        self.pieces: list[TokenArray] = []
        self.weights: list[float] = []
        """Of the tokens of each piece."""
        self.spans: list[tuple[int, int]] = []
        self.items: list[Item] = []
        self.blanks: list[Blank] = []
        self.controls: list[Said] = []
        self.made: list[Made] = []

    def begin(self, weights: RoleWeights, supervised: float, view: str) -> None:
        """What comes next is of a segment of this kind."""
        self._weights, self._supervised, self.view = weights, supervised, view
        self._text_weight = weights.text * supervised if supervised else 0.0

    def text(self, text: str) -> None:
        self._add(self._renderer.text(text), self._text_weight)

    def tokenised_text(self, text: TokenisedText) -> None:
        self._add(text.tokens, self._text_weight)

    def special(self, special: Special) -> None:
        self._add(self._renderer.special[special], self._text_weight)

    def control(self, control: Control) -> None:
        tokens, first = self._renderer.control(control), self._length
        controls = self._renderer.vocabulary.controls
        self._add(tokens, self._weighted(self._weights.control) * controls.weight(control.name))
        self.controls.append(Said(first, self._length, controls.numbers[control.name]))

    def to_codes(self, media: Media) -> None:
        if media.modality not in self._blank:
            self._add_span(self._renderer.span(media, self.view))
            return
        plan, first = self._renderer.plan(media.modality, self.view), self._length
        self._add_span(plan.span(plan.blank(self._renderer.frames(media))))
        self.blanks.append(Blank(first, self._length, media, self.view))

    def of_codes(self, plan: SpanPlan, carried: CodeArray, codes: Codes) -> None:  # noqa: ARG002
        self._add_span(plan.span(carried))

    def to_read(self, media: Media) -> None:
        start, weight = self._length, self._weighted(self._weights.media)
        opening, closing = self._renderer.brackets(media.modality)
        self._add(opening, weight)
        self._read(media)
        self._add(closing, weight)
        self.spans.append((start, self._length))

    def to_make(self, media: Media) -> None:
        name, start, weight = media.modality, self._length, self._weighted(self._weights.media)
        codecs, factor = self._renderer.codecs, weight * self._renderer.head_weight(name)
        opening, closing = self._renderer.brackets(name)
        self._add(opening, weight)
        own = codecs.own_positions(media) if factor and not self._asked else 0
        self._pad(own)
        read = self._read(media) if name in codecs.readers else 0
        if factor and not self._asked:
            self.made.append(Made(name, start, own, factor * (own or read or 1), media))
        self._add(closing, weight)
        self.spans.append((start, self._length))

    def _read(self, media: Media) -> int:
        """Writes the positions by which an encoder reads an item, and returns how many."""
        positions = self._renderer.codecs.positions(media)
        self.items.append(Item(media.modality, self._length, positions, media))
        self._pad(positions)
        return positions

    def _pad(self, positions: int) -> None:
        if positions:
            self._add(np.full(positions, self._renderer.vocabulary.specials.pad, np.int32), 0.0)

    def _add_span(self, span: TokenArray) -> None:
        self.spans.append((self._length, self._length + len(span)))
        self._add(span, self._weighted(self._weights.media))

    def _weighted(self, weight: float) -> float:
        return weight * self._supervised if self._supervised else 0.0

    def _add(self, piece: TokenArray, weight: float) -> None:
        self.pieces.append(piece)
        self.weights.append(weight)
        self._length += len(piece)


class Measuring(Spans):
    """Tokens of a document, which are not made."""

    def __init__(self, renderer: Renderer, document: Document) -> None:
        self._renderer = renderer
        self._document = document
        self.length = 0
        self.learnt = 0.0
        """Loss weight of the media of what comes next."""
        self.too_long = False
        """Whether there was a text whose tokens are all the work that rendering the document is."""

    def text(self, text: str) -> None:
        if len(text) > LONG and not raw_media(self._document, self._renderer):
            self.too_long = True
        else:
            self.length += len(self._renderer.text(text))

    def tokenised_text(self, text: TokenisedText) -> None:
        self.length += len(text.tokens)

    def special(self, special: Special) -> None:  # noqa: ARG002
        self.length += 1

    def control(self, control: Control) -> None:
        self.length += len(self._renderer.control(control))

    def to_codes(self, media: Media) -> None:
        plan = self._renderer.plan(media.modality, self.view)
        self.length += 2 + len(plan.codebooks) * self._renderer.frames(media)

    def of_codes(self, plan: SpanPlan, carried: CodeArray, codes: Codes) -> None:  # noqa: ARG002
        self.length += 2 + carried.size

    def to_read(self, media: Media) -> None:
        self.length += self._brackets(media) + self._renderer.codecs.positions(media)

    def to_make(self, media: Media) -> None:
        codecs = self._renderer.codecs
        self.length += self._brackets(media)
        if self.learnt * self._renderer.head_weight(media.modality):
            self.length += codecs.own_positions(media)
        if media.modality in codecs.readers:
            self.length += codecs.positions(media)

    def _brackets(self, media: Media) -> int:
        opening, closing = self._renderer.brackets(media.modality)
        return len(opening) + len(closing)


class TakenApart(Visitor[Sequence[Media | Codes] | None]):
    """The parts of an item of a modality of parts; None of everything else."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self.view = UNDERSTAND

    def coded_media(self, media: CodedMedia) -> Sequence[Media | Codes] | None:
        return self._renderer.coded(media) if self._renderer.has_codes(media, self.view) else self.media(media)

    def media(self, media: Media) -> Sequence[Media | Codes] | None:
        return self._renderer.parts(media) if self._renderer.vocabulary.modality(media.modality).parts else None

    def other(self, value: object) -> None:  # noqa: ARG002
        return None


class Weighing(Visitor[float]):
    """Loss weight of a content among those of its role."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self.weights = RoleWeights(0, 0, 0)

    def text(self, text: str) -> float:
        return self.weights.text if text else 0.0

    def special(self, special: Special) -> float:  # noqa: ARG002
        return self.weights.text

    def control(self, control: Control) -> float:
        return self.weights.control * self._renderer.vocabulary.controls.weight(control.name)

    def media(self, media: Media) -> float:  # noqa: ARG002
        return self.weights.media

    def codes(self, codes: Codes) -> float:  # noqa: ARG002
        return self.weights.media
