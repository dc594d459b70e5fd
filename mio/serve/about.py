"""What the server says about itself: its model, whether it lives, whether it takes requests, its figures."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from mio.core.contract.values import TEXT
from mio.serve.errors import stopping
from mio.serve.http import failure
from mio.serve.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter()

    def described() -> dict[str, Any]:
        abilities = service.abilities
        return {
            "id": service.settings.name,
            "object": "model",
            "created": service.created,
            "owned_by": "mio",
            "max_model_len": service.context,
            "input_modalities": [TEXT, *abilities.reads],
            "output_modalities": [TEXT, *abilities.writes],
        }

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [described()]}

    @routes.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        service.check_model(name)
        return described()

    @routes.get("/health")
    async def health() -> Response:
        """Whether the process lives, and its engine."""
        return JSONResponse({"status": "ok"} if service.alive else {"status": "failed"}, 200 if service.alive else 500)

    @routes.get("/ready")
    async def ready() -> Response:
        """Whether it takes requests."""
        if service.draining or not service.alive:
            return failure(stopping(service.settings.limits.grace))
        return JSONResponse({"status": "ready"})

    @routes.get("/metrics")
    async def metrics() -> Response:
        service.measure()
        content, media_type = service.metrics.text()
        return Response(content, headers={"content-type": media_type})

    return routes
