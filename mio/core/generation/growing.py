"""Answers that are being generated: what they have said, what may come next, and how it is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mio.core.contract.controls import ControlToken
from mio.core.contract.values import Decoding, Media, TextTokenizer
from mio.core.generation.grammar import Grammar, Need
from mio.core.generation.sampling import Settings, is_guided
from mio.core.generation.states import Place
from mio.core.generation.stopping import StopReader


class AnswerTokens(NamedTuple):
    """An answer as it was generated."""

    tokens: list[int]
    """Without the stop token. Padding stands in the positions by which media that a head has made are read."""
    made: tuple[Media, ...] = ()
    """What heads have made of it, in the order of its spans."""


class _Ids:
    """Different ids, in the order in which they came."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._room = np.empty(16, np.int64)

    def add(self, token: int) -> None:
        if token in self._known:
            return
        if len(self._known) == len(self._room):
            self._room = np.concatenate([self._room, np.empty_like(self._room)])
        self._room[len(self._known)] = token
        self._known.add(token)

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        return self._room[: len(self._known)]


class GrowingAnswer:
    """An answer that is being generated.

    Args:
        budget: tokens that it may have, the stop token included.
        seed: what is drawn depends on it alone, not on the answers beside.
        decoding: how its tokens are chosen.
        text: what reads strings that end it; without one there are none.
    """

    def __init__(
        self,
        grammar: Grammar,
        need: Need,
        budget: int,
        seed: int,
        decoding: Decoding,
        text: TextTokenizer | None = None,
    ) -> None:
        self.grammar = grammar.answer(need, budget)
        self.decoding = decoding
        self._places, self._vocabulary = grammar.place, grammar.vocabulary
        names = ("", *grammar.spans)
        self._settings = {name: Settings.of(decoding, name) for name in names}
        self.penalised = any(one.repetition_penalty != 1 for one in self._settings.values())
        """Whether tokens are less likely once they were said, in any modality."""
        self.said: dict[int, _Ids] = {}
        """What was said of text and of each codebook, by the first id of its block, where that is penalised."""
        self._stop = grammar.stop
        watched = decoding.stop and text is not None
        self._stops = StopReader(grammar.vocabulary, text, decoding.stop) if watched and text is not None else None
        self.random = np.random.Generator(np.random.Philox(seed))
        self.tokens: list[int] = []
        """Without the stop token."""
        self.made: list[Media] = []
        """What heads have made of it."""

    @property
    def given(self) -> AnswerTokens:
        """What there is of it."""
        return AnswerTokens(self.tokens, tuple(self.made))

    @property
    def done(self) -> bool:
        """Whether no token follows."""
        return self.grammar.done or self.stopped

    @property
    def stopped(self) -> bool:
        """Whether a string that ends the answer was said. Its tokens are part of what was generated."""
        return self._stops is not None and self._stops.found

    def place(self) -> Place:
        """What may come next."""
        return self._places(self.grammar.state())

    @property
    def settings(self) -> Settings:
        """How the next token is chosen."""
        return self._settings[self.grammar.modality]

    @property
    def guided(self) -> bool:
        """Whether the next token is a code that is guided."""
        return self.grammar.in_span and is_guided(self.decoding)

    def advance(self, token: int) -> ControlToken | None:
        """Takes the token that was chosen. Returns the control token that it completes, if it does, whose action has
        been done to this answer: `done` says whether it ends here. What it means for other answers of a conversation
        (`interrupt`, `silence`) is for the caller to do."""
        said = self.grammar.advance(token)
        if token != self._stop:
            self.tokens.append(token)
            if self.penalised:
                block = self._vocabulary.blocks[self._vocabulary.block_of[token]]
                self.said.setdefault(block.start, _Ids()).add(token)
            if self._stops is not None:
                self._stops.take(token)
        return said

    def take(self, media: Media, positions: Sequence[int]) -> None:
        """Takes what a head has made of the span that is open, and the tokens in the positions by which it is read."""
        self.grammar.made(len(positions))
        if self._stops is not None:
            self._stops.made(media)
        self.made.append(media)
        self.tokens += positions
