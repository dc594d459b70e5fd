"""`/v1/audio/speech`: a text said aloud."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from mio.core.generation.streaming import MediaChunk, WholeMedia
from mio.serve import sound
from mio.serve.conversations import check_characters
from mio.serve.errors import ApiError
from mio.serve.http import EVENTS, body_of, event
from mio.serve.jobs import respond, stream
from mio.serve.protocol.media import SpeechRequest
from mio.serve.receiving import AUDIO
from mio.serve.replies import token_counts
from mio.serve.service import Answers, Asked, Service
from mio.serve.templates import SPEECH


def router(service: Service) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/audio/speech")
    async def speech(request: Request) -> Response:
        asked = await body_of(request, SpeechRequest, service)
        # the header of a WAV says how long it is, which is not known before it is whole
        whole = asked.response_format == "wav" and asked.stream_format is None
        return await (respond if whole else stream)(request, service, _Speech(service, asked))

    return routes


class _Speech:
    """A request to say something. Raises `ApiError` for what this run cannot do."""

    count = 1

    def __init__(self, service: Service, request: SpeechRequest) -> None:
        service.check_model(request.model)
        check_characters(len(request.input), service.characters, "input")
        self._service, self._request = service, request
        self._modality = service.abilities.writer(AUDIO, request.modality, "")
        self._format = request.response_format or "mp3"
        self._events = request.stream_format == "sse"
        self.media_type = EVENTS if self._events else sound.MEDIA_TYPES[self._format]
        self._decoding = service.decoding(request, self._modality)

    async def ask(self, answers: Answers) -> None:
        service, modality = self._service, self._modality
        question = service.questions.of(SPEECH, modality)
        prompt = await service.run(lambda: service.prompt(question.document(self._request.input)))
        need = service.need(modality, self._decoding)
        await service.ask(answers, Asked([prompt], self._decoding, need, service.seeds(self._request, 1), modality))

    async def whole(self, answers: Answers) -> Response:
        content = b"".join([piece async for piece in self._pieces(answers)])
        return Response(sound.with_size(content), media_type=self.media_type)

    async def streamed(self, answers: Answers) -> AsyncGenerator[str | bytes]:
        async for piece in self._pieces(answers):
            if self._events:
                yield event({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()})
            else:
                yield piece
        if self._events:
            yield event({"type": "speech.audio.done", "usage": token_usage(answers)})

    async def _pieces(self, answers: Answers) -> AsyncIterator[bytes]:
        """The bytes of a file of sound, as they come. Raises `ApiError` if there is no sound."""
        writer, loop = sound.SoundWriter(self._format), asyncio.get_running_loop()
        there = begun = False
        async for _, given in answers.events():
            if isinstance(given, WholeMedia):
                self._service.metrics.media.labels(given.modality, "written").inc()
                there, told, begun = True, begun, False
            elif isinstance(given, MediaChunk):
                begun, told = True, False
            else:
                continue
            if not told and (piece := await loop.run_in_executor(self._service.executor, writer.push, *given.content)):
                yield piece
        if not there:
            raise ApiError(500, "the model has said nothing", code="no_sound")
        if piece := await loop.run_in_executor(self._service.executor, writer.finish):
            yield piece


def token_usage(answers: Answers) -> dict[str, Any]:
    """Tokens of a request, as the endpoints of media count them."""
    prompt, answer = (counts.total() for counts in token_counts(answers))
    return {"input_tokens": prompt, "output_tokens": answer, "total_tokens": prompt + answer}
