"""Choosing tokens from logits. N sequences, V rows of the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor


def sample(logits: Tensor, allowed: Tensor, temperature: Tensor, top_p: float, generator: torch.Generator) -> Tensor:
    """One token per sequence.

    `logits` float32 `[N, V]`, `allowed` bool `[N, V]`, `temperature` float32 `[N]` where 0 is greedy; `top_p` keeps the
    smallest set of tokens whose probability reaches it (Holtzman et al. 2020, arXiv 1904.09751). Returns int64 `[N]`.
    """
    logits = logits.masked_fill(~allowed, float("-inf"))
    greedy = logits.argmax(dim=-1)
    drawn = temperature > 0
    if not bool(drawn.any()):
        return greedy
    probabilities = (logits / temperature.clamp(min=1e-6)[:, None]).softmax(dim=-1)
    if top_p < 1.0:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        outside = ordered.cumsum(dim=-1) - ordered >= top_p
        outside[:, 0] = False  # the likeliest token stays, whatever `top_p`
        ordered[outside] = 0.0
        probabilities = torch.zeros_like(probabilities).scatter_(1, order, ordered)
    chosen = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    return torch.where(drawn, chosen, greedy)
