"""A session in the world's time: inputs come from another thread, the engine runs in this one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from mio.core.live.events import SessionEvent
from mio.core.live.session import Session

Put = Callable[[Callable[[Session], Any]], None]
"""Hands the session something to do: `put(lambda session: session.say("hello"))`."""

_PATIENCE = 0.02
"""Seconds between two looks at what has to wait, such as an answer that is still being played."""


def converse(session: Session, feed: Callable[[Put], None], tell: Callable[[SessionEvent], None]) -> None:
    """Runs a conversation until `feed` has returned and everything is answered.

    Args:
        session: with a `RealClock`.
        feed: waits for inputs and puts them, in a thread of its own. What it raises is raised here.
        tell: gets every event as it happens.
    """
    inputs: queue.Queue[Callable[[Session], Any]] = queue.Queue()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            feed(inputs.put)
        except BaseException as error:
            failed.append(error)
        finally:
            inputs.put(lambda _: None)  # wakes up who waits for inputs

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive() or not inputs.empty() or session.unfinished:
        if not session.busy:
            _take(inputs, session, _PATIENCE)
        while not inputs.empty():
            _take(inputs, session, 0)
        if failed:
            raise failed[0]
        for event in session.step():
            tell(event)


def _take(inputs: queue.Queue[Callable[[Session], Any]], session: Session, seconds: float) -> None:
    """One input, if it comes within some seconds."""
    try:
        one = inputs.get(timeout=seconds) if seconds else inputs.get_nowait()
    except queue.Empty:
        return
    one(session)
