"""The server process: uvicorn with limits, and an end that lets answers end."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from mio.serve.app import application
from mio.serve.connections import protocol
from mio.serve.heap import give_large_blocks_back
from mio.serve.service import Service

INTERRUPTED = 130
_FLUSH = 2
"""Seconds that connections have for what is written already, once answers are over."""
_SWITCH = 5e-4
"""Seconds after which a thread gives the interpreter to another: the engine's, which asks for it again after each of
its operations, would wait ten times as long by default while the event loop is busy."""


class Server(uvicorn.Server):
    """Serves a run until it is told to stop: further requests are then refused, and answers that are being made have
    some time to end."""

    def __init__(self, service: Service, started: Callable[[], None] = lambda: None) -> None:
        limits = service.settings.limits
        config = uvicorn.Config(
            application(service),
            http=protocol(limits.header_timeout, limits.connections),
            ws="websockets-sansio",
            ws_max_size=limits.body,
            lifespan="on",
            log_level="error",  # of uvicorn, whose warnings are of what clients do
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_FLUSH,
        )
        super().__init__(config)
        self.service = service
        self.code = 0
        self._told = started
        self._until = 0.0

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Takes no further requests, and ends when answers are over or their time is. At once, the second time."""
        if self.service.draining:
            self.service.hurry()
            self._until = 0.0
            return
        self.code = INTERRUPTED if signal_number == signal.SIGINT else 0
        self._until = time.monotonic() + self.service.settings.limits.grace
        self.service.draining = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.stop(sig)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._told()

    async def on_tick(self, counter: int) -> bool:
        if self.service.draining and (self.service.idle or time.monotonic() >= self._until):
            self.should_exit = True
        self.service.metrics.connections.set(len(self.server_state.connections))
        return await super().on_tick(counter)


def run(server: Server, sock: socket.socket) -> int:
    """Serves until it is stopped; the exit code."""
    give_large_blocks_back()
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[sock]))
    finally:
        sys.setswitchinterval(before)
    return server.code
