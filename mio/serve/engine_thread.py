"""The thread that steps the engine, and what it tells the event loop that serves clients.

Events of a step go to the loop together: waking it costs more than an event.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from mio.core.errors import MioError, UserError
from mio.core.generation.engine import Engine
from mio.core.generation.requests import Event, Request, Ticket

Listener = Callable[[Event], None]
"""Called in the event loop, with one event after the other."""

_IDLE = 3600.0
"""Seconds without anything to do after which a step is made all the same."""
_log = logging.getLogger("mio.serve")


class EngineThread:
    """Steps an engine for as long as there is something to do.

    Whoever else shares the engine (a live session) submits to `engine` by itself, with a `tell` that is called in this
    thread, and then calls `wake`; or has a function called in this thread, between two steps, by `call`.
    """

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = engine
        self._loop = loop
        self._told: list[tuple[Listener, Event]] = []
        self._calls: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after its step."""
        self._ending = True
        self.wake()
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    def submit(self, request: Request, listener: Listener) -> Ticket:
        """Has a request answered. Prepares its media: not for the event loop's thread. Raises as `Engine.submit`."""
        ticket = self.engine.submit(request, lambda _, event: self._told.append((listener, event)))
        self.wake()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Calls an answer off, from any thread."""
        if ticket.finished is None:
            self.engine.cancel(ticket)
            self.wake()

    def call(self, function: Callable[[], None]) -> None:
        """Has a function called in the engine's thread, before its next step."""
        with self._lock:
            self._calls.append(function)
        self.wake()

    def _run(self) -> None:
        while not self._ending:
            self._wake.clear()
            self._step()
            if not (self.engine.busy or self._calls):
                self._wake.wait(_IDLE)

    def _step(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, []
        for function in calls:
            try:
                function()
            except Exception:
                _log.exception("a call in the engine's thread failed")
        try:
            self.engine.step()  # also of nothing: devices that hold the model together hear that it lives
        except Exception as error:
            if not isinstance(error, MioError | MemoryError):
                _log.exception("the engine failed; the answers that it was making are given up")
            self.engine.abandon(error if isinstance(error, UserError) else UserError("the engine failed"))
        if self._told:
            told, self._told = self._told, []
            self._loop.call_soon_threadsafe(_deliver, told)


def _deliver(told: list[tuple[Listener, Event]]) -> None:
    for listener, event in told:
        listener(event)
