"""`/v1/images/generations`: a text drawn."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from mio.core.generation.streaming import Over, WholeMedia
from mio.serve.conversations import check_characters
from mio.serve.errors import ApiError
from mio.serve.giving import image_file
from mio.serve.http import EVENTS, body_of, event
from mio.serve.jobs import respond, stream
from mio.serve.protocol.media import ImagesRequest
from mio.serve.receiving import IMAGE as PICTURE
from mio.serve.service import Answers, Asked, Service
from mio.serve.speech import token_usage
from mio.serve.templates import IMAGE


def router(service: Service) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/images/generations")
    async def images(request: Request) -> Response:
        asked = await body_of(request, ImagesRequest, service)
        return await (stream if asked.stream else respond)(request, service, _Pictures(service, asked))

    return routes


class _Pictures:
    """Pictures to be drawn. Raises `ApiError` for what this run cannot do."""

    media_type = EVENTS

    def __init__(self, service: Service, request: ImagesRequest) -> None:
        service.check_model(request.model)
        check_characters(len(request.prompt), service.characters, "prompt")
        self._service, self._request = service, request
        self._modality = service.abilities.writer(PICTURE, request.modality, "")
        self.count = service.choices(request.n)
        self._decoding = service.decoding(request, self._modality)
        self._format = request.output_format or "png"
        self._created = int(time.time())

    async def ask(self, answers: Answers) -> None:
        service, modality = self._service, self._modality
        question = service.questions.of(IMAGE, modality)
        prompt = await service.run(lambda: service.prompt(question.document(self._request.prompt)))
        seeds = service.seeds(self._request, self.count)
        need = service.need(modality, self._decoding)
        await service.ask(answers, Asked([prompt] * self.count, self._decoding, need, seeds, modality))

    async def whole(self, answers: Answers) -> Response:
        drawn = {number: (content, size) async for number, content, size in self._drawn(answers)}
        pictures = [{"b64_json": base64.b64encode(drawn[number][0]).decode()} for number in sorted(drawn)]
        told = self._told(drawn[0][1])
        return JSONResponse({"created": self._created, "data": pictures, **told, "usage": _usage(answers)})

    async def streamed(self, answers: Answers) -> AsyncGenerator[str]:
        kind = "image_generation.completed"
        async for _, content, size in self._drawn(answers):
            picture = {"type": kind, "b64_json": base64.b64encode(content).decode(), "created_at": self._created}
            yield event({**picture, **self._told(size), "usage": _usage(answers)}, kind)

    async def _drawn(self, answers: Answers) -> AsyncIterator[tuple[int, bytes, str]]:
        """Number, bytes and size of the picture of each answer, once it is over. Raises `ApiError` if one has none."""
        loop = asyncio.get_running_loop()
        pixels: dict[int, Any] = {}
        async for number, given in answers.events():
            if isinstance(given, WholeMedia):
                self._service.metrics.media.labels(given.modality, "written").inc()
                pixels.setdefault(number, given.content)
            elif isinstance(given, Over):
                if number not in pixels:
                    raise ApiError(500, "the model has drawn nothing", code="no_picture")
                quality = self._request.output_compression
                file = loop.run_in_executor(self._service.executor, image_file, pixels[number], self._format, quality)
                yield number, await file, f"{pixels[number].shape[1]}x{pixels[number].shape[0]}"

    def _told(self, size: str) -> dict[str, Any]:
        return {"background": "opaque", "output_format": self._format, "quality": "auto", "size": size}


def _usage(answers: Answers) -> dict[str, Any]:
    used = token_usage(answers)
    return {**used, "input_tokens_details": {"image_tokens": 0, "text_tokens": used["input_tokens"]}}
