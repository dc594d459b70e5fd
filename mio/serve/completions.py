"""`/v1/completions`: text or token ids in, text and token ids out, without the form of a conversation."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from mio.core.generation.streaming import Over, TextPiece
from mio.core.tokens.documents import plain_document
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.rendered import Prompt
from mio.serve.conversations import check_characters
from mio.serve.errors import ApiError, unsupported
from mio.serve.http import DONE, EVENTS, body_of, event
from mio.serve.jobs import respond, stream
from mio.serve.protocol.completions import CompletionRequest
from mio.serve.replies import finish_reason, usage
from mio.serve.service import Answers, Asked, Service

_CUT = "\ufffd"
"""What bytes decode to that are a part of a character."""


def router(service: Service) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/completions")
    async def completions(request: Request) -> Response:
        asked = await body_of(request, CompletionRequest, service)
        job = _Completion(service, asked)
        return await (stream if asked.stream else respond)(request, service, job)

    return routes


class _Completion:
    """A request for what comes behind prompts. Raises `ApiError` for what this run cannot do."""

    media_type = EVENTS

    def __init__(self, service: Service, request: CompletionRequest) -> None:
        service.check_model(request.model)
        self._service, self._request = service, request
        self._each = request.n or 1
        self.count = service.choices(self._each * len(request.prompt))
        self._output = service.wanted([request.modality]) if request.modality is not None else None
        self._decoding = service.decoding(request, self._output)
        self._special = request.skip_special_tokens is False
        if self._special and request.stop:
            raise unsupported("stop", "`stop`: works on text without special tokens; give `skip_special_tokens: true`")
        self._id = f"cmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._prompts: list[Prompt] = []

    async def ask(self, answers: Answers) -> None:
        """Has the engine answer."""
        service, request = self._service, self._request
        self._prompts = await service.run(lambda: [self._prompt(one, number) for number, one in
                                                   enumerate(request.prompt) for _ in range(self._each)])  # fmt: skip
        seeds = [seed for _ in request.prompt for seed in service.seeds(request, self._each)]
        need = service.need(self._output, self._decoding)
        asked = Asked(self._prompts, self._decoding, need, seeds, self._output or "")
        await service.ask(answers, asked)

    def _prompt(self, given: str | list[int], number: int) -> Prompt:
        service = self._service
        where = f"prompt[{number}]"
        if isinstance(given, str):
            check_characters(len(given), service.characters, where)
            prompt = service.prompt(plain_document([given], []))
            return prompt if self._request.add_special_tokens is not False else Prompt(prompt.tokens[1:])
        size = service.model.vocabulary.size
        if not all(0 <= token < size for token in given):
            raise ApiError(400, f"`{where}`: the vocabulary has the ids 0 to {size - 1}", where, "invalid_value")
        if unfinished := parse_tokens(given, service.model.vocabulary, service.model.codecs.text).unfinished:
            raise ApiError(
                400, f"`{where}`: ends inside a span of `{unfinished}`; give the whole span, or ask for one by "
                "`modality`", where, "invalid_value",
            )  # fmt: skip
        return Prompt(np.array(given, np.int32))

    async def whole(self, answers: Answers) -> Response:
        """The response."""
        texts, reasons = [""] * len(answers.each), [""] * len(answers.each)
        async for number, given in answers.events():
            texts[number] += given.text if isinstance(given, TextPiece) else ""
            reasons[number] = finish_reason(given) if isinstance(given, Over) else ""
        choices = [
            self._choice(number, self._special_text(one.tokens) if self._special else texts[number], reasons[number],
                         one.tokens, self._prompts[number])
            for number, one in enumerate(answers.each)
        ]  # fmt: skip
        return JSONResponse({**self._head(), "choices": choices, "usage": usage(answers)})

    async def streamed(self, answers: Answers) -> AsyncGenerator[str]:
        """The response's events."""
        options = self._request.stream_options
        with_usage = bool(options and options.include_usage)
        rest = {"usage": None} if with_usage else {}
        told = [0] * len(answers.each)
        async for number, given in answers.events():
            one, reason = answers.each[number], finish_reason(given) if isinstance(given, Over) else None
            tokens, prompt = one.tokens[told[number] :], None if told[number] else self._prompts[number]
            text = given.text if isinstance(given, TextPiece) else ""
            text = self._special_text(tokens) if self._special else text
            if self._special and not reason and text.endswith(_CUT):
                continue  # tokens are ahead of events: the rest of a character is still to come
            if text or reason or (self._request.return_token_ids and tokens):
                told[number] = len(one.tokens)
                yield event({**self._head(), "choices": [self._choice(number, text, reason, tokens, prompt)], **rest})
        if with_usage:
            yield event({**self._head(), "choices": [], "usage": usage(answers)})
        yield DONE

    def _special_text(self, tokens: list[int]) -> str:
        """Text of tokens, of which those of media and special ones are the strings of their names."""
        model = self._service.model
        pieces, words = [], []
        for token in [*tokens, None]:
            if token is not None and model.vocabulary.blocks[model.vocabulary.block_of[token]].kind == "text":
                words.append(token)
                continue
            if words:
                pieces.append(model.codecs.text.decode(words))
                words = []
            if token is not None:
                pieces.append(model.vocabulary.token(token))
        return "".join(pieces)

    def _choice(
        self, number: int, text: str, reason: str | None, tokens: list[int], prompt: Prompt | None
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": number, "text": text, "logprobs": None, "finish_reason": reason or None}
        if self._request.return_token_ids:
            choice["token_ids"] = tokens
            choice["prompt_token_ids"] = prompt.tokens.tolist() if prompt is not None else None
        return choice

    def _head(self) -> dict[str, Any]:
        name = self._service.settings.name
        return {"id": self._id, "object": "text_completion", "created": self._created, "model": name}
