"""What every request passes before it reaches an endpoint: who sends it, from where, how much, and how fast.

These are plain ASGI applications around the endpoints, for HTTP and WebSocket alike.
"""

from __future__ import annotations

import asyncio
import hmac
import urllib.parse
from collections.abc import Sequence
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mio.serve.errors import ApiError
from mio.serve.http import failure
from mio.serve.limits import Limits
from mio.serve.service import Service

OPEN = ("/health", "/ready")
"""Paths that need no key."""
KEY_PROTOCOL = "openai-insecure-api-key."
"""Begins the WebSocket subprotocol in which browsers give a key, which cannot set headers."""
_POLICY_VIOLATION = 1008
ABORT = "mio.abort"
"""Extension of the scope: what closes the connection without waiting for the client to read."""


class Guard:
    """Lets through what is allowed, and counts what was answered."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._limits = service.settings.limits
        self._receiving = _Budget(8 * self._limits.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except ApiError as error:
            await self._refuse(scope, receive, send, error)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, sending = 0, _Sending(scope, self._limits.write_timeout)

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            sending.begin()
            await send(message)
            sending.end()

        body = _Body(receive, self._limits, _length(scope), self._receiving)
        try:
            await self._app(scope, body.receive, counted)
        except ApiError as error:
            if not status:
                await failure(error)(scope, receive, counted)
            else:
                _abort(scope)
        except ClientDisconnect:
            _abort(scope)
        finally:
            body.close()
            sending.close()
            route = getattr(scope.get("route"), "path", "other")
            self._service.metrics.responses.labels(route, str(status or 499)).inc()

    def _check(self, scope: Scope) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        settings = self._service.settings
        host = headers.get("host", "")
        if settings.hosts and _bare(host) not in settings.hosts:
            raise ApiError(403, f"this server is not called `{host:.80}` (`--allow-host`)", code="unknown_host")
        origin = headers.get("origin")
        if origin is not None and origin not in settings.origins and not _same(origin, host):
            raise ApiError(403, f"pages of `{origin:.80}` may not ask here (`--allow-origin`)", code="unknown_origin")
        if settings.key and scope["path"] not in OPEN and not _has_key(scope, headers, settings.key):
            raise ApiError(
                401, "give the server's key, as `Authorization: Bearer KEY`", code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )  # fmt: skip
        if scope["type"] == "websocket" or scope["method"] == "POST":
            self._service.check_free()

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, error: ApiError) -> None:
        """Answers without reading the body: the connection is closed, as what follows would be taken for a request."""
        self._service.metrics.responses.labels("refused", str(error.status)).inc()
        if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": error.message[:120]})
            return
        if scope["type"] == "http" and _length(scope) != 0:
            error.headers["connection"] = "close"
        await failure(error)(scope, receive, send)


class _Sending:
    """Closes the connection of a client that leaves unread what it is sent. One timer for a request: one for each piece
    would take as long as sending it."""

    def __init__(self, scope: Scope, limit: float) -> None:
        self._scope, self._limit = scope, limit
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer = self._loop.call_later(limit, self._check)

    def begin(self) -> None:
        self._since = self._loop.time()

    def end(self) -> None:
        self._since = None

    def close(self) -> None:
        self._timer.cancel()

    def _check(self) -> None:
        now = self._loop.time()
        waited = 0.0 if self._since is None else now - self._since
        if waited >= self._limit:
            _abort(self._scope)
        else:
            self._timer = self._loop.call_later(self._limit - waited, self._check)


class _Budget:
    """Bytes of bodies that all requests together may hold while they come."""

    def __init__(self, most: int) -> None:
        self.left = most


class _Body:
    """The body of a request, within its limits of size and time."""

    def __init__(self, receive: Receive, limits: Limits, length: int | None, budget: _Budget) -> None:
        self._receive, self._limits, self._budget = receive, limits, budget
        self._taken = 0
        self._whole = False
        self._until = asyncio.get_running_loop().time() + limits.body_timeout
        self._length = length

    async def receive(self) -> Message:
        """As ASGI's. Raises `ApiError` for a body that is too large or too slow."""
        if self._whole:
            return await self._receive()
        if self._length is not None and self._length > self._limits.body:
            raise self._too_large()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408, f"the body did not come within {self._limits.body_timeout:g} s", code="timeout",
                headers={"connection": "close"},
            ) from None  # fmt: skip
        size = len(message.get("body", b""))
        self._taken += size
        self._budget.left -= size
        if self._taken > self._limits.body:
            raise self._too_large()
        if self._budget.left < 0:
            raise ApiError(
                429, "too many large requests come at a time; try again in a while", code="rate_limit_exceeded",
                headers={"retry-after": "1", "connection": "close"},
            )  # fmt: skip
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    def close(self) -> None:
        self._budget.left += self._taken

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"requests have at most {self._limits.body} bytes", code="too_large", headers={"connection": "close"}
        )


def _length(scope: Scope) -> int | None:
    """Bytes of the body, as the head says; None where it comes in chunks."""
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    names = dict(headers)
    if b"content-length" in names:
        value = names[b"content-length"]
        return int(value) if value.isdigit() else None
    return None if b"transfer-encoding" in names else 0


def _has_key(scope: Scope, headers: dict[str, str], key: str) -> bool:
    """Whether the key is given. Takes as long for a wrong one as for the right one."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    found = given.strip() if scheme.lower() == "bearer" else ""
    if scope["type"] == "websocket" and not found:
        for one in scope.get("subprotocols", ()):
            if one.startswith(KEY_PROTOCOL):
                found = one.removeprefix(KEY_PROTOCOL)
    return hmac.compare_digest(found.encode(), key.encode())


def _bare(host: str) -> str:
    """A host without its port."""
    if host.startswith("["):
        return host.partition("]")[0].removeprefix("[")
    return host.partition(":")[0].lower()


def _same(origin: str, host: str) -> bool:
    return bool(host) and urllib.parse.urlsplit(origin).netloc.lower() == host.lower()


def _abort(scope: Scope) -> None:
    abort: Any = scope.get("extensions", {}).get(ABORT)
    if abort is not None:
        abort["close"]()
