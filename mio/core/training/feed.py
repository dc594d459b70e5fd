"""Brings what is logged to one logger, without ending or delaying the training when that fails."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mio.core.contract.loggers import LoggedRun, LoggedStep, Logger

_BEGINNING = 15.0
"""Seconds that a training waits for a remote logger to begin, before its data workers are forked."""
_AGAIN = 30.0
"""Seconds after a failure before it is tried again."""
_FINISHING = 120.0
"""Seconds that a finished run waits for a remote logger."""
_LEAVING = 15.0
"""The same for an interrupted one."""


class Feed:
    """One logger, from its first call to its last.

    A step that it could not take stays in the run folder, and all that is there is offered again: while it fails, only
    the history counts, and steps are not kept.

    Args:
        name: of the logger.
        logger: called from a thread of its own if it is remote.
        tell: called with a line for the user.
    """

    def __init__(self, name: str, logger: Logger, tell: Callable[[str], None]) -> None:
        self.name = name
        self.failures = 0
        """Calls that failed."""
        self._logger = logger
        self._tell = tell
        self._steps: deque[LoggedStep] = deque()
        self._last = 0  # the last step that the logger has
        self._open = False
        self._told = False
        self._again = 0.0
        self._run: LoggedRun | None = None
        self._history: Callable[[], Sequence[LoggedStep]] = lambda: ()
        self._summary: Mapping[str, Any] | None = None
        self._wake, self._tried, self._ending = threading.Event(), threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, run: LoggedRun, history: Callable[[], Sequence[LoggedStep]]) -> None:
        """Opens the logger; `history` gives every step that is in the run folder."""
        self._run, self._history = run, history
        if self._logger.remote:
            self._thread = threading.Thread(target=self._serve, name=f"logger {self.name}", daemon=True)
            self._thread.start()
            self._wake.set()
            self._tried.wait(_BEGINNING)
        else:
            self._deliver()

    def log(self, step: LoggedStep) -> None:
        """Sends a step that the run folder has."""
        self._steps.append(step)
        if self._thread is not None:
            self._wake.set()
        else:
            self._deliver()

    def end(self, summary: Mapping[str, Any] | None) -> None:
        """Sends what is left, then the summary of a run that has finished."""
        if self._run is None:
            return
        self._summary = summary
        self._ending.set()
        if self._thread is not None:
            self._wake.set()
            self._thread.join(_LEAVING if summary is None else _FINISHING)
            if self._thread.is_alive():
                self._tell(f"`{self.name}` does not take its last figures; the run ends without it. {self._left()}")
                self._tell = lambda line: None  # noqa: ARG005
        else:
            self._finish()

    def _serve(self) -> None:
        while not self._ending.is_set():
            self._wake.wait()
            self._wake.clear()
            self._deliver()
            self._tried.set()
        self._finish()

    def _deliver(self, now: bool = False) -> None:
        """Sends what waits; opens the logger first where it is closed, unless that failed just before."""
        if not self._open and not now and time.monotonic() < self._again:
            self._steps.clear()
            return
        try:
            self._bring()
        except Exception as error:
            self._fail(error)

    def _bring(self) -> None:
        if not self._open:
            assert self._run is not None
            self._steps.clear()  # before the history is read, which has them
            earlier = self._history()
            line = self._logger.begin(self._run, earlier)
            self._last = max((step.step for step in earlier), default=0)
            self._open = True
            if line:
                self._tell(f"{self.name}: {line}")
        while self._steps:
            step = self._steps[0]
            if step.step > self._last:
                self._logger.log(step)
                self._last = step.step
            self._steps.popleft()

    def _fail(self, error: Exception) -> None:
        self._open = False
        self.failures += 1
        self._again = time.monotonic() + _AGAIN
        if not self._told:
            self._told = True
            text = " ".join(str(error).split())
            self._tell(
                f"`{self.name}` failed: {type(error).__name__}{f': {text:.300}' if text else ''}; the training goes "
                "on, the run folder has all figures, and it is tried again"
            )

    def _finish(self) -> None:
        if not self._open or self._steps:
            self._deliver(now=True)
        if self._open:
            try:
                self._logger.end(self._summary)
            except Exception as error:
                self._fail(error)
        if not self._open:
            self._tell(f"`{self.name}` did not take its last figures. {self._left()}")

    def _left(self) -> str:
        missing = [step.step for step in self._history() if step.step > self._last]
        if not missing:
            return "It has every logged step"
        return f"It lacks {len(missing)} logged steps, from step {missing[0]} on; the run folder has them"
