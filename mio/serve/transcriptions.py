"""`/v1/audio/transcriptions`: what a recording says."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from mio.core.contract.values import TEXT, MemoryFile
from mio.core.generation.streaming import TextPiece
from mio.media.sound import sound_seconds
from mio.serve.errors import ApiError
from mio.serve.http import EVENTS, event, validated
from mio.serve.jobs import respond, stream
from mio.serve.protocol.media import TranscriptionRequest
from mio.serve.receiving import AUDIO
from mio.serve.service import Answers, Asked, Service
from mio.serve.speech import token_usage
from mio.serve.templates import TRANSCRIPTION

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # its warnings are of what clients do

_FIELDS = 64
_LONGEST = 1 << 16
"""Bytes of a field other than the file."""
_TEXTS = ("model", "language", "prompt", "response_format", "modality", "user", "stop", "chunking_strategy")
"""Fields whose text is no number or truth value."""


def router(service: Service) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/audio/transcriptions")
    async def transcriptions(request: Request) -> Response:
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise ApiError(415, "send the recording in a form, as `multipart/form-data`", code="invalid_type")
        try:
            form = await request.form(max_files=1, max_fields=_FIELDS, max_part_size=_LONGEST)
        except HTTPException as error:
            raise ApiError(400, f"the form cannot be read: {error.detail}", code="invalid_form") from error
        try:
            content = await _file(form)
            asked = validated(_fields(form), TranscriptionRequest)
        finally:
            await form.close()
        job = _Transcription(service, asked, content)
        return await (stream if asked.stream else respond)(request, service, job)

    return routes


async def _file(form: FormData) -> bytes:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise ApiError(400, "missing required parameter: `file`, a recording", "file", "missing_required_parameter")
    return await file.read()


def _fields(form: FormData) -> dict[str, Any]:
    """The fields of a form as JSON would have them: its texts say numbers and truth values."""
    fields: dict[str, Any] = {}
    for name in dict.fromkeys(form.keys()):
        values = [value for value in form.getlist(name) if isinstance(value, str)]
        key = name.removesuffix("[]")
        if key == "file":
            continue
        read = values if key in _TEXTS else [_value(value) for value in values]
        fields[key] = read if name.endswith("[]") else read[-1] if read else None
    return fields


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class _Transcription:
    """A recording to be written down. Raises `ApiError` for what this run cannot do."""

    media_type = EVENTS

    def __init__(self, service: Service, request: TranscriptionRequest, content: bytes) -> None:
        service.check_model(request.model)
        self._service, self._request, self._content = service, request, content
        self._modality = service.abilities.reader(AUDIO, request.modality, "")
        self._decoding = service.decoding(request, TEXT)
        self.count = service.choices(request.n)
        if self.count > 1:
            raise ApiError(400, "`n`: a recording has one transcription", "n", "unsupported_value")

    async def ask(self, answers: Answers) -> None:
        service, request = self._service, self._request

        def prompt() -> Any:
            item = service.receiver.item(self._modality, self._content, "file")
            return service.prompt(service.questions.of(TRANSCRIPTION, self._modality).document(item))

        rendered = await service.run(prompt)
        need, seeds = service.need(TEXT, self._decoding), service.seeds(request, 1)
        await service.ask(answers, Asked([rendered], self._decoding, need, seeds))

    async def whole(self, answers: Answers) -> Response:
        text = "".join([one.text async for _, one in answers.events() if isinstance(one, TextPiece)]).strip()
        if self._request.response_format == "text":
            return PlainTextResponse(f"{text}\n")
        usage = {"type": "tokens", **token_usage(answers)}
        if self._request.response_format == "verbose_json":
            limit = self._service.settings.limits.seconds
            seconds = await self._service.run(lambda: sound_seconds(MemoryFile(self._content), limit))
            language = self._request.language or "unknown"
            told = {"task": "transcribe", "language": language, "duration": seconds, "text": text}
            return JSONResponse({**told, "usage": {"type": "duration", "seconds": seconds}})
        return JSONResponse({"text": text, "usage": usage})

    async def streamed(self, answers: Answers) -> AsyncGenerator[str]:
        text = ""
        async for _, given in answers.events():
            if isinstance(given, TextPiece):
                more = given.text if text else given.text.lstrip()
                text += more
                if more:
                    yield event({"type": "transcript.text.delta", "delta": more})
        usage = {"type": "tokens", **token_usage(answers)}
        yield event({"type": "transcript.text.done", "text": text.rstrip(), "usage": usage})
