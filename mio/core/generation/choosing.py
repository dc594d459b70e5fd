"""The next tokens of answers, of what the transformer gave at their last positions.

Answers whose next token lies in the same part of the vocabulary are scored together, and only over that part. A token
that has no alternative needs no score.

N answers, D width, V columns of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mio.core.generation.growing import GrowingAnswer
from mio.core.generation.sampling import sample
from mio.core.generation.states import Place, Window
from mio.core.model.transformer import Transformer


def choose(
    transformer: Transformer, answers: Sequence[GrowingAnswer], hidden: Tensor, unasked: Tensor | None = None
) -> list[int]:
    """The next token of each answer; -1 where scores are not finite.

    Args:
        hidden: `[N, D]`, what the transformer gave at each last position.
        unasked: `[N, D]`, the same of each open span had nothing been asked, where spans are guided (see
            `guidance.py`).
    """
    places = [answer.place() for answer in answers]
    draws = [answer.random.random() for answer in answers]  # one per token, whether it is needed or not
    tokens = [place.only for place in places]
    together: dict[Window, list[int]] = {}
    for row, place in enumerate(places):
        if place.only < 0:
            together.setdefault(place.window, []).append(row)
    for window, rows in together.items():
        of_all = len(rows) == len(answers)
        own = [answers[row] for row in rows]
        index = rows if not of_all else slice(None)
        logits = scores(transformer, hidden[index], window)
        if unasked is not None and any(answer.guided for answer in own):
            logits = _guided(logits, scores(transformer, unasked[index], window), own)
        _close(logits, [places[row] for row in rows])
        columns = sample(
            logits,
            [answer.settings for answer in own],
            [draws[row] for row in rows],
            [_said(answer, window) for answer in own] if any(answer.penalised for answer in own) else (),
        )
        for row, column in zip(rows, columns, strict=True):
            tokens[row] = window.token(column) if column >= 0 else -1
    return tokens


def scores(transformer: Transformer, hidden: Tensor, window: Window) -> Tensor:
    """float32 `[N, V]`: scores of the columns of a window, of hidden `[N, D]`."""
    parts = [transformer.logits(hidden, last, first) for first, last in window.runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _close(logits: Tensor, places: Sequence[Place]) -> None:
    """Makes what may not come impossible."""
    first = places[0]
    if all(place is first for place in places):
        if first.closed:
            logits.index_fill_(1, _columns(first, logits.device), -torch.inf)
        return
    if sum(len(place.closed) for place in places) > _MANY * len(places):
        logits.masked_fill_(torch.stack([_mask(place, logits.device) for place in places]), -torch.inf)
        return
    closed = [(row, column) for row, place in enumerate(places) for column in place.closed]
    if closed:  # logits of packed matrices have gaps between their rows
        rows, columns = torch.tensor(closed, device=logits.device).T
        logits[rows, columns] = -torch.inf


_MANY = 16
"""Columns of a row that are closed by themselves, and not by a mask of all of them."""


def _mask(place: Place, device: torch.device) -> Tensor:
    """bool `[V]`: whether a column of a place may not come."""
    key = "mask", device
    mask: Tensor | None = place.kept.get(key)
    if mask is None:
        with torch.inference_mode(False):
            mask = torch.zeros(place.window.width, dtype=torch.bool, device=device)
            mask[_columns(place, device)] = True
            place.kept[key] = mask
    return mask


def _columns(place: Place, device: torch.device) -> Tensor:
    """int64: columns of a place that may not come."""
    columns: Tensor | None = place.kept.get(device)
    if columns is None:
        with torch.inference_mode(False):
            columns = place.kept[device] = torch.tensor(place.closed, device=device)
    return columns


def _guided(asked: Tensor, unasked: Tensor, answers: Sequence[GrowingAnswer]) -> Tensor:
    """Logits under classifier-free guidance (see `guidance.py`), of the answers that are guided."""
    weights = [answer.decoding.guidance if answer.guided else 1.0 for answer in answers]
    weight = torch.tensor(weights, dtype=torch.float32, device=asked.device)[:, None]
    return torch.where(weight == 1, asked, unasked + weight * (asked - unasked))


def _said(answer: GrowingAnswer, window: Window) -> npt.NDArray[np.int64] | None:
    """Columns of a window that an answer has said, where that is penalised."""
    if answer.settings.repetition_penalty == 1:
        return None
    found = [answer.said[block.start].ids + window.column(block.start) - block.start
             for block in window.blocks if block.start in answer.said]  # fmt: skip
    return np.concatenate(found) if found else None
