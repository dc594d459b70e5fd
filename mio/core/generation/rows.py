"""Sequences that are decoded together: a row of a key-value cache each, and what its keys and values are of.

D width of the transformer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from mio.core.data.items import change_items, pack_items
from mio.core.generation.graphs import StaticSteps, can_capture
from mio.core.model.transformer import Transformer
from mio.core.tokens.codecs import Codecs, name_of
from mio.core.tokens.rendered import Item, Prompt


class NoRoom(Exception):
    """Keys and values do not fit into memory."""


@dataclass
class Held:
    """Whose keys and values a row holds."""

    tokens: list[int] = field(default_factory=list)
    items: Sequence[Item] = ()
    used: int = 0
    """When it was used last."""

    def shared(self, prompt: Prompt) -> int:
        """Tokens that a prompt and this row begin with alike, media included; never the whole prompt, whose last token
        gives the first of the answer, and no part of an item."""
        least = min(len(prompt.tokens) - 1, len(self.tokens))
        same = np.asarray(prompt.tokens[:least]) == np.asarray(self.tokens[:least], dtype=np.int64)
        count = least if same.all() else int(same.argmin())
        there = {(item.first, item.positions, name_of(item.media)) for item in self.items}
        for item in prompt.items:
            if item.first >= count:
                break
            whole = item.first + item.positions <= count
            if not whole or (item.first, item.positions, name_of(item.media)) not in there:
                return item.first
        return count


class Rows:
    """A cache of so many sequences, and their last hidden states. Rows that no answer is made on keep what they hold,
    for prompts that begin with it.

    Raises:
        NoRoom: keys and values do not fit into memory.
    """

    def __init__(self, transformer: Transformer, codecs: Codecs | None, count: int, capacity: int) -> None:
        self._transformer, self._codecs = transformer, codecs
        try:
            self.cache = transformer.cache(count, capacity)
        except RuntimeError as error:  # torch's error for too little memory
            raise NoRoom from error
        weight = transformer.head_weight
        self.hidden = torch.zeros(count, transformer.config.width, dtype=weight.dtype, device=weight.device)
        """`[rows, D]`: what the transformer gave at the last position of each."""
        self._static = StaticSteps(transformer, self.cache) if can_capture(transformer) else None
        self.held = [Held() for _ in range(count)]
        self._clock = 0
        self.read_tokens = self.reused_tokens = 0
        """Tokens of prompts that were computed, and those whose keys and values were there."""

    def __len__(self) -> int:
        return len(self.held)

    @property
    def device(self) -> torch.device:
        return self.hidden.device

    def swap(self, first: int, second: int) -> None:
        """Has two rows change places."""
        if first == second:
            return
        both, turned = [first, second], [second, first]
        held = self.held[first], self.held[second]
        self.cache.swap(first, second, max(len(one.tokens) for one in held))
        self.hidden[both] = self.hidden[turned]
        self.held[second], self.held[first] = held

    def clear(self, row: int) -> None:
        """Has a row hold nothing: NaN in slots that nobody sees would spoil what comes after."""
        cache = self.cache.sequences(row, row + 1)
        cache.begin_with(0, 0, 0)
        for part in (cache.keys, cache.values, self.hidden[row]):
            part.zero_()
        self.held[row] = Held()

    def best(self, prompt: Prompt) -> tuple[int, int]:
        """The row that holds most of what a prompt begins with, and how many tokens that is."""
        shared = [one.shared(prompt) if one.tokens else 0 for one in self.held]
        row = max(range(len(shared)), key=shared.__getitem__)
        return row, shared[row]

    def oldest(self, start: int) -> int:
        """Of the rows from `start` on, the one that was used the longest time ago."""
        return min(range(start, len(self)), key=lambda row: self.held[row].used)

    def begin(self, row: int, source: int, kept: int) -> None:
        """Has a row hold the first `kept` tokens of another, or of its own."""
        self.cache.begin_with(row, source, kept)
        held = self.held[source]
        self._clock += 1
        self.held[row] = Held(held.tokens[:kept], [item for item in held.items if item.end <= kept], self._clock)
        self.reused_tokens += kept

    def read(self, start: int, prompts: Sequence[Prompt]) -> None:
        """Computes what neighbouring rows, from `start` on, do not hold yet of their prompts, in one pass."""
        kept = [len(held.tokens) for held in self.held[start : start + len(prompts)]]
        counts = [len(prompt.tokens) - there for prompt, there in zip(prompts, kept, strict=True)]
        longest = max(counts)
        tokens = np.zeros((len(prompts), longest), np.int64)
        placed = []
        for row, (prompt, there) in enumerate(zip(prompts, kept, strict=True)):
            tokens[row, : counts[row]] = prompt.tokens[there:]
            placed += [(row * longest - there, item) for item in prompt.items if item.first >= there]
        items = pack_items(placed, self._codecs) if self._codecs is not None else {}
        cache = self.cache.sequences(start, start + len(prompts))
        found = self._transformer(
            torch.from_numpy(tokens).to(self.device),
            cache.positions(longest),
            cache=cache,
            items=change_items(items, lambda tensor: tensor.to(self.device)),
        ).hidden
        lengths = torch.tensor(counts, device=self.device)
        cache.advance(lengths)
        self.hidden[start : start + len(prompts)] = found[torch.arange(len(prompts), device=self.device), lengths - 1]
        for row, prompt in enumerate(prompts, start):
            self.held[row].tokens, self.held[row].items = [int(token) for token in prompt.tokens], prompt.items
        self.read_tokens += sum(counts)

    def feed(self, tokens: Sequence[int]) -> None:
        """Computes a token of each of the first rows."""
        count = len(tokens)
        cache = self.cache.sequences(0, count)
        if self._static is not None:
            self.hidden[:count] = self._static(tokens)
        else:
            self.hidden[:count] = self._transformer.decode(torch.tensor(tokens, device=self.device), cache)
        cache.advance(1)
        self._clock += 1
        for held, token in zip(self.held, tokens, strict=False):
            held.tokens.append(token)
            held.used = self._clock

    def extend(self, row: int, item: Item, padding: Sequence[int]) -> None:
        """Notes the positions by which what a head has made on a row was read."""
        held = self.held[row]
        held.items = (*held.items, item)
        held.tokens += padding


def arranged(rows: Rows, wanted: Sequence[int], swapped: Callable[[int, int], None]) -> None:
    """Brings the rows `wanted` to the front, in any order. `swapped` is told which rows change places."""
    count, ahead = len(wanted), set(wanted)
    misplaced = [row for row in wanted if row >= count]
    for hole in (row for row in range(count) if row not in ahead):
        row = misplaced.pop()
        rows.swap(hole, row)
        swapped(hole, row)
