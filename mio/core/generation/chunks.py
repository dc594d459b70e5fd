"""Spans while their tokens come: which frames are whole, and what media they make so far.

Q codebooks of the view that is written, F frames of a whole span, f frames that have become whole.

| layout | tokens of codes until frame n (from 0) is whole |
| --- | --- |
| `flat` | n + 1 |
| `frame_major` | Q (n + 1) |
| `delayed` | Q (n + 1) + Q (Q - 1) / 2, at most: where the span ends, fewer |
| `codebook_major` | (Q - 1) F + n + 1 |
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mio.core.contract.streams import SpanDecoder, joined
from mio.core.contract.values import CodeArray, Codes
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.decoding_errors import naming_modality
from mio.core.tokens.documents import GENERATE
from mio.core.tokens.vocabulary import Vocabulary


class GrowingSpan:
    """Codes of one span as it is written, whose tokens come one by one.

    In every layout the codes of a codebook come frame after frame, so that the codebook with the fewest says how many
    frames are whole.
    """

    def __init__(self, vocabulary: Vocabulary, modality: str) -> None:
        view = vocabulary.modality(modality).view(GENERATE)
        self._vocabulary = vocabulary
        self._starts = {vocabulary.code_ids(modality, codebook).start: row for row, codebook in enumerate(view)}
        self._rows: list[list[int]] = [[] for _ in view]
        self._taken = 0

    def push(self, token: int) -> None:
        """Takes the next token behind the one that opened the span."""
        block = self._vocabulary.blocks[self._vocabulary.block_of[token]]
        if (row := self._starts.get(block.start)) is not None:
            self._rows[row].append(token - block.start)

    @property
    def whole(self) -> int:
        """Frames that are whole."""
        return min(map(len, self._rows), default=0)

    def take(self) -> CodeArray | None:
        """Codes int64 `[Q, f]` of the frames that have become whole since the last time; None if there are none."""
        first, self._taken = self._taken, self.whole
        if first == self._taken:
            return None
        return np.array([row[first : self._taken] for row in self._rows], dtype=np.int64)


class GrowingMedia:
    """Media of one span, decoded once: piece by piece where its detokenizer streams, or else when it is whole."""

    def __init__(self, codecs: Codecs, vocabulary: Vocabulary, modality: str) -> None:
        self.modality = modality
        self._codecs = codecs
        self._span = GrowingSpan(vocabulary, modality)
        self._decoder: SpanDecoder | None = None
        self._whole = False
        """Whether it can only be decoded as a whole."""
        self._pieces: list[Any] = []

    @property
    def given(self) -> bool:
        """Whether a piece of it was given out."""
        return bool(self._pieces)

    def push(self, token: int) -> Any:
        """Takes the next token. Returns a piece of the media that is known now; None if there is none."""
        self._span.push(token)
        if self._whole or (codes := self._span.take()) is None:
            return None
        if self._decoder is None:
            self._decoder = self._codecs.span_decoder(self.modality)
            self._whole = self._decoder is None
        if self._decoder is None:
            return None
        with naming_modality(self.modality):
            return self._kept(self._decoder.push(codes))

    def close(self, codes: Codes) -> tuple[Any, Any]:
        """The span is over and has these codes. Returns the last piece of the media, or None, and the whole."""
        if self._decoder is None:
            view = self._codecs.modalities[self.modality].view(GENERATE)
            return None, self._codecs.decode(self.modality, codes.of(view))
        with naming_modality(self.modality):
            return self._kept(self._decoder.finish()), joined(self._pieces)

    def _kept(self, piece: Any) -> Any:
        if piece is not None:
            self._pieces.append(piece)
        return piece
