"""How a request is answered: places are taken, the engine is asked, and the answer goes out whole or as it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from mio.serve.http import Stream, while_connected
from mio.serve.service import Answers, Service


class Job(Protocol):
    """What an endpoint makes of a request, once it was found to be valid."""

    count: int
    """Answers that are asked for."""

    async def ask(self, answers: Answers) -> None:
        """Has the engine make the answers. Raises `ApiError`."""

    async def whole(self, answers: Answers) -> Response:
        """The response, when the answers are over. Raises `ApiError`."""


class StreamedJob(Job, Protocol):
    """One whose response can go out as it comes."""

    media_type: str

    def streamed(self, answers: Answers) -> AsyncGenerator[str | bytes]:
        """Its pieces. Raises `ApiError`."""


async def respond(request: Request, service: Service, job: Job) -> Response:
    """The response when it is whole. Raises `ApiError`; what a client that leaves has asked is called off."""
    answers = service.enter(job.count)
    try:
        await while_connected(request, job.ask(answers))
        return await while_connected(request, job.whole(answers))
    finally:
        answers.close()


async def stream(request: Request, service: Service, job: StreamedJob) -> Response:
    """The response that begins when the engine has taken the request. Raises `ApiError` before that."""
    answers = service.enter(job.count)
    try:
        await while_connected(request, job.ask(answers))
    except BaseException:
        answers.close()
        raise
    return Stream(lambda: job.streamed(answers), answers, job.media_type)
