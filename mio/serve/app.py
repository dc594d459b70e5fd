"""The application: all endpoints of one run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

import mio
from mio.serve import about, chat, completions, images, speech, transcriptions
from mio.serve.errors import ApiError
from mio.serve.guards import Guard
from mio.serve.http import failure
from mio.serve.realtime import connection
from mio.serve.service import Service

_GONE = 499
"""Status of a request whose client has left, in logs and figures alone."""


def application(service: Service) -> ASGIApp:
    """The endpoints behind their guards. The engine lives as long as the application does."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001
        await service.start()
        try:
            yield
        finally:
            service.stop()

    # pages that show the API would load scripts from elsewhere
    app = FastAPI(title="mio", version=mio.__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    for one in (about, chat, completions, speech, transcriptions, images, connection):
        app.include_router(one.router(service))

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:  # noqa: ARG001
        return failure(error)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path:.80}: {error.detail}"
        return failure(ApiError(error.status_code, message, code="unknown_url", headers=error.headers))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:  # noqa: ARG001
        return Response(status_code=_GONE)

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:  # noqa: ARG001
        return failure(ApiError(500, "the server failed; its log says how", code="internal_error"))

    guarded: ASGIApp = Guard(app, service)
    if service.settings.origins:
        guarded = CORSMiddleware(
            guarded, allow_origins=service.settings.origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    return guarded
