"""The time of a session: that of the world, or one that tests and recordings move on themselves."""

from __future__ import annotations

import time
from typing import Protocol

from mio.core.errors import UserError


class Clock(Protocol):
    """Seconds since a session began."""

    def now(self) -> float: ...

    def stepped(self) -> None:
        """Called when a step of the engine has been computed."""


class RealClock:
    """The world's time, from when this is made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def now(self) -> float:
        return time.monotonic() - self._began

    def stepped(self) -> None:
        """The step took the time that it took."""


class SimulatedClock:
    """A time that only the session moves: same inputs, same events.

    Args:
        step: seconds that a step of the engine takes, whatever it takes.
    """

    def __init__(self, step: float = 0.02) -> None:
        if not 0 < step < float("inf"):
            raise UserError(f"a step of the simulated clock takes {step} s; it must be above 0")
        self.step = step
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def stepped(self) -> None:
        self._now += self.step

    def go_to(self, moment: float) -> None:
        """Waits until then; the past stays past."""
        self._now = max(self._now, moment)
