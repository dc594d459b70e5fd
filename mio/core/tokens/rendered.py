"""What documents are once they are rendered: tokens, weights, spans, and the items that encoders read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mio.core.contract.encoders import Arrays
from mio.core.contract.values import Media
from mio.core.tokens.spans import TokenArray

WeightArray = npt.NDArray[np.float32]


class Item(NamedTuple):
    """Media that an encoder reads, in its place in a document."""

    modality: str
    first: int
    """Of its positions, without the tokens that open and close the span."""
    positions: int
    media: Media
    arrays: Arrays | None = None
    """What the encoder is given, once it is prepared."""

    @property
    def end(self) -> int:
        """Behind its positions."""
        return self.first + self.positions


class Made(NamedTuple):
    """Media that a head learns to make, in its place in a document."""

    modality: str
    opening: int
    """Position of the token that opens its span. The head's own positions follow."""
    positions: int
    """Of the head's own."""
    weight: float
    """Of its loss, by which that counts among those of the tokens."""
    media: Media
    arrays: Arrays | None = None
    """What is learnt, once it is prepared."""

    @property
    def end(self) -> int:
        """Behind its own positions."""
        return self.opening + 1 + self.positions


class Blank(NamedTuple):
    """A span that holds code 0 until its codes are known."""

    first: int
    end: int
    media: Media
    view: str


class Said(NamedTuple):
    """A control token in a document."""

    first: int
    end: int
    number: int
    """Among the vocabulary's control tokens, from 1 on."""


class Prompt(NamedTuple):
    """What a model reads before it answers."""

    tokens: TokenArray
    """int32 `[n]`."""
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, eq=False)
class Rendered:
    """One document as tokens."""

    tokens: TokenArray
    """int32 `[n]`."""
    weights: WeightArray
    """float32 `[n]`: weight of each token's cross-entropy when it is the target."""
    spans: TokenArray
    """int32 `[S, 2]`: first position and end of each span, which no cut may fall into."""
    items: tuple[Item, ...] = ()
    """Media that encoders read, in order; their positions hold padding of weight 0."""
    blanks: tuple[Blank, ...] = ()
    """Spans without codes, in order."""
    controls: tuple[Said, ...] = ()
    """Control tokens, in order."""
    made: tuple[Made, ...] = ()
    """Media that heads learn to make, in order."""

    def __len__(self) -> int:
        return len(self.tokens)

    def truncate(self, size: int) -> Rendered:
        """The longest beginning of at most `size` tokens that cuts no span; itself where it is no longer than that."""
        if size >= len(self.tokens):
            return self
        inside = (self.spans[:, 0] < size) & (size < self.spans[:, 1])
        if inside.any():
            size = int(self.spans[inside.argmax(), 0])
        return Rendered(
            self.tokens[:size],
            self.weights[:size],
            self.spans[self.spans[:, 1] <= size],
            tuple(item for item in self.items if item.end <= size),
            tuple(blank for blank in self.blanks if blank.end <= size),
            tuple(said for said in self.controls if said.first < size),
            tuple(one for one in self.made if one.end <= size),
        )

    def control_numbers(self) -> npt.NDArray[np.int16]:
        """Of each token, the number of the control token that it belongs to, `[n]`; 0 for others."""
        numbers = np.zeros(len(self.tokens), np.int16)
        for first, end, number in self.controls:
            numbers[first:end] = number
        return numbers
