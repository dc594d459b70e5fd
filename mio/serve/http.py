"""Bodies of requests in, JSON and events out; clients that leave are noticed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import pydantic_core
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from mio.serve.errors import ApiError, from_validation
from mio.serve.service import Answers, Service

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")

JSON = "application/json"
_LARGE = 1 << 18
"""Bytes of a body that is parsed elsewhere than in the event loop."""
EVENTS = "text/event-stream"
DONE = "data: [DONE]\n\n"


async def body_of(request: Request, kind: type[Model], service: Service) -> Model:
    """The JSON of a request. Raises `ApiError`."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise ApiError(415, f"send the body as JSON, with the header `Content-Type: {JSON}`", code="invalid_type")
    content = await request.body()
    if len(content) > _LARGE:
        return await asyncio.to_thread(_parsed, content, kind, service)
    return _parsed(content, kind, service)


def _parsed(content: bytes, kind: type[Model], service: Service) -> Model:
    # about its values, of which each takes many times its bytes in memory
    if content.count(b",") + content.count(b"[") + content.count(b"{") > service.values:
        raise ApiError(413, f"the body has more than {service.values} values", code="too_large")
    try:
        parsed = pydantic_core.from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the body is not valid JSON: {error}", code="invalid_json") from error
    return validated(parsed, kind)


def validated(content: Any, kind: type[Model]) -> Model:
    """A request of what was sent. Raises `ApiError`."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise from_validation(error, list(kind.model_fields)) from error
    except RecursionError as error:
        raise ApiError(400, "the body is nested too deeply", code="invalid_json") from error


def failure(error: ApiError) -> JSONResponse:
    """The response to a request that is refused."""
    return JSONResponse(error.content, error.status, headers=error.headers)


async def while_connected(request: Request, answer: Awaitable[T]) -> T:
    """What is awaited, unless the client leaves before it is there: then it is called off, and `ClientDisconnect` is
    raised. The body has to be read before."""
    working = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event(content: Mapping[str, Any], name: str = "") -> str:
    """A server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n"


class Stream(Response):
    """A response whose parts come as they are made. The answers are closed when it ends, however it does."""

    def __init__(
        self,
        parts: Callable[[], AsyncGenerator[str | bytes]],
        answers: Answers,
        media_type: str = EVENTS,
        on_error: Callable[[ApiError], str | None] = lambda error: event(error.content),
    ) -> None:
        self._parts, self._answers, self._on_error = parts, answers, on_error
        self.status_code, self.media_type, self.background = 200, media_type, None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            self._answers.close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with contextlib.aclosing(self._parts()) as parts:
                async for part in parts:
                    await self._give(send, part, True)
        except ApiError as error:
            told = self._on_error(error)
            if told is None:  # what was begun cannot say that it is not whole, but for its end
                raise
            await self._give(send, told, True)
        await self._give(send, b"", False)

    async def _give(self, send: Send, part: str | bytes, more: bool) -> None:
        content = part.encode() if isinstance(part, str) else part
        await send({"type": "http.response.body", "body": content, "more_body": more})
