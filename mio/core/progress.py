"""Progress of a long piece of work: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich import progress as bars
from rich.console import Console

from mio.core.terminal import plain

EVERY = 15.0
"""Seconds between two lines."""


class Progress:
    """Counts records; shows how many there are, how fast they go and how long the rest takes.

    Args:
        label: of the work.
        total: records, or None where nobody knows.
    """

    def __init__(self, console: Console, label: str, total: int | None) -> None:
        self._console, self._label, self._total = console, label, total
        self._done = self._skipped = 0
        self._start = self._last = time.monotonic()
        self._bar: bars.Progress | None = None
        if console.is_terminal and not console.quiet:
            self._bar = bars.Progress(
                bars.TextColumn("{task.description}", markup=False),
                bars.BarColumn(),
                bars.MofNCompleteColumn(),
                bars.TextColumn("{task.fields[rate]}"),
                bars.TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task(plain(label), total=total, rate="")

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def tick(self) -> None:
        """One record is done."""
        self._done += 1
        self._show()

    def skip(self, count: int) -> None:
        """So many records were done before."""
        self._done += count
        self._skipped += count
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._last < (0.2 if self._bar else EVERY):
            return
        self._last = now
        rate = (self._done - self._skipped) / max(now - self._start, 1e-9)
        if self._bar:
            self._bar.update(self._task, completed=self._done, rate=f"{rate:,.0f}/s")
            return
        line = f"  {self._label}: {self._done:,}"
        if self._total is not None:
            left = int((self._total - self._done) / max(rate, 1e-9))
            line += f"/{self._total:,} records, {rate:,.0f}/s, {left // 60}:{left % 60:02d} left"
        else:
            line += f" records, {rate:,.0f}/s"
        self._console.print(line, highlight=False)
