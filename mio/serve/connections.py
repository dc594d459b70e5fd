"""uvicorn's protocol, with time limits for the heads of requests: a connection that sends nothing, or too slowly, is
closed."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mio.serve.guards import ABORT

_HEAD = 64 << 10
"""Bytes of the head of a request."""


class Connection(HttpToolsProtocol):
    """A connection. `header_timeout` and `most` are set on a class of the server's own (see `protocol`)."""

    header_timeout = 10.0
    most = 512

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = True
        if len(self.connections) > self.most:
            transport.abort()
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._expect_head()
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > _HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        transport = self.transport
        self.scope["extensions"] = {ABORT: {"close": transport.abort}}

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_came()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._in_head = True  # of the next one, which may never come: uvicorn's own timeout is for that

    def _expect_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(self.header_timeout, self._too_slow)

    def _head_came(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None
        self._head_bytes = 0

    def _too_slow(self) -> None:
        self._head = None
        if not self.transport.is_closing():
            self.transport.abort()


def protocol(header_timeout: float, most: int) -> type[Connection]:
    """The class of the connections of one server."""
    attributes: dict[str, Any] = {"header_timeout": header_timeout, "most": most}
    return type("Connection", (Connection,), attributes)
