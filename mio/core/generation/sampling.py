"""Sampling of tokens from logits, each sequence with settings of its own. N sequences, V columns of logits.

Of a sequence's logits, in this order, as in transformers' `generate`: the repetition penalty, what the grammar closes,
temperature, top-k, top-p, min-p. Each of the last three looks at the probabilities that the ones before it leave. What
is drawn depends on a sequence's own logits, settings and random number, and not on what is beside it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mio.core.contract.validation import decoding_problems
from mio.core.contract.values import TEXT, Decoding
from mio.core.errors import UserError, nearest

SEEDS = 1 << 63


_COLDEST = 1e-6
"""Below this temperature only the likeliest tokens are drawn; much smaller ones overflow float32."""


class Settings(NamedTuple):
    """How one token is chosen (see `Decoding`)."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    @classmethod
    def of(cls, decoding: Decoding, modality: str = "") -> Settings:
        """Inside a span of this modality; between spans for none."""
        temperature = decoding.media_temperature if modality else decoding.temperature
        own = {name: getattr(decoding, name) for name in cls._fields} | {"temperature": temperature}
        said = decoding.by.get(modality or TEXT, {})
        return cls(**own | {name: value for name, value in said.items() if value is not None})


def check_decoding(decoding: Decoding, seed: int = 0, chosen: Collection[str] = ()) -> None:
    """Raises `UserError` that names every invalid option, among them modalities in `by` that are not `chosen`, those
    whose tokens are; none of these: any."""
    problems = decoding_problems(decoding)
    if not isinstance(seed, int) or not 0 <= seed < SEEDS:
        problems.append(f"`seed`: {seed!r} is not an integer from 0 to 2^63 - 1")
    if chosen and not problems:
        problems += [
            f"`by.{name:.40}`: no tokens of that modality are chosen{nearest(name, chosen)}; there are "
            f"{', '.join(sorted(chosen))}"
            for name in decoding.by
            if name not in chosen
        ]
    if problems:
        raise UserError("; ".join(f"sampling{'' if text.startswith('has ') else ':'} {text}" for text in problems))


def is_guided(decoding: Decoding) -> bool:
    """Whether there is anything to compute: a guidance of 1 gives the answer's own logits, 0 is off."""
    return decoding.guidance not in (0, 1)


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


def sample(
    logits: Tensor,
    settings: Sequence[Settings],
    draws: Sequence[float],
    said: Sequence[npt.NDArray[np.int64] | None] = (),
) -> list[int]:
    """One token per sequence.

    Where nothing is drawn and nothing was said that is penalised, that is an argmax alone.

    Args:
        logits: float32 `[N, V]`, -inf where a token may not come; may be overwritten.
        settings: of each sequence.
        draws: a random number in [0, 1) of each sequence, which chooses by inverse transform sampling.
        said: columns that the repetition penalty of each sequence is about, each once; left out: none.

    Returns:
        Columns; -1 where the largest logit is not finite, or one is no number.
    """
    if said:
        penalise(logits, settings, said)
    best, greedy = logits.max(dim=-1)
    drawn = any(one.temperature for one in settings)
    chosen = _drawn(logits, settings, draws, greedy) if drawn else greedy
    pairs = zip(chosen.tolist(), best.tolist(), strict=True)
    return [column if math.isfinite(score) else -1 for column, score in pairs]


def penalise(logits: Tensor, settings: Sequence[Settings], said: Sequence[npt.NDArray[np.int64] | None]) -> None:
    """Makes columns that were said less likely (Keskar et al. 2019, arXiv 1909.05858, section 4.1), in place. Arguments
    as `sample` has them."""
    rows = [(row, one) for row, one in enumerate(said) if one is not None and len(one)]
    if not rows:
        return
    width = logits.shape[1]
    places = torch.from_numpy(np.concatenate([row * width + one for row, one in rows])).to(logits.device)
    factors = np.repeat([settings[row].repetition_penalty for row, _ in rows], [len(one) for _, one in rows])
    penalty = torch.from_numpy(factors).to(logits.device, logits.dtype)
    flat = logits.view(-1)
    scores = flat[places]
    flat[places] = torch.where(scores < 0, scores * penalty, scores / penalty)


def _drawn(logits: Tensor, settings: Sequence[Settings], draws: Sequence[float], greedy: Tensor) -> Tensor:
    """Columns that are drawn, and those of `greedy` where nothing is."""
    drawn = [one.temperature > 0 for one in settings]
    warmth = [max(one.temperature, _COLDEST) if one.temperature else 1.0 for one in settings]
    probabilities = (logits / _column(warmth, logits)).softmax(dim=-1)
    if (least := _least(probabilities, settings)) is not None:
        probabilities.masked_fill_(probabilities < least, 0.0)
    reached = probabilities.cumsum(dim=-1)
    chosen = torch.searchsorted(reached, _column(draws, logits) * reached[:, -1:], right=True)
    chosen.clamp_(max=logits.shape[1] - 1)
    # sums that a GPU takes in parts may grow at a token of probability 0
    possible = probabilities.gather(1, chosen)[:, 0] > 0
    if not all(drawn):
        possible &= torch.tensor(drawn, device=logits.device)
    return torch.where(possible, chosen[:, 0], greedy)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    """float32 `[N, 1]`."""
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None]


def _least(probabilities: Tensor, settings: Sequence[Settings]) -> Tensor | None:
    """float32 `[N, 1]`: the probability of the least likely token that may be drawn, of each sequence; None where all
    may. A border of probabilities and not of ranks: of tokens that are equally likely all are drawn or none, and their
    order, which kernels for other sizes have differently, has no part in it."""
    cut = [row for row, one in enumerate(settings) if one.temperature and (one.top_k or one.top_p < 1)]
    least = None
    if len(cut) == len(settings):
        least = _least_kept(probabilities, settings)
    elif cut:
        least = probabilities.new_zeros(len(settings), 1)
        least[cut] = _least_kept(probabilities[cut], [settings[row] for row in cut])
    if any(one.min_p for one in settings):
        share = _column([one.min_p for one in settings], probabilities) * probabilities.amax(dim=-1, keepdim=True)
        least = share if least is None else torch.maximum(least, share)
    return least


def _least_kept(probabilities: Tensor, settings: Sequence[Settings]) -> Tensor:
    """`_least` by top-k and then top-p of all these sequences."""
    values, border = _descending(probabilities), None
    if any(one.top_k for one in settings):
        width = values.shape[1]
        last = [min(one.top_k or width, width) - 1 for one in settings]
        border = values.gather(1, torch.tensor(last, device=values.device)[:, None])
        values = values.where(values >= border, 0.0)
    nucleus = _column([one.top_p for one in settings], values)
    sums = values.cumsum(dim=-1)
    kept = (sums - values < nucleus * sums[:, -1:]) | (nucleus >= 1)
    kept[:, 0] = True  # the likeliest token stays, whatever `top_p`
    least = values.gather(1, kept.sum(dim=-1, keepdim=True) - 1)
    return least if border is None else torch.maximum(least, border)


def _descending(values: Tensor) -> Tensor:
    """The values of each row, the largest first."""
    if values.device.type != "cpu":
        return values.sort(dim=-1, descending=True).values
    # of 65,000 values torch (2.11) takes 7 ms and NumPy 0.1 ms, which sorts values without their places
    return torch.from_numpy(np.sort(values.detach().numpy(), axis=-1)).flip(-1)
