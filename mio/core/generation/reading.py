"""An answer while it is being generated: tokens become pieces of text, whole spans, media, and control tokens."""

from __future__ import annotations

from itertools import takewhile

import numpy as np

from mio.core.contract.controls import Control
from mio.core.contract.values import Codes, Media, TextTokenizer, Value
from mio.core.tokens.controls import ControlReader
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.tokenised import TokenisedText
from mio.core.tokens.visitor import codes_in
from mio.core.tokens.vocabulary import Vocabulary

_INCOMPLETE = "\ufffd"
"""What stands for the bytes of a character of which the rest is to come."""

Piece = str | Codes | Control | Media
"""What an answer consists of."""


class AnswerReader:
    """Reads the tokens of one answer. Text that may turn out to be a control token is held back until it is known."""

    def __init__(self, vocabulary: Vocabulary, text: TextTokenizer) -> None:
        self._vocabulary, self._text = vocabulary, text
        self._controls = ControlReader(vocabulary.controls)
        self._begins = {vocabulary.begin(one.name): one.name for one in vocabulary.modalities if one.begin}
        self._parts: list[Value] = []
        self._held: list[int] = []
        """Tokens of text that is held back."""
        self._words: list[int] = []
        """Tokens of the text that is being read."""
        self._shown: list[str] = []
        """What of it was given out, piece by piece."""
        self._context, self._read_up_to, self._before = 0, 0, ""
        """Tokens of the last piece, from and to, and their text: the next piece is what further tokens add to it. So a
        step takes as long in a long text as in a short one."""
        self._span: list[int] = []
        """Tokens of the span that is being read."""
        self._closing = -1
        """Token that closes the span that a head has made, and has no meaning of its own."""

    def made(self, media: Media) -> list[Piece]:
        """What a head has made of the span that was opened last."""
        self._span = []
        self._parts.append(media)
        if self._vocabulary.modality(media.modality).end:
            self._closing = self._vocabulary.end(media.modality)
        return [media]

    def push(self, token: int) -> list[Piece]:
        """What is complete with this token; text is the part that was not given out before."""
        closing, self._closing = self._closing, -1
        if token == closing:
            return []
        if self._span:
            self._span.append(token)
            return self._close_span(token)
        if name := self._controls.take(token):
            return self._control(name, token)
        if self._controls.read:
            self._held.append(token)
            return []
        return [*self._release(), *self._read(token)]

    def finish(self) -> list[Piece]:
        """What was held back, now that the answer is over. A span that is not complete is left out."""
        return [*self._release(), *self._close_text()]

    @property
    def open(self) -> str:
        """Modality of the span that is being read; empty between spans."""
        return self._begins[self._span[0]] if self._span else ""

    @property
    def parts(self) -> list[Value]:
        """The answer so far, of which text brings its tokens, so that it is the same when the model reads it again."""
        return [*self._parts, *self._written()]

    def _written(self) -> list[Value]:
        if not self._words:
            return []
        return [TokenisedText(self._text.decode(self._words), np.array(self._words, np.int32))]

    def _control(self, name: str, token: int) -> list[Piece]:
        if token not in self._vocabulary.controls.by_id:
            self._held = []  # of which it consists
        pieces = self.finish()
        self._parts.append(Control(name))
        return [*pieces, Control(name)]

    def _release(self) -> list[Piece]:
        held, self._held = self._held, []
        return [piece for one in held for piece in self._read(one)]

    def _read(self, token: int) -> list[Piece]:
        if token in self._begins:
            self._span = [token]
            return self._close_text()
        self._words.append(token)
        text = self._text.decode(self._words[self._context :])
        if text.endswith(_INCOMPLETE) or not text.startswith(self._before) or text == self._before:
            return []
        more = text[len(self._before) :]
        self._context, self._read_up_to = self._read_up_to, len(self._words)
        self._before = self._text.decode(self._words[self._context :])
        return self._show(more)

    def _show(self, more: str) -> list[Piece]:
        if more:
            self._shown.append(more)
        return [more] if more else []

    def _close_text(self) -> list[Piece]:
        self._parts += self._written()
        text = self._text.decode(self._words) if self._words else ""
        shown = "".join(self._shown)
        same = len(shown)
        if not text.startswith(shown):  # decoding more tokens has changed what was shown: the rest is shown
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, shown, strict=False)))
        pieces = self._show(text[same:])
        self._words, self._shown = [], []
        self._context, self._read_up_to, self._before = 0, 0, ""
        return pieces

    def _close_span(self, token: int) -> list[Piece]:
        name = self._vocabulary.begins[self._span[0]]
        if token != self._vocabulary.end(name):
            return []
        parts = parse_tokens(self._span, self._vocabulary, self._text).parts
        codes = codes_in(parts)
        self._span = []
        self._parts += codes
        return list(codes)
