"""What an answer gives out while it is made: pieces of text, media as soon as their frames are whole, and its end.

Media are decoded where `take` is called, once, whether piece by piece or as a whole. So somebody whose thread must not
wait for that (the one that steps the engine, an event loop) hands the events on and has `take` called elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mio.core.contract.controls import CONTROL, Control
from mio.core.contract.tasks import Answer
from mio.core.contract.values import TEXT, Codes, Media, Value
from mio.core.errors import UserError
from mio.core.generation.answer import Joined
from mio.core.generation.chunks import GrowingMedia
from mio.core.generation.model import Model
from mio.core.generation.reading import AnswerReader, Piece
from mio.core.generation.requests import STOP, Event, Finished, MadeMedia, Request, Token
from mio.core.generation.stopping import StopStrings
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.controls import is_silent
from mio.core.tokens.rendered import Prompt
from mio.core.tokens.visitor import Visitor
from mio.core.tokens.vocabulary import Vocabulary


@dataclass(frozen=True)
class TextPiece:
    """Text of a part that goes on: whole characters, of which no later token changes one."""

    part: int
    """Index in `Answer.parts`."""
    text: str


@dataclass(frozen=True)
class MediaChunk:
    """A piece of the media of a part. The pieces of a part, joined (see `contract/streams.py`), are its media."""

    part: int
    modality: str
    content: Any


@dataclass(frozen=True)
class MediaComponent:
    """One of the media that a part of another modality consists of, a sequence of such, is complete."""

    part: int
    modality: str
    """Its own; the part's is the modality that was asked for."""
    content: Any


@dataclass(frozen=True)
class WholeMedia:
    """The media of a part are complete. Comes after their pieces and components."""

    part: int
    modality: str
    content: Any
    value: Codes | Media
    """By which the model can be given it again, in a further turn."""


@dataclass(frozen=True)
class SaidControl:
    """A control token was said."""

    part: int
    name: str


@dataclass(frozen=True)
class Usage:
    """Tokens, positions by which media are read included, by modality; control tokens count as text."""

    prompt: Mapping[str, int]
    answer: Mapping[str, int]
    """Without the stop token."""

    @property
    def prompt_tokens(self) -> int:
        return sum(self.prompt.values())

    @property
    def answer_tokens(self) -> int:
        return sum(self.answer.values())


@dataclass(frozen=True)
class Over:
    """The answer is over. Always the last."""

    reason: str
    """See `requests.py`."""
    usage: Usage
    answer: Answer
    """As `read_answer` reads it. A span that was broken off is no part of it, whatever was given out of it."""
    error: UserError | None = None
    """Why it could not go on."""


AnswerEvent = TextPiece | MediaChunk | MediaComponent | WholeMedia | SaidControl | Over


class AnswerStream:
    """Reads what the engine tells of one request.

    Args:
        output: a modality that was asked for: of one that consists of another's spans, those that follow each other
            become one item (see `decode_answer`).
        stop: further strings that end the answer, beside the request's own.
    """

    def __init__(self, model: Model, request: Request, output: str = "", stop: Sequence[str] = ()) -> None:
        self._model, self._request = model, request
        self._reader = AnswerReader(model.vocabulary, model.codecs.text)
        self._parts = _Parts(model.codecs, output, [*request.decoding.stop, *stop])
        self._counts: Counter[str] = Counter()
        self._closing = ""
        """Modality of the span that a head has made and that the next token closes."""

    @property
    def growing(self) -> str:
        """Modality of the span that is being written; empty where none is."""
        return self._reader.open

    @property
    def decodes(self) -> bool:
        """Whether taking the next token may have media decoded, which takes longer than reading it."""
        return bool(self.growing)

    @property
    def stopped(self) -> bool:
        """Whether a string that ends the answer was said: the request can be called off, what follows is left out."""
        return self._parts.stopped

    @property
    def values(self) -> list[Value]:
        """The answer so far as the model wrote it, for a further turn: text brings its tokens. A string that ends the
        answer is a part of it."""
        return self._reader.parts

    def take(self, event: Event) -> list[AnswerEvent]:
        """What is to be given out after this event.

        Raises:
            DataError: a span cannot be decoded.
        """
        if isinstance(event, Token):
            if event.id != self._model.grammar.stop and not self.stopped:
                self._token(event.id)
        elif isinstance(event, MadeMedia):
            self._made(event.media)
        else:
            self._parts.add(self._reader.finish())
            self._parts.close()
            return [*self._parts.told(), self._over(event)]
        return self._parts.told()

    def _token(self, token: int) -> None:
        before, closing, self._closing = self._reader.open, self._closing, ""
        self._parts.add(self._reader.push(token))
        opened = self._reader.open
        self._counts[opened or before or closing or TEXT] += 1
        if opened and not before:
            self._parts.open(GrowingMedia(self._model.codecs, self._model.vocabulary, opened))
        elif opened:
            self._parts.grow(token)

    def _made(self, media: Media) -> None:
        name, codecs = media.modality, self._model.codecs
        self._counts[name] += codecs.positions(media) if codecs.made_positions(name) else 0
        self._closing = name if codecs.modalities[name].end else ""
        self._parts.add(self._reader.made(media))

    def _over(self, finished: Finished) -> Over:
        answer = self._parts.answer
        answer = replace(answer, silent=is_silent(answer.controls, self._model.vocabulary.controls))
        usage = Usage(tokens_by_modality(self._request.prompt, self._model.vocabulary), dict(self._counts))
        return Over(STOP if self.stopped else finished.reason, usage, answer, finished.error)


