"""Strings that end an answer, in text that comes piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mio.core.contract.values import Media, TextTokenizer, Value
from mio.core.generation.reading import AnswerReader, Piece
from mio.core.tokens.visitor import text_of
from mio.core.tokens.vocabulary import Vocabulary


class StopStrings:
    """Gives text out as soon as it can be no part of a string that ends the answer."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = [string for string in strings if string]
        self._held = ""
        self.found = False
        """Whether such a string was said: nothing follows."""

    def push(self, text: str) -> str:
        """Takes the text that comes next. Returns what can be given out: what is before the string that was complete
        first, the longest of several, or else all but an end with which one may begin."""
        if self.found:
            return ""
        text = self._held + text
        said = [(place + len(string), place) for string in self._strings if (place := text.find(string)) >= 0]
        if said:
            self.found, self._held = True, ""
            return text[: min(said)[1]]
        held = max((_beginning(text, string) for string in self._strings), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        """What was held back, as something else than text follows, or nothing."""
        held, self._held = self._held, ""
        return held


def _beginning(text: str, string: str) -> int:
    """Length of the longest end of `text` with which `string` begins."""
    longest = min(len(text), len(string) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(string[:size])), 0)


def before_stop(parts: Iterable[Value], strings: Sequence[str]) -> Iterator[Value]:
    """The parts of an answer up to a string that ends it, in the text of one part."""
    for part in parts:
        text = text_of(part)
        if text is None or not strings:
            yield part
            continue
        stops = StopStrings(strings)
        shown = stops.push(text)
        if stops.found:
            if shown:
                yield shown
            return
        yield part


class StopReader:
    """Tells whether an answer whose tokens come one by one has said a string that ends it."""

    def __init__(self, vocabulary: Vocabulary, text: TextTokenizer, strings: Sequence[str]) -> None:
        self._reader, self._strings = AnswerReader(vocabulary, text), StopStrings(strings)

    @property
    def found(self) -> bool:
        return self._strings.found

    def take(self, token: int) -> None:
        """Takes the next token."""
        self._read(self._reader.push(token))

    def made(self, media: Media) -> None:
        """Takes what a head has made of the span that the last token opened."""
        self._read(self._reader.made(media))

    def _read(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            if isinstance(piece, str):
                self._strings.push(piece)
            else:
                self._strings.flush()
