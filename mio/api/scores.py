"""How likely a model finds a document, by token and by part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mio.core.contract.controls import CONTROL, Control
from mio.core.contract.values import TEXT, Codes, Media
from mio.core.generation.scoring import TokenScores, contents
from mio.core.tokens.documents import Document
from mio.core.tokens.visitor import Visitor
from mio.core.tokens.vocabulary import Vocabulary

FORM = -1
"""In place of the number of a part: a token of the form that the document has, such as the end of a turn."""


@dataclass(frozen=True)
class PartScore:
    """Of one part of what was scored."""

    type: str
    """`text`, `control`, or the modality."""
    role: str
    """`system`, `user` or `assistant` of conversations and answers; empty for a document without turns."""
    first: int
    end: int
    """Its tokens are first ... end - 1."""
    tokens: int
    """Those that have a log-likelihood."""
    log_likelihood: float
    """Their sum."""
    losses: tuple[float, ...] = ()
    """Of each item in it that a head would make, the head's own loss: no likelihood."""


@dataclass(frozen=True, eq=False, repr=False)
class Score:
    """Log-likelihoods (natural logarithms) of a document of n tokens, among all tokens of the vocabulary."""

    tokens: npt.NDArray[np.int32]
    """int32 `[n]`."""
    strings: tuple[str, ...]
    """Token strings."""
    log_likelihoods: npt.NDArray[np.float32]
    """float32 `[n]`: of each token after those before it. NaN where nothing is predicted: at the first, and at
    positions that encoders read or in which heads make media."""
    part: npt.NDArray[np.int32]
    """int32 `[n]`: number of the part that each token belongs to; -1 for what belongs to the form."""
    counted: npt.NDArray[np.bool_]
    """bool `[n]`: what `log_likelihood` and `perplexity` are of: what training would learn of the document, and of an
    answer to a prompt the answer alone, with its end."""
    parts: tuple[PartScore, ...]

    @property
    def log_likelihood(self) -> float:
        """Sum over the tokens that count."""
        return float(self.log_likelihoods[self.counted].sum(dtype=np.float64))

    @property
    def perplexity(self) -> float:
        """exp of minus the mean over the tokens that count; NaN where none does."""
        count = int(self.counted.sum())
        return math.exp(-self.log_likelihood / count) if count else math.nan

    def __repr__(self) -> str:
        return (
            f"Score({len(self.tokens)} tokens, {len(self.parts)} parts, log_likelihood={self.log_likelihood:.2f}, "
            f"perplexity={self.perplexity:.3f})"
        )


class _Type(Visitor[str]):
    """Type of a part."""

    def text(self, text: str) -> str:  # noqa: ARG002
        return TEXT

    def media(self, media: Media) -> str:
        return media.modality

    def codes(self, codes: Codes) -> str:
        return codes.modality

    def control(self, control: Control) -> str:  # noqa: ARG002
        return CONTROL


def scored(
    found: TokenScores, document: Document, turns: Sequence[tuple[str, int]], after: int, vocabulary: Vocabulary
) -> Score:
    """The score of a document.

    Args:
        turns: role and number of values of each turn that somebody gave; empty for a document without turns.
        after: index of the first segment that counts.
    """
    places = contents(document, [count for _, count in turns])
    roles = [role for role, count in turns for _ in range(count)] or [""] * len(places)
    part = np.full(len(document.segments), FORM, np.int32)
    part[places] = np.arange(len(places))
    of_tokens = part[found.segments]
    predicted = np.isfinite(found.log_likelihoods)
    parts = []
    for number, (place, role) in enumerate(zip(places, roles, strict=True)):
        [own] = np.nonzero(of_tokens == number)
        first, end = (int(own[0]), int(own[-1]) + 1) if len(own) else (0, 0)
        mine = found.log_likelihoods[own[predicted[own]]]
        losses = tuple(one.loss for one in found.items if found.segments[one.opening] == place)
        kind = _TYPE.visit(document.segments[place].content)
        parts.append(PartScore(kind, role, first, end, len(mine), float(mine.sum(dtype=np.float64)), losses))
    return Score(
        found.tokens,
        tuple(vocabulary.token(int(token)) for token in found.tokens),
        found.log_likelihoods,
        of_tokens,
        found.learnt & (found.segments >= after),
        tuple(parts),
    )


_TYPE = _Type()
