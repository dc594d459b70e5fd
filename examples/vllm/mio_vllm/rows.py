"""Rows of logits under the grammar."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mio_vllm.grammar import Answer
from mio_vllm.masks import Masks
from mio_vllm.requests import Following

if TYPE_CHECKING:
    from torch import Tensor

Places = Mapping[int, tuple[Following, Answer]]
"""By row: whose it is, and the answer as it is there."""


def restrict(logits: Tensor, places: Places, masks: Masks) -> None:
    """Leaves the tokens that may come of each row, float `[rows, V]`, at the temperature of its place; in place."""
    if not places:
        return
    rows = list(places)
    every = rows == list(range(len(logits)))
    part = logits if every else logits[rows]
    part.masked_fill_(masks.forbidden([answer.allowed() for _, answer in places.values()], logits), -math.inf)
    scales = [following.scale(answer) for following, answer in places.values()]
    if any(scale != 1.0 for scale in scales):
        part *= logits.new_tensor([1.0 if math.isinf(scale) else scale for scale in scales])[:, None]
        if greedy := [number for number, scale in enumerate(scales) if math.isinf(scale)]:
            best = part[greedy]
            part[greedy] = best.masked_fill(best < best.amax(dim=-1, keepdim=True), -math.inf)
    if not every:
        logits[rows] = part
