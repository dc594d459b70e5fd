"""Rendering: a document becomes token ids with loss weights.

Runs in the data workers for every document of every epoch: pieces of text that recur are tokenised once, a span is one
gather, and nothing is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from mio.core.contract.controls import Control
from mio.core.contract.values import CodeArray, Codes, Media
from mio.core.errors import DataError
from mio.core.recipe.schema import LossConfig
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.documents import GENERATE, PROMPT, RESPONSE, SYSTEM, UNDERSTAND, Document, Segment, Special
from mio.core.tokens.encoding import int64
from mio.core.tokens.rendered import Blank, Item, Prompt, Rendered, Said
from mio.core.tokens.spans import SpanPlan, TokenArray, check_frames
from mio.core.tokens.tokenised import CodedMedia, TokenisedText
from mio.core.tokens.visitor import Visitor
from mio.core.tokens.vocabulary import Vocabulary

_CACHED_TEXTS = 1 << 16
_CACHED_LENGTH = 256
"""Longest text, in characters, whose tokens are kept: literals, labels and short answers, not articles."""


class Carrier(Enum):
    """What a span of a modality in a view consists of."""

    CODES = "codes"
    ENCODER = "encoder"
    """Positions whose embeddings a network makes of the media."""
    PARTS = "parts"
    """Spans of another modality."""


class _RoleWeights(NamedTuple):
    """Loss weights of what has one role."""

    text: float
    media: float
    control: float


class Renderer:
    """Documents to tokens of one vocabulary, with one loss configuration. Can be pickled; its caches stay behind."""

    def __init__(self, vocabulary: Vocabulary, codecs: Codecs, loss: LossConfig) -> None:
        self._arguments = (vocabulary, codecs, loss)
        self.vocabulary = vocabulary
        self.codecs = codecs
        """What spans are made by."""
        prompt = _RoleWeights(loss.prompt_text, loss.prompt_media, 0.0)
        response = _RoleWeights(loss.response_text, loss.response_media, loss.control)
        self._weights = {PROMPT: prompt, SYSTEM: prompt, RESPONSE: response}
        self.special = {
            special: np.array([getattr(vocabulary.specials, special.value)], dtype=np.int32) for special in Special
        }
        """Token of each, `[1]`."""
        self._controls = {name: np.array(ids, dtype=np.int32) for name, ids in vocabulary.controls.ids.items()}
        self._short_text = lru_cache(maxsize=_CACHED_TEXTS)(self._encode)
        self.carrier = lru_cache(maxsize=None)(self._carrier)
        """What a span of a modality in a view consists of."""
        self.plan = lru_cache(maxsize=None)(self._plan)
        """How codes of a modality in a view become ids. Raises `DataError` for a modality without codes."""
        self.brackets = lru_cache(maxsize=None)(self._brackets)
        """Tokens that open and close what an encoder reads of a modality, as far as it has them."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Renderer, self._arguments

    def expanded(self, document: Document) -> Document:
        """The document with the parts of an item in its place, where its modality is one of parts: it renders alike.

        Raises DataError as `render` does.
        """
        segments: list[Segment] = []
        answer, apart = document.answer, _TakenApart(self)
        for index, segment in enumerate(document.segments):
            apart.view = segment.view
            parts = apart.visit(segment.content)
            if parts is None:
                segments.append(segment)
                continue
            segments += [segment._replace(content=part) for part in parts]
            answer += len(parts) - 1 if index < document.answer else 0
        return Document(tuple(segments), answer)

    def render(self, document: Document, blank: Container[str] = ()) -> Rendered:
        """Tokens, weights and spans of a document.

        Args:
            blank: modalities whose media are not encoded: their spans are as long as they will be, and hold code 0.

        Raises DataError, naming modality, item and codebook, for codes that do not fit their declaration.
        """
        written = self._written(document.segments, blank)
        sizes = [len(piece) for piece in written.pieces]
        return Rendered(
            np.concatenate(written.pieces, dtype=np.int32),
            np.repeat(np.array(written.weights, dtype=np.float32), sizes),
            np.array(written.spans, dtype=np.int32).reshape(-1, 2),
            tuple(written.items),
            tuple(written.blanks),
            tuple(written.controls),
        )

    def prompt(self, document: Document) -> Prompt:
        """What comes before the model's answer: always a beginning of what `render` gives."""
        written = self._written(document.segments[: document.answer], ())
        return Prompt(np.concatenate(written.pieces, dtype=np.int32), tuple(written.items))

    def _written(self, segments: Iterable[Segment], blank: Container[str]) -> _Writing:
        written, methods, weights = _Writing(self, blank), _Writing.methods, self._weights
        for content, role, supervised, view in segments:
            written.begin(weights[role], supervised, view)
            methods[type(content)](written, content)
        return written

    def learns(self, document: Document) -> bool:
        """Whether anything of a document has a weight in the loss. Takes next to no time."""
        for content, role, supervised, _ in reversed(document.segments):
            if supervised and self._weights[role][_LossKind.methods[type(content)](_LOSS_KIND, content)] > 0:
                if content == "" or (
                    isinstance(content, Control) and not self.vocabulary.controls.weight(content.name)
                ):
                    continue
                return True
        return False

    def measure(self, document: Document) -> int | None:
        """Tokens of a document, without making them: media are not encoded (see `Codecs.frames`). None where that is as
        much work as `render`: the document holds long texts that do not bring their tokens, and no media.

        Raises DataError as `render` does.
        """
        measured, methods = _Measuring(self, document), _Measuring.methods
        for content, _, _, view in document.segments:
            measured.view = view
            methods[type(content)](measured, content)
            if measured.too_long:
                return None
        return measured.length

    def span(self, media: Media, view: str) -> TokenArray:
        """`<begin> codes <end>` of one item, int32. Raises DataError as `render` does."""
        plan = self.plan(media.modality, view)
        return plan.span(plan.carried(self.codecs.codes(media), media.key))

    def text(self, text: str) -> TokenArray:
        """Tokens of a text."""
        return self._short_text(text) if len(text) <= _CACHED_LENGTH else self._encode(text)

    def control(self, control: Control) -> TokenArray:
        """Tokens of a control token: one of its own, or those of its text. Raises `DataError` for an unknown name."""
        self.vocabulary.controls.check(control.name)
        return self._controls[control.name]

    def frames(self, media: Media) -> int:
        """Frames of an item that is not encoded."""
        frames = self.codecs.frames(media)
        check_frames(self.vocabulary.modality(media.modality), media.key, frames)
        return frames

    def has_codes(self, media: CodedMedia, view: str) -> bool:
        """Whether the codes that an item brings are what its span consists of."""
        name = self.vocabulary.modality(media.modality).parts or media.modality
        return self.carrier(name, view) is Carrier.CODES

    def coded(self, media: CodedMedia) -> Sequence[Codes]:
        """The codes that an item brings, of parts one by one."""
        if isinstance(media.codes, Codes):
            return (media.codes,)
        check_frames(self.vocabulary.modality(media.modality), media.key, len(media.codes))
        return media.codes

    def parts(self, media: Media) -> Sequence[Media | Codes]:
        """Parts of an item of a modality of parts."""
        parts = self.codecs.split(media)
        check_frames(self.vocabulary.modality(media.modality), media.key, len(parts))
        return parts

    def _encode(self, text: str) -> TokenArray:
        tokens = np.array(self.codecs.text.encode(text), dtype=np.int32)
        tokens.flags.writeable = False
        return tokens

    def _brackets(self, name: str) -> tuple[TokenArray, TokenArray]:
        declared, vocabulary = self.vocabulary.modality(name), self.vocabulary
        opening = [vocabulary.begin(name)] if declared.begin else []
        closing = [vocabulary.end(name)] if declared.end else []
        return np.array(opening, np.int32), np.array(closing, np.int32)

    def _carrier(self, name: str, view: str) -> Carrier:
        if self.vocabulary.modality(name).parts:
            return Carrier.PARTS
        return Carrier.ENCODER if self.codecs.encoded(name, view) else Carrier.CODES

    def _plan(self, name: str, view: str) -> SpanPlan:
        return SpanPlan.of(self.vocabulary, name, view)


