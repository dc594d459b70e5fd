"""Answers that are being generated: one step of any number of them, whoever keeps their keys and values.

N answers, D width, V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mio.core.contract.controls import ControlToken
from mio.core.contract.values import Decoding, Media
from mio.core.generation.grammar import AnswerGrammar, Grammar, Need
from mio.core.generation.sampling import HOTTEST, sample
from mio.core.model.transformer import Transformer


class AnswerTokens(NamedTuple):
    """An answer as it was generated."""

    tokens: list[int]
    """Without the stop token. Padding stands in the positions by which media that a head has made are read."""
    made: tuple[Media, ...] = ()
    """What heads have made of it, in the order of its spans."""


class GrowingAnswer:
    """An answer that is being generated.

    Args:
        budget: tokens that it may have, the stop token included.
        seed: what is drawn depends on it alone, not on the answers beside.
        decoding: how it is sampled.
    """

    def __init__(self, grammar: Grammar, need: Need, budget: int, seed: int, decoding: Decoding) -> None:
        self.grammar = AnswerGrammar(grammar, need, budget)
        self._stop = grammar.stop
        self.decoding = decoding
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
        return self.grammar.done

    def advance(self, token: int) -> ControlToken | None:
        """Takes the token that was chosen. Returns the control token that it completes, if it does, whose action has
        been done to this answer: `done` says whether it ends here. What it means for other answers of a conversation
        (`interrupt`, `silence`) is for the caller to do."""
        said = self.grammar.advance(token)
        if token != self._stop:
            self.tokens.append(token)
        return said

    def take(self, media: Media, positions: Sequence[int]) -> None:
        """Takes what a head has made of the span that is open, and the tokens in the positions by which it is read."""
        self.grammar.made(len(positions))
        self.made.append(media)
        self.tokens += positions


def choose(
    transformer: Transformer,
    grammar: Grammar,
    answers: Sequence[GrowingAnswer],
    hidden: Tensor,
    unasked: Tensor | None = None,
) -> Tensor:
    """The next token of each answer, int64 `[N]`, of what the transformer gave at its last position, `[N, D]`, and of
    its open span had nothing been asked, `unasked` `[N, D]`, for spans that are guided (see `guidance.py`); -1 where
    the scores are not finite."""
    device = hidden.device
    indices = [answer.grammar.mask_index() for answer in answers]
    allowed = grammar.masks(device)[torch.tensor(indices, device=device)]
    settings = [
        (one.decoding.media_temperature if one.grammar.in_span else one.decoding.temperature, one.decoding.top_p)
        for one in answers
    ]
    temperature, top_p = torch.tensor(
        [[min(value, HOTTEST) for value in column] for column in zip(*settings, strict=True)],
        dtype=torch.float32, device=device,
    )  # fmt: skip
    draws = torch.tensor([answer.random.random() for answer in answers], dtype=torch.float32, device=device)
    size = grammar.vocabulary.size
    logits = transformer.logits(hidden, size)
    guidance = [one.decoding.guidance if one.grammar.in_span and is_guided(one.decoding) else 1.0 for one in answers]
    if unasked is not None and any(weight != 1 for weight in guidance):
        logits = guided(logits, transformer.logits(unasked, size), torch.tensor(guidance, device=device))
    return sample(logits, allowed[:, :size], temperature, top_p, draws)


def is_guided(decoding: Decoding) -> bool:
    """Whether spans of codes are guided: a guidance of 1 gives the answer's own logits, 0 is off."""
    return decoding.guidance not in (0, 1)


def guided(asked: Tensor, unasked: Tensor, guidance: Tensor) -> Tensor:
    """Logits float32 `[N, V]` under classifier-free guidance (see `guidance.py`) of these weights, float32 `[N]`; a
    weight of 1 gives those of `asked`."""
    weight = guidance[:, None]
    return torch.where(weight != 1, unasked + weight * (asked - unasked), asked)
