"""One engine for two sequences: one answers while the other listens, over one copy of the weights.

Both have a row of one key-value cache. A prompt is read on its own row without touching the other, from the first token
on that no row holds already; every step then computes one token of each sequence that goes on, in one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mio.core.contract.values import Decoding, Media
from mio.core.data.items import change_items, pack_items
from mio.core.errors import UserError
from mio.core.generation.grammar import Grammar
from mio.core.generation.growing import GrowingAnswer, choose
from mio.core.generation.making import Making
from mio.core.model.transformer import Transformer
from mio.core.tokens.codecs import Codecs, name_of
from mio.core.tokens.rendered import Item, Prompt

ROWS = 2


@dataclass
class _Held:
    """Whose keys and values a row of the cache holds."""

    tokens: list[int] = field(default_factory=list)
    items: Sequence[Item] = ()


class Duplex:
    """The two sequences.

    Args:
        codecs: what prepares media for encoders.
        capacity: positions of each.
    """

    def __init__(
        self, transformer: Transformer, grammar: Grammar, codecs: Codecs, decoding: Decoding, capacity: int
    ) -> None:
        self.transformer = transformer
        self._grammar, self._codecs, self._decoding = grammar, codecs, decoding
        self._making = Making(transformer, grammar.vocabulary, codecs)
        try:
            with torch.inference_mode():
                self._cache = transformer.cache(ROWS, capacity)
        except RuntimeError as error:  # torch's error for too little memory
            raise UserError(
                f"keys and values of {ROWS} sequences of {capacity} positions do not fit into memory; train with a "
                "shorter context, or take a machine with more memory"
            ) from error
        self._held = [_Held() for _ in range(ROWS)]
        self._answers: list[GrowingAnswer | None] = [None] * ROWS
        self._hidden: list[Tensor | None] = [None] * ROWS
        """What the transformer gave at the last position of each, `[D]`."""
        self.read_tokens = self.reused_tokens = 0
        """Tokens of prompts that were computed, and those whose keys and values were there."""

    @property
    def free(self) -> list[int]:
        """Rows without an answer."""
        return [row for row, answer in enumerate(self._answers) if answer is None]

    @torch.inference_mode()
    def read(self, prompt: Prompt, answer: GrowingAnswer) -> int:
        """Reads a prompt for an answer on a free row, and returns the row: the one that holds most of the prompt. What
        only the other holds is copied. Raises `DataError` for media that an encoder cannot read, and changes nothing
        then."""
        shared = [_shared(prompt, held) for held in self._held]
        row = max(self.free, key=lambda one: shared[one])
        source = max(range(ROWS), key=lambda one: (shared[one], one == row))
        kept = shared[source]
        device = self._cache.keys.device
        unread = [(-kept, item) for item in prompt.items if item.first >= kept]
        items = change_items(pack_items(unread, self._codecs), lambda tensor: tensor.to(device))
        tokens = torch.as_tensor(np.asarray(prompt.tokens[kept:], np.int64), device=device)[None]
        self._cache.begin_with(row, source, kept)
        one = self._cache.sequence(row)
        with torch.autocast(device.type, enabled=False):
            hidden = self.transformer(tokens, one.positions(tokens.shape[1]), cache=one, items=items).hidden
        one.advance(tokens.shape[1])
        self._held[row] = _Held([int(token) for token in prompt.tokens], prompt.items)
        self._hidden[row], self._answers[row] = hidden[0, -1], answer
        self.read_tokens += tokens.shape[1]
        self.reused_tokens += kept
        return row

    @torch.inference_mode()
    def choose(self, rows: Sequence[int]) -> dict[int, int]:
        """The next token of the sequences on these rows, which do not take it yet."""
        answers = [answer for row in rows if (answer := self._answers[row]) is not None]
        hidden = torch.stack([hidden for row in rows if (hidden := self._hidden[row]) is not None])
        with torch.autocast(hidden.device.type, enabled=False):
            chosen = choose(self.transformer, self._grammar, answers, hidden)
        return dict(zip(rows, chosen.tolist(), strict=True))

    @torch.inference_mode()
    def feed(self, tokens: Mapping[int, int]) -> dict[int, Media]:
        """Computes one token of each of these rows, in one batch, and has heads make the media of spans that these
        open. Returns the media by row."""
        rows = sorted(tokens)
        cache = self._cache if len(rows) == ROWS else self._cache.sequence(rows[0])
        device = self._cache.keys.device
        new = torch.tensor([[tokens[row]] for row in rows], device=device)
        with torch.autocast(device.type, enabled=False):
            hidden = self.transformer(new, cache.positions(1), cache=cache).hidden
        cache.advance(1)
        for place, row in enumerate(rows):
            self._held[row].tokens.append(tokens[row])
            self._hidden[row] = hidden[place, 0]
        answers = {row: answer for row in rows if (answer := self._answers[row]) is not None}
        opened = {row: answer for row, answer in answers.items() if answer.grammar.opened}
        return self._make(opened) if opened else {}

    def _make(self, opened: Mapping[int, GrowingAnswer]) -> dict[int, Media]:
        counts = {row: len(answer.tokens) for row, answer in opened.items()}
        with torch.autocast(self._cache.keys.device.type, enabled=False):
            states = self._making.make(opened, self._cache)
        for row, state in states.items():
            self._hidden[row] = state
        for row, answer in opened.items():
            held, padding, media = self._held[row], answer.tokens[counts[row] :], answer.made[-1]
            if padding:
                held.items = (*held.items, Item(media.modality, len(held.tokens), len(padding), media))
                held.tokens += padding
        return {row: answer.made[-1] for row, answer in opened.items()}

    def release(self, row: int) -> None:
        """The answer on a row is over. What the row holds stays, for prompts that begin with it."""
        self._answers[row] = self._hidden[row] = None


def _shared(prompt: Prompt, held: _Held) -> int:
    """Tokens that a prompt and a row begin with alike, media included; never the whole prompt, whose last token gives
    the first of the answer, and no part of an item."""
    least = min(len(prompt.tokens) - 1, len(held.tokens))
    same = np.asarray(prompt.tokens[:least]) == np.asarray(held.tokens[:least], dtype=np.int64)
    count = least if same.all() else int(same.argmin())
    there = {(item.first, item.positions, name_of(item.media)) for item in held.items}
    for item in prompt.items:
        if item.first >= count:
            break
        whole = item.first + item.positions <= count
        if not whole or (item.first, item.positions, name_of(item.media)) not in there:
            return item.first
    return count
