"""Sampling of tokens from logits. N sequences, V vocabulary rows."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor

from mio.core.contract.validation import decoding_problems
from mio.core.contract.values import Decoding
from mio.core.errors import UserError

HOTTEST = 1e6
"""Above this temperature all allowed tokens are equally likely; much larger ones overflow float32."""
SEEDS = 1 << 63


def check_decoding(decoding: Decoding, seed: int = 0) -> None:
    """Raises `UserError` that names every invalid option."""
    problems = decoding_problems(decoding)
    if not isinstance(seed, int) or not 0 <= seed < SEEDS:
        problems.append(f"`seed`: {seed!r} is not an integer from 0 to 2^63 - 1")
    if problems:
        raise UserError(f"sampling: {'; '.join(problems)}")


def not_finite() -> UserError:
    """Why an answer cannot go on whose scores are not finite."""
    return UserError(
        "the model's scores for the next token are not finite: its weights hold NaN or infinities, or its training "
        "diverged; take an earlier checkpoint, or train again with a lower learning rate"
    )


def item_seed(seed: int, task: str, item: int) -> int:
    """Seed of one item of a task: its answer does not depend on what else is decoded beside it."""
    digest = hashlib.sha256(json.dumps([seed, task, item]).encode()).digest()
    return int.from_bytes(digest[:8]) % SEEDS


def sample(logits: Tensor, allowed: Tensor, temperature: Tensor, top_p: Tensor, draws: Tensor) -> Tensor:
    """One token per sequence.

    `logits` float32 `[N, V]`, `allowed` bool `[N, V]`, `temperature` float32 `[N]` where 0 is greedy; `top_p` float32
    `[N]` keeps the smallest set of tokens whose probability reaches it (Holtzman et al. 2020, arXiv 1904.09751).
    `draws` float32 `[N]`, uniform in [0, 1), choose by inverse transform sampling: a sequence's token depends on its
    own row alone. Returns int64 `[N]`, -1 where a logit of an allowed token is not finite.
    """
    finite = (logits.isfinite() | ~allowed).all(1)
    logits = logits.masked_fill(~allowed, float("-inf"))
    greedy = torch.where(finite, logits.argmax(dim=-1), -1)
    drawn = finite & (temperature > 0)
    if not bool(drawn.any()):
        return greedy
    probabilities = (logits / temperature.clamp(min=1e-6)[:, None]).softmax(dim=-1)
    if bool((top_p < 1).any()):
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        outside = ordered.cumsum(dim=-1) - ordered >= torch.where(top_p < 1, top_p, 2.0)[:, None]
        outside[:, 0] = False  # the likeliest token stays, whatever `top_p`
        ordered[outside] = 0.0
        probabilities = torch.zeros_like(probabilities).scatter_(1, order, ordered)
    reached = probabilities.cumsum(dim=-1)
    chosen = torch.searchsorted(reached, draws[:, None] * reached[:, -1:], right=True)
    chosen.clamp_(max=logits.shape[1] - 1)
    # sums that a GPU takes in parts may grow at a token of probability 0
    possible = probabilities.gather(1, chosen)[:, 0] > 0
    return torch.where(drawn & possible, chosen[:, 0], greedy)
