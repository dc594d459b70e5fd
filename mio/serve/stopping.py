"""Strings at which an answer ends."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Cuts the text of an answer off before the first of some strings. Text that may be the beginning of one is held
    back until it is known."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._held = ""
        self.found = ""
        """The string that was met."""

    def push(self, text: str) -> str:
        """Text that can be given out."""
        if not self._strings:
            return text
        if self.found:
            return ""
        text = self._held + text
        places = [(place, one) for one in self._strings if (place := text.find(one)) >= 0]
        if places:
            place, self.found = min(places, key=lambda pair: pair[0])
            self._held = ""
            return text[:place]
        keep = max(
            (
                size
                for one in self._strings
                for size in range(1, min(len(one), len(text) + 1))
                if text.endswith(one[:size])
            ),
            default=0,
        )
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, where no more text can follow it."""
        held, self._held = self._held, ""
        return held
