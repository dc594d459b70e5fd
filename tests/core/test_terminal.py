"""Progress where nobody sees a bar: lines with count, rate and time left."""

from __future__ import annotations

import io

from mio.core import terminal
from mio.core.terminal import Progress


def test_lines_tell_how_far_it_is_how_fast_and_how_long_yet(monkeypatch):
    now = 100.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    out = io.StringIO()
    with Progress(terminal.console(file=out), "stage1", 60, "steps") as progress:
        now += 50  # to start up does not count
        progress.skip(20)
        for _ in range(10):
            now += 2.0
            progress.tick("loss 1.500")
        progress.line()
    assert out.getvalue().splitlines() == [
        "  stage1: 20/60 steps",
        "  stage1: 28/60 steps, 0.5/s, 1:04 left, loss 1.500",
        "  stage1: 30/60 steps, 0.5/s, 1:00 left",
    ]


def test_of_an_unknown_total_there_is_no_end(monkeypatch):
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    out = io.StringIO()
    with Progress(terminal.console(file=out), "corpus", None) as progress:
        now += 20.0
        progress.tick()
    assert out.getvalue() == "  corpus: 1 records, 0.1/s\n"
