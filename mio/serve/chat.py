"""`/v1/chat/completions`."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from mio.core.contract.values import TEXT
from mio.serve.errors import unsupported
from mio.serve.http import DONE, EVENTS, body_of, event
from mio.serve.jobs import respond, stream
from mio.serve.protocol.chat import ChatRequest
from mio.serve.replies import Reply, usage
from mio.serve.service import Answers, Asked, Service


def router(service: Service) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        asked = await body_of(request, ChatRequest, service)
        job = _Chat(service, asked)
        return await (stream if asked.stream else respond)(request, service, job)

    return routes


class _Chat:
    """A request for the next message of a conversation. Raises `ApiError` for what this run cannot do."""

    media_type = EVENTS

    def __init__(self, service: Service, request: ChatRequest) -> None:
        service.check_model(request.model)
        self._service, self._request = service, request
        self.count = service.choices(request.n)
        self._output = service.wanted(request.modalities)
        self._format = request.audio.format if request.audio else "wav"
        if request.audio is not None and not service.abilities.of_type("audio", service.abilities.writes):
            raise unsupported("audio", "`audio`: this run makes no sound")
        limit = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
        self._decoding = service.decoding(request, self._output, limit)
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())

    async def ask(self, answers: Answers) -> None:
        """Has the engine answer."""
        service, request = self._service, self._request
        output = self._output or ""
        need = service.need(self._output, self._decoding)

        def prompt() -> Any:
            return service.prompt(service.conversations.document(request.messages, output))

        rendered = await service.run(prompt)
        named = "" if output == TEXT else output
        asked = Asked([rendered] * self.count, self._decoding, need, service.seeds(request, self.count), named)
        await service.ask(answers, asked)

    async def whole(self, answers: Answers) -> Response:
        """The response."""
        replies = [Reply(self._service, self._format, streamed=False) for _ in answers.each]
        async for number, given in answers.events():
            await replies[number].take(given)
        choices = [
            {"index": number, "message": await reply.message(), "logprobs": None, "finish_reason": reply.reason}
            for number, reply in enumerate(replies)
        ]
        return JSONResponse({**self._head("chat.completion"), "choices": choices, "usage": usage(answers)})

    async def streamed(self, answers: Answers) -> AsyncGenerator[str]:
        """The response's events."""
        options = self._request.stream_options
        with_usage = bool(options and options.include_usage)
        replies = [Reply(self._service, self._format, streamed=True) for _ in answers.each]
        for number in range(len(replies)):
            yield self._chunk(number, {"role": "assistant", "content": ""}, with_usage)
        async for number, given in answers.events():
            reply = replies[number]
            if delta := await reply.take(given):
                yield self._chunk(number, delta, with_usage)
            if reply.reason:
                for delta in await reply.rest():
                    yield self._chunk(number, delta, with_usage)
                yield self._chunk(number, reply.extras(), with_usage, reply.reason)
        if with_usage:
            yield event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(answers)})
        yield DONE

    def _chunk(self, number: int, delta: dict[str, Any], with_usage: bool, reason: str | None = None) -> str:
        choice = {"index": number, "delta": delta, "logprobs": None, "finish_reason": reason}
        rest = {"usage": None} if with_usage else {}
        return event({**self._head("chat.completion.chunk"), "choices": [choice], **rest})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._service.settings.name}
