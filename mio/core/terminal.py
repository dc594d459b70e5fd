"""What is printed on a terminal. Text from data, files and plugins neither acts nor is taken for markup."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# control characters but for tab and line feed, characters that turn the direction of writing, halves of surrogate pairs
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_BEYOND_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


EVERY = 15.0
"""Seconds between two lines."""


def plain(text: str) -> str:
    """The text with every character that a terminal would act on written as an escape: `\\x1b`, `\\u202e`."""
    return _ACTING.sub(lambda match: _escape(match[0]), text)


def printable(text: Any) -> str:
    """The text within one line: as `plain`, and so is every other character that is not shown, line feeds too."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in str(text))


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON for a terminal: the same content, with such characters as `\\u009b`."""
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    return _BEYOND_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def console(stderr: bool = False, quiet: bool = False, file: TextIO | None = None, width: int | None = None) -> Console:
    """A console that prints text as it is: no markup, no emoji codes, no colours of its own in it, nothing that acts.

    What has a style is given as `rich.text.Text`, made of text that is `plain`.
    """
    from rich.console import Console
    from rich.text import Text

    class PlainConsole(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            if all(isinstance(item, str) for item in objects):
                options.setdefault("soft_wrap", True)  # a line stays one: it may be read by a program
            super().print(*objects, **options)

        def render_str(self, text: str, **options: Any) -> Text:
            options |= {"markup": False, "emoji": False, "highlight": False}
            return super().render_str(plain(text), **options)

    return PlainConsole(stderr=stderr, quiet=quiet, file=file, width=width, markup=False, emoji=False, highlight=False)


class Progress:
    """Counts what is done; shows how much there is, how fast it goes and how long the rest takes.

    On a terminal it is a bar, elsewhere a line every 15 seconds.

    Args:
        label: of the work.
        total: None where it is not known.
        unit: what is counted, in the plural.
    """

    def __init__(self, console: Console, label: str, total: int | None, unit: str = "records") -> None:
        self._console, self._label, self._total, self._unit = console, label, total, unit
        self._done = self._skipped = 0
        self._start = self._last = time.monotonic()
        from rich import progress as bars

        self._bar: bars.Progress | None = None
        if console.is_terminal and not console.quiet:
            self._bar = bars.Progress(
                bars.TextColumn("{task.description}", markup=False),
                bars.BarColumn(),
                bars.MofNCompleteColumn(),
                bars.TextColumn("{task.fields[rate]}"),
                bars.TimeRemainingColumn(),
                bars.TextColumn("{task.fields[detail]}", markup=False),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task(plain(label), total=total, rate="", detail="")

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()

    def tick(self, detail: str = "") -> None:
        """One more is done; `detail` is shown beside the counts."""
        self._done += 1
        self._show(detail)

    def skip(self, count: int) -> None:
        """So many were done before."""
        if self._done == self._skipped:  # the clock starts with the first that is done now
            self._start = time.monotonic()
        self._done += count
        self._skipped += count
        self._show("")

    def _show(self, detail: str) -> None:
        now = time.monotonic()
        if now - self._last < (0.2 if self._bar else EVERY):
            return
        self._last = now
        if self._bar:
            self._bar.update(self._task, completed=self._done, rate=f"{self._rate():,.1f}/s", detail=detail)
        else:
            self.line(detail)

    def line(self, detail: str = "") -> None:
        """Prints how far it is."""
        of_total = "" if self._total is None else f"/{self._total:,}"
        parts = [f"  {self._label}: {self._done:,}{of_total} {self._unit}"]
        if rate := self._rate():
            parts.append(f"{rate:,.1f}/s")
            if self._total is not None:
                left = int((self._total - self._done) / rate)
                parts.append(f"{left // 60}:{left % 60:02d} left")
        self._console.print(", ".join([*parts, *([detail] if detail else [])]))

    def _rate(self) -> float:
        return (self._done - self._skipped) / max(time.monotonic() - self._start, 1e-9)
