"""Rendering: a document becomes token ids with loss weights.

Runs in the data workers for every document of every epoch: pieces of text that recur are tokenised once, a span is one
gather, and nothing is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from mio.core.contract.encoders import Arrays
from mio.core.contract.values import CodeArray, Codes, Media
from mio.core.errors import DataError
from mio.core.recipe.schema import LossConfig
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.documents import PROMPT, RESPONSE, SYSTEM, Document, Segment, Special
from mio.core.tokens.layouts import Layout, layout
from mio.core.tokens.tokenised import TokenisedText, is_tokenised
from mio.core.tokens.vocabulary import Vocabulary

TokenArray = npt.NDArray[np.int32]
WeightArray = npt.NDArray[np.float32]

_CACHED_TEXTS = 1 << 16
_CACHED_LENGTH = 256
"""Longest text, in characters, whose tokens are kept: literals, labels and short answers, not articles."""


class Item(NamedTuple):
    """Media that an encoder reads, in its place in a document."""

    modality: str
    first: int
    """Of its positions, without the tokens that open and close the span."""
    positions: int
    media: Media
    arrays: Arrays | None = None
    """What the encoder is given, once it is prepared."""


class Prompt(NamedTuple):
    """What a model reads before it answers."""

    tokens: TokenArray
    """int32 `[n]`."""
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, eq=False)
class Rendered:
    """One document as tokens."""

    tokens: TokenArray
    """int32 `[n]`."""
    weights: WeightArray
    """float32 `[n]`: weight of each token's cross-entropy when it is the target."""
    spans: TokenArray
    """int32 `[S, 2]`: first position and end of each span, which no cut may fall into."""
    items: tuple[Item, ...] = ()
    """Media that encoders read, in order; their positions hold padding."""

    def __len__(self) -> int:
        return len(self.tokens)

    def truncate(self, size: int) -> Rendered:
        """The longest beginning of at most `size` tokens that cuts no span; itself where it is no longer than that."""
        if size >= len(self.tokens):
            return self
        inside = (self.spans[:, 0] < size) & (size < self.spans[:, 1])
        if inside.any():
            size = int(self.spans[inside.argmax(), 0])
        items = tuple(item for item in self.items if item.first + item.positions <= size)
        return Rendered(self.tokens[:size], self.weights[:size], self.spans[self.spans[:, 1] <= size], items)


class _SpanPlan(NamedTuple):
    """How media of one modality in one view become ids."""

    begin: int
    end: int
    codebooks: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    """Id of each codebook's code 0, `[len(codebooks)]`."""
    sizes: npt.NDArray[np.uint64]
    """Size of every codebook of the modality, `[Q, 1]`."""
    layout: Layout


