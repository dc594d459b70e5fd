"""Rendering: a document becomes token ids with loss weights.

Runs in the data workers for every document of every epoch: pieces of text that recur are tokenised once, a span is one
gather, and nothing is written twice.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mio.core.contract.controls import Control
from mio.core.contract.values import Codes, Media
from mio.core.recipe.schema import LossConfig
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.documents import PROMPT, RESPONSE, SYSTEM, UNDERSTAND, Document, Segment, Special
from mio.core.tokens.rendered import Prompt, Rendered
from mio.core.tokens.spans import SpanPlan, TokenArray, check_frames, check_parts
from mio.core.tokens.tokenised import CodedMedia
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.tokens.writing import LONG, Carrier, Measuring, RoleWeights, TakenApart, Weighing, Writing

_CACHED_TEXTS = 1 << 16


class Renderer:
    """Documents to tokens of one vocabulary, with one loss configuration. Can be pickled; its caches stay behind."""

    def __init__(self, vocabulary: Vocabulary, codecs: Codecs, loss: LossConfig) -> None:
        self._arguments = (vocabulary, codecs, loss)
        self.vocabulary = vocabulary
        self.codecs = codecs
        """What spans are made by."""
        prompt = RoleWeights(loss.prompt_text, loss.prompt_media, 0.0)
        response = RoleWeights(loss.response_text, loss.response_media, loss.control)
        self._head_weights = loss.heads
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
        answer, apart = document.answer, TakenApart(self)
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
        written = self._written(document.segments, blank, asked=False)
        sizes = [len(piece) for piece in written.pieces]
        return Rendered(
            np.concatenate(written.pieces, dtype=np.int32),
            np.repeat(np.array(written.weights, dtype=np.float32), sizes),
            np.array(written.spans, dtype=np.int32).reshape(-1, 2),
            tuple(written.items),
            tuple(written.blanks),
            tuple(written.controls),
            tuple(written.made),
        )

    def prompt(self, document: Document) -> Prompt:
        """What comes before the model's answer: always a beginning of what `render` gives, but for positions of heads'
        own, which nothing behind them sees."""
        written = self._written(document.segments[: document.answer], (), asked=True)
        return Prompt(np.concatenate(written.pieces, dtype=np.int32), tuple(written.items))

    def _written(self, segments: Iterable[Segment], blank: Container[str], asked: bool) -> Writing:
        written, methods, weights = Writing(self, blank, asked), Writing.methods, self._weights
        for content, role, supervised, view in segments:
            written.begin(weights[role], supervised, view)
            methods[type(content)](written, content)
        return written

    def learns(self, document: Document) -> bool:
        """Whether anything of a document has a weight in the loss. Takes next to no time."""
        weighing, methods = Weighing(self), Weighing.methods
        for content, role, supervised, _ in reversed(document.segments):
            weighing.weights = self._weights[role]
            if supervised and methods[type(content)](weighing, content) > 0:
                return True
        return False

    def measure(self, document: Document) -> int | None:
        """Tokens of a document, without making them: media are not encoded (see `Codecs.frames`). None where that is as
        much work as `render`: the document holds long texts that do not bring their tokens, and no media.

        Raises DataError as `render` does.
        """
        measured, methods = Measuring(self, document), Measuring.methods
        for content, role, supervised, view in document.segments:
            measured.view = view
            measured.learnt = self._weights[role].media * supervised
            methods[type(content)](measured, content)
            if measured.too_long:
                return None
        return measured.length

    def head_weight(self, modality: str) -> float:
        """Weight of the loss of a modality's head beside that of tokens."""
        return self._head_weights.get(modality, 1.0)

    def span(self, media: Media, view: str) -> TokenArray:
        """`<begin> codes <end>` of one item, int32. Raises DataError as `render` does."""
        plan = self.plan(media.modality, view)
        return plan.span(plan.carried(self.codecs.codes(media), media.key))

    def text(self, text: str) -> TokenArray:
        """Tokens of a text."""
        return self._short_text(text) if len(text) <= LONG else self._encode(text)

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
        names = self.vocabulary.modality(media.modality).part_names or (media.modality,)
        return all(self.carrier(name, view) is Carrier.CODES for name in names)

    def coded(self, media: CodedMedia) -> Sequence[Codes]:
        """The codes that an item brings, of parts one by one."""
        if isinstance(media.codes, Codes):
            return (media.codes,)
        check_parts(self.vocabulary.modality(media.modality), media.key, media.codes)
        return media.codes

    def parts(self, media: Media) -> Sequence[Media | Codes]:
        """Parts of an item of a modality of parts."""
        parts = self.codecs.split(media)
        check_parts(self.vocabulary.modality(media.modality), media.key, parts)
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
        if not self.codecs.by_network(name, view):
            return Carrier.CODES
        return Carrier.ENCODER if view == UNDERSTAND else Carrier.HEAD

    def _plan(self, name: str, view: str) -> SpanPlan:
        return SpanPlan.of(self.vocabulary, name, view)
