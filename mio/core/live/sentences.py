"""Cuts the text of an answer into pieces that can be said while the rest is being made."""

from __future__ import annotations

_BETWEEN_DIGITS = ".,:"


class SentenceCutter:
    """Cuts behind the first of the `marks` that leaves at least `least` characters (VITA, `tts_transform_text`).

    A full stop, comma or colon between two digits is part of a number.
    """

    def __init__(self, marks: str, least: int) -> None:
        self._marks, self._least = marks, least
        self._text = ""

    def push(self, text: str) -> list[str]:
        """Pieces that are complete with this text."""
        self._text += text
        pieces, start = [], 0
        for place, character in enumerate(self._text):
            if character not in self._marks or place + 1 - start < self._least or self._in_number(place):
                continue
            pieces.append(self._text[start : place + 1])
            start = place + 1
        self._text = self._text[start:]
        return pieces

    def _in_number(self, place: int) -> bool:
        """Whether a mark is inside a number, or could turn out to be."""
        text = self._text
        if text[place] not in _BETWEEN_DIGITS or not text[:place][-1:].isdigit():
            return False
        return place + 1 == len(text) or text[place + 1].isdigit()

    def flush(self) -> list[str]:
        """What is left: the answer is over."""
        text, self._text = self._text, ""
        return [text] if text.strip() else []