class _Parts(Visitor[None]):
    """The parts of an answer, of pieces that come one by one, and what is told of them."""

    def __init__(self, codecs: Codecs, output: str, stop: Sequence[str]) -> None:
        self._codecs = codecs
        self._joining = codecs.modalities[output] if output else None
        self._stops = StopStrings(stop)
        self._told: list[AnswerEvent] = []
        self._parts: list[tuple[str, Any]] = []
        self._codes: list[Codes] = []
        self._speaking = False
        """Whether the last part is text that may go on."""
        self._joined: Joined | None = None
        """The item that is being made of other media: each with what it was decoded from."""
        self._growing: GrowingMedia | None = None
        """Of the span that is open."""

    @property
    def stopped(self) -> bool:
        return self._stops.found

    @property
    def answer(self) -> Answer:
        return Answer(tuple(self._parts), tuple(self._codes))

    def told(self) -> list[AnswerEvent]:
        """What is new since the last time."""
        told, self._told = self._told, []
        return told

    def add(self, pieces: Iterable[Piece]) -> None:
        """Takes pieces of the answer."""
        for piece in pieces:
            if not self.stopped:
                self.visit(piece)

    def open(self, media: GrowingMedia) -> None:
        """A span begins."""
        self._hush()
        self._growing = media

    def grow(self, token: int) -> None:
        """Takes a token of the span that is open."""
        assert self._growing is not None
        piece = self._growing.push(token)
        if piece is not None:
            self._chunk(self._growing.modality, piece)

    def close(self) -> None:
        """The answer is over."""
        self._hush()
        self._complete()

    def text(self, text: str) -> None:
        self._say(self._stops.push(text))

    def control(self, control: Control) -> None:
        self.close()
        self._told.append(SaidControl(len(self._parts), control.name))
        self._parts.append((CONTROL, control.name))

    def codes(self, codes: Codes) -> None:
        assert self._growing is not None
        media, self._growing = self._growing, None
        last, content = media.close(codes)
        if last is not None:
            self._chunk(codes.modality, last)
        self._codes.append(codes)
        self._item(codes.modality, content, codes)

    def media(self, media: Media) -> None:
        self._growing = None
        self._hush()
        self._item(media.modality, media.data, media)

    def _say(self, text: str) -> None:
        if not text:
            return
        self._complete()
        if not self._speaking:
            self._parts.append((TEXT, ""))
            self._speaking = True
        part = len(self._parts) - 1
        self._parts[part] = (TEXT, self._parts[part][1] + text)
        self._told.append(TextPiece(part, text))

    def _hush(self) -> None:
        """Something else than text comes."""
        self._say(self._stops.flush())
        self._speaking = False

    def _chunk(self, modality: str, piece: Any) -> None:
        if not self._joins(modality):
            self._complete()
            self._told.append(MediaChunk(len(self._parts), modality, piece))

    def _item(self, modality: str, content: Any, value: Codes | Media) -> None:
        if self._joins(modality):
            assert self._joining is not None
            if self._joined is not None and not self._joined.takes(modality):
                self._complete()
            self._joined = self._joined or Joined(self._joining)
            self._joined.parts.append((modality, (content, value)))
            self._told.append(MediaComponent(len(self._parts), modality, content))
            if not self._joining.next_part(len(self._joined.parts)):
                self._complete()
            return
        self._complete()
        self._whole(modality, content, value)

    def _joins(self, modality: str) -> bool:
        return self._joining is not None and modality in self._joining.part_names

    def _complete(self) -> None:
        """The item whose components have followed each other is complete; or they stand for themselves."""
        if self._joined is None:
            return
        joined, self._joined = self._joined, None
        if joined.whole:
            contents, values = zip(*(part for _, part in joined.parts), strict=True)
            name = joined.declared.name
            self._whole(name, self._codecs.decode(name, list(contents)), Media(name, values, ""))
        else:
            for name, (content, value) in joined.parts:
                self._whole(name, content, value)

    def _whole(self, modality: str, content: Any, value: Codes | Media) -> None:
        self._told.append(WholeMedia(len(self._parts), modality, content, value))
        self._parts.append((modality, content))


def tokens_by_modality(prompt: Prompt, vocabulary: Vocabulary) -> dict[str, int]:
    """Positions of a prompt by modality."""
    owner = {block.name: block.modality for block in vocabulary.blocks}
    for one in vocabulary.modalities:
        owner |= {border: one.name for border in (one.begin, one.end) if border}
    counts: Counter[str] = Counter()
    for index, count in enumerate(np.bincount(vocabulary.block_of[prompt.tokens], minlength=len(vocabulary.blocks))):
        counts[owner[vocabulary.blocks[index].name] or TEXT] += int(count)
    for item in prompt.items:  # whose positions hold padding
        counts[item.modality] += item.positions
        counts[TEXT] -= item.positions
    return {name: count for name, count in counts.items() if count}