class Renderer:
    """Documents to tokens of one vocabulary, with one loss configuration. Can be pickled; its caches stay behind."""

    def __init__(self, vocabulary: Vocabulary, codecs: Codecs, loss: LossConfig) -> None:
        self._arguments = (vocabulary, codecs, loss)
        self._vocabulary = vocabulary
        self._codecs = codecs
        self._weights = {
            (PROMPT, False): loss.prompt_text,
            (PROMPT, True): loss.prompt_media,
            (SYSTEM, False): loss.prompt_text,
            (SYSTEM, True): loss.prompt_media,
            (RESPONSE, False): loss.response_text,
            (RESPONSE, True): loss.response_media,
        }
        self._special = {
            special: np.array([getattr(vocabulary.specials, special.value)], dtype=np.int32) for special in Special
        }
        self._short_text = lru_cache(maxsize=_CACHED_TEXTS)(self._encode)
        self._plan = lru_cache(maxsize=None)(self._make_plan)

    def __reduce__(self) -> tuple[Any, ...]:
        return Renderer, self._arguments

    @property
    def codecs(self) -> Codecs:
        """What spans are made by."""
        return self._codecs

    def expanded(self, document: Document) -> Document:
        """The document with the parts of an item in its place, where its modality is one of parts: it renders alike.

        Raises DataError as `render` does.
        """
        segments: list[Segment] = []
        answer = document.answer
        for index, segment in enumerate(document.segments):
            content = segment.content
            if not isinstance(content, Media | Codes) or not self._vocabulary.modality(content.modality).parts:
                segments.append(segment)
                continue
            parts = self._parts(content)
            segments += [segment._replace(content=part) for part in parts]
            answer += len(parts) - 1 if index < document.answer else 0
        return Document(tuple(segments), answer)

    def render(self, document: Document, blank: Container[str] = ()) -> Rendered:
        """Tokens, weights and spans of a document.

        Args:
            blank: modalities whose media are not encoded: their spans are as long as they will be, and hold code 0.

        Raises DataError, naming modality, item and codebook, for codes that do not fit their declaration.
        """
        pieces: list[TokenArray] = []
        read: list[Media | None] = []
        weights: list[float] = []
        spans: list[tuple[int, int]] = []
        length = 0
        for segment in document.segments:
            media = self._pieces(segment, pieces, read, blank)
            weight = self._weights[segment.role, media] * segment.supervised if segment.supervised else 0.0
            for piece in pieces[len(weights) :]:
                weights.append(weight)
                if media:
                    spans.append((length, length + len(piece)))
                length += len(piece)
        of_tokens = np.repeat(np.array(weights, dtype=np.float32), [len(piece) for piece in pieces])
        items = self._items(pieces, read)
        for item in items:  # what an encoder reads is no target
            of_tokens[item.first : item.first + item.positions] = 0
        return Rendered(
            np.concatenate(pieces, dtype=np.int32), of_tokens, np.array(spans, dtype=np.int32).reshape(-1, 2), items
        )

    def prompt(self, document: Document) -> Prompt:
        """What comes before the model's answer: always a beginning of what `render` gives."""
        pieces: list[TokenArray] = []
        read: list[Media | None] = []
        for segment in document.segments[: document.answer]:
            self._pieces(segment, pieces, read)
        return Prompt(np.concatenate(pieces, dtype=np.int32), self._items(pieces, read))

    def _items(self, pieces: Sequence[TokenArray], read: Sequence[Media | None]) -> tuple[Item, ...]:
        """Items among the pieces of a document; `read` has the media of those that are spans of an encoder."""
        if not any(read):
            return ()
        items, length = [], 0
        for piece, media in zip(pieces, read, strict=True):
            if media is not None:
                opening = bool(self._vocabulary.modality(media.modality).begin)
                items.append(Item(media.modality, length + opening, self._codecs.positions(media), media))
            length += len(piece)
        return tuple(items)

    def learns(self, document: Document) -> bool:
        """Whether anything of a document has a weight in the loss. Takes next to no time."""
        for content, role, supervised, _ in reversed(document.segments):
            if supervised and self._weights[role, not isinstance(content, str | Special)] > 0 and content != "":
                return True
        return False

    def measure(self, document: Document) -> int | None:
        """Tokens of a document, without making them: media are not encoded (see `Codecs.frames`). None where that is as
        much work as `render`: the document holds long texts that do not bring their tokens, and no media.

        Raises DataError as `render` does.
        """
        length = 0
        for content, _, _, view in document.segments:
            if isinstance(content, TokenisedText):
                length += len(content.tokens)
            elif isinstance(content, str):
                if len(content) > _CACHED_LENGTH and not raw_media(document):
                    return None
                length += len(self._text(content))
            elif isinstance(content, Special):
                length += 1
            else:
                parts = self._vocabulary.modality(content.modality).parts
                for item in self._parts(content) if parts else (content,):
                    if self._codecs.encoded(item.modality, view):
                        length += len(self._encoded(item))
                        continue
                    plan = self._plan(item.modality, view)
                    if isinstance(item, Media):
                        length += 2 + len(plan.codebooks) * self._frames(item)
                    else:
                        length += 2 + self._carried(item, plan).size
        return length

    def span(self, media: Media, view: str) -> TokenArray:
        """`<begin> codes <end>` of one item, int32. Raises DataError as `render` does."""
        return self._span(media, view)

    def _text(self, text: str) -> TokenArray:
        return self._short_text(text) if len(text) <= _CACHED_LENGTH else self._encode(text)

    def _frames(self, media: Media) -> int:
        """Frames of an item that is not encoded."""
        declared, frames = self._vocabulary.modality(media.modality), self._codecs.frames(media)
        _check_frames(declared.name, media.key, frames, declared.frames.minimum, declared.frames.maximum)
        return frames

    def _pieces(
        self, segment: Segment, pieces: list[TokenArray], read: list[Media | None], blank: Container[str] = ()
    ) -> bool:
        """Appends the segment's tokens, one array per span, and what an encoder reads in each; returns whether they are
        media."""
        media = self._append(segment, pieces, read, blank)
        read.extend([None] * (len(pieces) - len(read)))
        return media

    def _append(
        self, segment: Segment, pieces: list[TokenArray], read: list[Media | None], blank: Container[str]
    ) -> bool:
        content = segment.content
        if isinstance(content, TokenisedText):
            pieces.append(content.tokens)
            return False
        if isinstance(content, str):
            pieces.append(self._text(content))
            return False
        if isinstance(content, Special):
            pieces.append(self._special[content])
            return False
        modality = self._vocabulary.modality(content.modality)
        for item in self._parts(content) if modality.parts else (content,):
            if self._codecs.encoded(item.modality, segment.view):
                pieces.append(self._encoded(item))
                read.append(cast("Media", item))
            else:
                pieces.append(self._span(item, segment.view, blank))
                read.append(None)
        return True

    def _encoded(self, content: Media | Codes) -> TokenArray:
        """`<begin> positions <end>` of one item that an encoder reads, as far as the modality has these tokens."""
        vocabulary, modality = self._vocabulary, self._vocabulary.modality(content.modality)
        if isinstance(content, Codes):
            raise DataError(f"`{modality.name}` is read by an encoder, which needs the media: it is given as codes")
        span = np.full(self._codecs.positions(content), vocabulary.specials.pad, np.int32)
        opening = [vocabulary.begin(modality.name)] if modality.begin else []
        closing = [vocabulary.end(modality.name)] if modality.end else []
        return np.concatenate([opening, span, closing], dtype=np.int32, casting="unsafe")

    def _parts(self, content: Media | Codes) -> Sequence[Media | Codes]:
        """Parts of an item of a modality of parts."""
        modality = self._vocabulary.modality(content.modality)
        if isinstance(content, Codes):
            raise DataError(f"`{modality.name}` has no codes of its own: give those of each `{modality.parts}` in it")
        parts = self._codecs.split(content)
        _check_frames(modality.name, _name(content), len(parts), modality.frames.minimum, modality.frames.maximum)
        return parts

    def _encode(self, text: str) -> TokenArray:
        tokens = np.array(self._codecs.text.encode(text), dtype=np.int32)
        tokens.flags.writeable = False
        return tokens

    def _make_plan(self, name: str, view: str) -> _SpanPlan:
        vocabulary = self._vocabulary
        modality = vocabulary.modality(name)
        if not modality.codebooks:
            raise DataError(
                f"`{name}` has no codes: give it as a string"
                if modality.text
                else f"`{name}` is only read, by an encoder: it cannot be part of an answer"
            )
        codebooks = modality.view(view)
        return _SpanPlan(
            vocabulary.begin(name),
            vocabulary.end(name),
            np.array(codebooks),
            np.array([vocabulary.code_ids(name, codebook).start for codebook in codebooks]),
            np.array(modality.codebooks, dtype=np.uint64)[:, None],
            layout(modality.layout),
        )

    def _span(self, content: Media | Codes, view: str, blank: Container[str] = ()) -> TokenArray:
        """`<begin> codes <end>` of one item."""
        plan = self._plan(content.modality, view)
        if isinstance(content, Media) and content.modality in blank:
            carried = np.zeros((len(plan.codebooks), self._frames(content)), np.int64)
        else:
            carried = self._carried(content, plan)
        cells, codebook_of = plan.layout.order(*carried.shape)
        span = np.empty(len(cells) + 2, dtype=np.int32)
        span[0] = plan.begin
        span[-1] = plan.end
        np.add(carried.ravel()[cells], plan.offsets[codebook_of], out=span[1:-1], casting="unsafe")
        return span

    def _carried(self, content: Media | Codes, plan: _SpanPlan) -> CodeArray:
        """Codes `[codebooks of the span, F]` of one item. All that it holds are in their codebooks."""
        modality = self._vocabulary.modality(content.modality)
        codes = self._codecs.codes(content)
        books: Sequence[int] = content.codebooks if isinstance(content, Codes) else ()
        if books and books[-1] >= len(plan.sizes):
            raise DataError(f"`{modality.name}` {_name(content)}: there is no codebook {books[-1]}")
        sizes = plan.sizes[list(books)] if books else plan.sizes
        if codes.ndim != 2 or len(codes) != len(sizes) or codes.dtype.kind not in "iu":
            raise DataError(
                f"`{modality.name}` {_name(content)}: codes are {codes.dtype} {list(codes.shape)}, "
                f"they must be integers of shape [{len(sizes)}, frames]"
            )
        frames = codes.shape[1]
        _check_frames(modality.name, _name(content), frames, modality.frames.minimum, modality.frames.maximum)
        wrong = codes.view(np.uint64) >= sizes  # a negative code becomes a huge one
        if wrong.any():
            row, frame = np.argwhere(wrong)[0]
            codebook = books[row] if books else row
            raise DataError(
                f"`{modality.name}` {_name(content)}: code {codes[row, frame]} at frame {frame} is outside "
                f"codebook {codebook} of {modality.codebooks[codebook]} codes"
            )
        if books:
            return Codes(modality.name, codes, tuple(books)).of(plan.codebooks.tolist())
        return codes if len(plan.codebooks) == len(codes) else codes[plan.codebooks]


def raw_media(document: Document, without: Callable[[str, str], bool] | None = None) -> list[Media]:
    """The items of a document that are not tokenised yet, in order; `without` those of which it is true, by modality
    and view."""
    return [
        segment.content
        for segment in document.segments
        if isinstance(segment.content, Media)
        and not is_tokenised(segment.content)
        and not (without and without(segment.content.modality, segment.view))
    ]


def _check_frames(modality: str, name: str, frames: int, minimum: int, maximum: int) -> None:
    if not minimum <= frames <= maximum:
        raise DataError(f"`{modality}` {name} has {frames} frames, a span has {minimum} to {maximum}")


def _name(content: Media | Codes) -> str:
    return content.key if isinstance(content, Media) else "given as codes"
