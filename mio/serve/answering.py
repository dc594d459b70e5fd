"""One answer while it comes: events of the engine become what is given out, without holding up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from typing import Any

from mio.core.errors import DataError
from mio.core.generation import requests
from mio.core.generation.requests import Event, Finished, Request, Ticket
from mio.core.generation.streaming import AnswerEvent, AnswerStream, Over
from mio.serve.engine_thread import EngineThread
from mio.serve.errors import ApiError


class Answer:
    """An answer that the engine makes.

    Args:
        executor: where media are decoded.
    """

    def __init__(self, stream: AnswerStream, engine: EngineThread, executor: Executor) -> None:
        self._stream, self._engine, self._executor = stream, engine, executor
        self._events: asyncio.Queue[Event | ApiError] = asyncio.Queue()
        self.ticket: Ticket | None = None
        self.over: Over | None = None
        """Its end, once it was given out."""
        self._called_off = False

    def submit(self, request: Request) -> None:
        """Has the engine make it. Not for the event loop's thread (see `EngineThread.submit`)."""
        self.ticket = self._engine.submit(request, self._events.put_nowait)
        if self._called_off:  # meanwhile
            self._engine.cancel(self.ticket)

    def cancel(self) -> None:
        """Calls the answer off, unless it is over."""
        self._called_off = True
        if self.ticket is not None:
            self._engine.cancel(self.ticket)

    def fail(self, error: ApiError) -> None:
        """Has whoever waits for it be told that it will not come."""
        self._events.put_nowait(error)

    @property
    def tokens(self) -> list[int]:
        """Its tokens so far."""
        return self.ticket.answer.tokens if self.ticket is not None else []

    async def events(self) -> AsyncIterator[AnswerEvent]:
        """What is given out, as it comes; `Over` is the last.

        Raises:
            ApiError: the answer could not be made, or not be decoded.
        """
        while self.over is None:
            come = [await self._events.get()]
            while not self._events.empty():
                come.append(self._events.get_nowait())
            for event in come:
                if isinstance(event, ApiError):
                    raise event
            try:
                given = await self._taken(come)
            except DataError as error:
                raise ApiError(500, f"the answer cannot be decoded: {error}", code="undecodable") from error
            for one in given:
                if isinstance(one, Over):
                    self.over = one
                    if one.reason == requests.FAILED:
                        raise ApiError(500, f"the answer could not be made: {one.error}", code="engine_failed")
                yield one

    async def _taken(self, come: Sequence[Any]) -> list[AnswerEvent]:
        """What these events give out. Whatever may decode media does so in another thread."""
        given: list[AnswerEvent] = []
        for place, event in enumerate(come):
            if self._stream.decodes or isinstance(event, Finished):
                loop = asyncio.get_running_loop()
                return given + await loop.run_in_executor(self._executor, self._take_all, come[place:])
            given += self._stream.take(event)
        return given

    def _take_all(self, come: Sequence[Any]) -> list[AnswerEvent]:
        return [one for event in come for one in self._stream.take(event)]
