"""An answer while it is being generated: tokens become pieces of text, whole spans, and control tokens."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import numpy as np

from mio.core.contract.controls import Control
from mio.core.contract.values import Codes, TextTokenizer, Value
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.tokenised import TokenisedText
from mio.core.tokens.vocabulary import Vocabulary

_INCOMPLETE = "\ufffd"
"""What stands for the bytes of a character of which the rest is to come."""

Controls = Mapping[tuple[int, ...], str]
"""Names of control tokens by the tokens that they consist of: one with an id of its own of that id alone."""


Piece = str | Codes | Control
"""What an answer consists of."""


class AnswerReader:
    """Reads the tokens of one answer.

    Control tokens that are plain text count where the answer begins, those with an id everywhere.
    """

    def __init__(self, vocabulary: Vocabulary, text: TextTokenizer, controls: Controls) -> None:
        self._vocabulary, self._text, self._controls = vocabulary, text, controls
        self._parts: list[Any] = []
        self._words: list[int] = []
        """Tokens of the text that is being read."""
        self._shown = ""
        """What of it was given out."""
        self._span: list[int] = []
        """Tokens of the span that is being read."""
        self._opening: list[int] | None = []
        """Tokens that may turn out to be a control token at the beginning; None behind it."""

    def push(self, token: int) -> list[Piece]:
        """What is complete with this token; text is the part that was not given out before."""
        if self._opening is not None:
            self._opening.append(token)
            if name := self._controls.get(tuple(self._opening)):
                self._opening = []
                return self._control(name)
            if any(one[: len(self._opening)] == tuple(self._opening) for one in self._controls):
                return []
            held, self._opening = self._opening, None
            return [piece for one in held for piece in self._read(one)]
        return self._read(token)

    def finish(self) -> list[Piece]:
        """What was held back, now that the answer is over. A span that is not complete is left out."""
        held, self._opening = self._opening or [], None
        pieces = [piece for one in held for piece in self._read(one)]
        return [*pieces, *self._close_text()]

    @property
    def parts(self) -> list[Value]:
        """The answer so far, of which text brings its tokens, so that it is the same when the model reads it again."""
        return [*self._parts, *self._written()]

    def _written(self) -> list[Value]:
        if not self._words:
            return []
        return [TokenisedText(self._text.decode(self._words), np.array(self._words, np.int32))]

    def _control(self, name: str) -> list[Piece]:
        pieces = self._close_text()
        self._parts.append(Control(name))
        return [*pieces, Control(name)]

    def _read(self, token: int) -> list[Piece]:
        if self._span:
            self._span.append(token)
            return self._close_span(token)
        if token in self._vocabulary.begins:
            self._span = [token]
            return self._close_text()
        if name := self._controls.get((token,)):
            return self._control(name)
        self._words.append(token)
        text = self._text.decode(self._words)
        if text.endswith(_INCOMPLETE) or not text.startswith(self._shown):
            return []
        return self._show(text)

    def _show(self, text: str) -> list[Piece]:
        more, self._shown = text[len(self._shown) :], text
        return [more] if more else []

    def _close_text(self) -> list[Piece]:
        self._parts += self._written()
        text = self._text.decode(self._words) if self._words else ""
        if not text.startswith(self._shown):  # decoding more tokens has changed what was shown: the rest is shown
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, self._shown, strict=False)))
            self._shown = text[:same]
        pieces = self._show(text)
        self._words, self._shown = [], ""
        return pieces

    def _close_span(self, token: int) -> list[Piece]:
        name = self._vocabulary.begins[self._span[0]]
        if token != self._vocabulary.end(name):
            return []
        parts = parse_tokens(self._span, self._vocabulary, self._text).parts
        codes = [part for part in parts if isinstance(part, Codes)]
        self._span = []
        self._parts += codes
        return list(codes)