class _Spans(Visitor[None]):
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
        if carrier is Carrier.PARTS:
            part = self._renderer.vocabulary.modality(name).parts
            raise DataError(f"`{name}` has no codes of its own: give those of each `{part}` in it")
        plan = self._renderer.plan(name, self.view)
        self.of_codes(plan, plan.carried(int64(codes.codes), "", codes.codebooks), codes)

    def to_codes(self, media: Media) -> None:
        """An item that is tokenised."""
        raise NotImplementedError

    def to_read(self, media: Media) -> None:
        """An item that an encoder reads."""
        raise NotImplementedError

    def of_codes(self, plan: SpanPlan, carried: CodeArray, codes: Codes) -> None:
        """An item given as codes."""
        raise NotImplementedError


class _Writing(_Spans):
    """What a document becomes, piece by piece: a text, a special token, a span, or one of the parts of a span that an
    encoder reads."""

    def __init__(self, renderer: Renderer, blank: Container[str]) -> None:
        self._renderer = renderer
        self._blank = blank
        self._weights, self._supervised, self._text_weight = _RoleWeights(0, 0, 0), 0.0, 0.0
        self._length = 0
        self.pieces: list[TokenArray] = []
        self.weights: list[float] = []
        """Of the tokens of each piece."""
        self.spans: list[tuple[int, int]] = []
        self.items: list[Item] = []
        self.blanks: list[Blank] = []
        self.controls: list[Said] = []

    def begin(self, weights: _RoleWeights, supervised: float, view: str) -> None:
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
        codecs, start = self._renderer.codecs, self._length
        opening, closing = self._renderer.brackets(media.modality)
        positions, weight = codecs.positions(media), self._weighted(self._weights.media)
        self._add(opening, weight)
        self.items.append(Item(media.modality, self._length, positions, media))
        self._add(np.full(positions, self._renderer.vocabulary.specials.pad, np.int32), 0.0)
        self._add(closing, weight)
        self.spans.append((start, self._length))

    def _add_span(self, span: TokenArray) -> None:
        self.spans.append((self._length, self._length + len(span)))
        self._add(span, self._weighted(self._weights.media))

    def _weighted(self, weight: float) -> float:
        return weight * self._supervised if self._supervised else 0.0

    def _add(self, piece: TokenArray, weight: float) -> None:
        self.pieces.append(piece)
        self.weights.append(weight)
        self._length += len(piece)


class _Measuring(_Spans):
    """Tokens of a document, which are not made."""

    def __init__(self, renderer: Renderer, document: Document) -> None:
        self._renderer = renderer
        self._document = document
        self.length = 0
        self.too_long = False
        """Whether there was a text whose tokens are all the work that rendering the document is."""

    def text(self, text: str) -> None:
        if len(text) > _CACHED_LENGTH and not raw_media(self._document):
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
        opening, closing = self._renderer.brackets(media.modality)
        self.length += len(opening) + self._renderer.codecs.positions(media) + len(closing)


class _TakenApart(Visitor[Sequence[Media | Codes] | None]):
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


class _LossKind(Visitor[int]):
    """Which of the loss weights of its role a content has: its place in `_RoleWeights`."""

    def media(self, media: Media) -> int:  # noqa: ARG002
        return 1

    def codes(self, codes: Codes) -> int:  # noqa: ARG002
        return 1

    def control(self, control: Control) -> int:  # noqa: ARG002
        return 2

    def other(self, value: object) -> int:  # noqa: ARG002
        return 0


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


_LOSS_KIND, _RAW = _LossKind(), _Raw()
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
