"""One answer while it comes: events of the engine become text, media, control tokens, and a reason of its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from mio.core.contract.controls import SILENCE, Control
from mio.core.contract.values import Codes, Media
from mio.core.generation import requests
from mio.core.generation.model import Model
from mio.core.generation.reading import AnswerReader, Piece
from mio.core.generation.requests import Event, Finished, MadeMedia, Ticket, Token
from mio.core.tokens.visitor import Visitor
from mio.serve.engine_thread import EngineThread
from mio.serve.errors import ApiError
from mio.serve.stopping import StopStrings

STOP, LENGTH = "stop", "length"
"""Why an answer is over, in OpenAI's words."""


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Given:
    """An item of media that is whole."""

    modality: str
    content: Any
    value: Codes | Media
    """By which the model can be given it again."""


@dataclass(frozen=True)
class Said:
    """A control token."""

    name: str
    silent: bool
    """Whether nothing of the answer is meant for anybody."""


@dataclass(frozen=True)
class Over:
    """The answer is over."""

    reason: str


Part = Text | Given | Said | Over


@dataclass
class Answer:
    """An answer that the engine makes.

    Args:
        output: modality that was asked for; see `decode_answer` for one of parts.
        executor: where media are decoded.
    """

    model: Model
    engine: EngineThread
    executor: Executor
    stop: Sequence[str] = ()
    output: str = ""
    ticket: Ticket | None = None
    tokens: list[int] = field(default_factory=list)
    """Of the answer so far."""
    media_tokens: dict[str, int] = field(default_factory=dict)
    """Tokens of spans, by modality."""

    def __post_init__(self) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._reader = AnswerReader(self.model.vocabulary, self.model.codecs.text)
        self._stops = StopStrings(self.stop)
        self._joined = self.model.codecs.modalities[self.output].parts if self.output else ""
        self._together: list[tuple[Any, Codes | Media]] = []
        """Parts of the item that is being made."""
        self._span = ""
        """Modality of the span that is open."""

    def listen(self, event: Event) -> None:
        """Takes an event, in the event loop."""
        self._events.put_nowait(event)

    def cancel(self) -> None:
        """Calls the answer off, unless it is over."""
        if self.ticket is not None:
            self.engine.cancel(self.ticket)

    async def parts(self) -> AsyncIterator[Part]:
        """What the answer consists of, as it comes. The last one says why it is over.

        Raises:
            ApiError: it could not be made.
        """
        while True:
            event = await self._events.get()
            pieces, reason = self._read(event)
            for piece in pieces:
                async for part in self._given(piece):
                    yield part
                if self._stops.found:
                    self.cancel()
                    yield Over(STOP)
                    return
            if reason:
                if held := self._stops.flush():
                    yield Text(held)
                async for part in self._close():
                    yield part
                yield Over(reason)
                return

    def _read(self, event: Event) -> tuple[list[Piece], str]:
        """Pieces that are complete with an event, and why the answer is over, if it is."""
        if isinstance(event, Token):
            if event.id == self.model.grammar.stop:
                return [], ""
            self._count(event.id)
            return self._reader.push(event.id), ""
        if isinstance(event, MadeMedia):
            return self._reader.made(event.media), ""
        assert isinstance(event, Finished)
        if event.reason == requests.FAILED:
            raise ApiError(500, f"the answer could not be made: {event.error}", code="engine_failed")
        return self._reader.finish(), LENGTH if event.reason == requests.LENGTH else STOP

    def _count(self, token: int) -> None:
        self.tokens.append(token)
        opened = self.model.grammar.opens.get(token)
        self._span = opened or self._span
        if self._span:
            self.media_tokens[self._span] = self.media_tokens.get(self._span, 0) + 1
            if opened is None and token == self.model.grammar.ends.get(self._span, self._end(self._span)):
                self._span = ""

    def _end(self, modality: str) -> int:
        return self.model.vocabulary.end(modality)

    async def _given(self, piece: Piece) -> AsyncIterator[Part]:
        kind, content = _KIND.visit(piece)
        if kind == "text":
            if text := self._stops.push(content):
                async for part in self._close():
                    yield part
                yield Text(text)
            return
        if held := self._stops.flush():
            yield Text(held)
        if kind == "control":
            action = self.model.vocabulary.controls.tokens[content].action
            yield Said(content, action == SILENCE)
            return
        decoded = await self._decoded(content)
        if content.modality == self._joined:
            self._together.append((decoded, content))
            return
        async for part in self._close():
            yield part
        yield Given(content.modality, decoded, content)

    async def _close(self) -> AsyncIterator[Part]:
        """The item whose parts have been made one after the other."""
        if not self._together:
            return
        parts, self._together = self._together, []
        content = await self._run(self.model.codecs.decode, self.output, [decoded for decoded, _ in parts])
        value = Media(self.output, tuple(codes for _, codes in parts), "")
        yield Given(self.output, content, value)

    async def _decoded(self, value: Codes | Media) -> Any:
        if isinstance(value, Media):
            return value.data
        view = self.model.codecs.modalities[value.modality].view("generate")
        return await self._run(self.model.codecs.decode, value.modality, value.of(view))

    async def _run(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.executor, function, *arguments)


class _Kind(Visitor[tuple[str, Any]]):
    def text(self, text: str) -> tuple[str, Any]:
        return "text", text

    def codes(self, codes: Codes) -> tuple[str, Any]:
        return "media", codes

    def media(self, media: Media) -> tuple[str, Any]:
        return "media", media

    def control(self, control: Control) -> tuple[str, Any]:
        return "control", control.name


_KIND = _Kind()
