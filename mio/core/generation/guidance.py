"""Classifier-free guidance of spans of codes: what is asked is followed more closely than the model would by itself.

The logits inside a span are u + g (c - u): c those of the answer, u those of the same span where nothing was asked, and
g `Decoding.guidance` (Ho and Salimans 2022, arXiv 2207.12598; of codes as in Janus, arXiv 2410.13848, section 3.4).

N answers, D width of the transformer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mio.core.generation.grammar import Grammar
from mio.core.generation.growing import GrowingAnswer
from mio.core.model.cache import KVCache
from mio.core.model.transformer import Transformer


class UnaskedSpans:
    """The open span of each answer, behind a prompt in which nothing is asked (`Grammar.unasked`).

    A cache has a row for each answer, and behind them one for each modality, which holds its prompt: a span that opens
    begins with a copy of it.

    Args:
        room: most tokens of an answer.
    """

    def __init__(self, transformer: Transformer, grammar: Grammar, answers: int, room: int) -> None:
        self._transformer, self._grammar = transformer, grammar
        self._prompts = {name: grammar.unasked_of(name) for name in grammar.spans}
        longest = max(map(len, self._prompts.values()), default=0)
        head = transformer.head_weight
        self._answers, count = answers, answers + len(self._prompts)
        self._cache = KVCache(transformer.config, count, longest + room, head.device, head.dtype)
        self.hidden: Tensor | None = None
        """`[N, D]` at the last token of each answer's span, without meaning between spans; None if no span is open."""

    def read_prompts(self) -> None:
        """Computes the prompts, before the first step."""
        lengths = torch.zeros_like(self._cache.lengths)
        longest = max(map(len, self._prompts.values()), default=0)
        tokens = torch.zeros(len(lengths), longest, dtype=torch.int64, device=lengths.device)
        for row, prompt in enumerate(self._prompts.values(), self._answers):
            lengths[row], tokens[row, : len(prompt)] = len(prompt), torch.as_tensor(prompt, device=lengths.device)
        self._transformer(tokens, self._cache.positions(longest), cache=self._cache)
        self._cache.advance(lengths)

    def keep(self, answers: Tensor) -> None:
        """Keeps the answers of these indices, int64 `[M]`."""
        count = len(self._cache.lengths)
        prompts = torch.arange(count - len(self._prompts), count, device=answers.device)
        self._cache.keep(torch.cat([answers, prompts]))

    def step(self, answers: Sequence[GrowingAnswer], chosen: Tensor) -> None:
        """Takes the tokens that the answers were given, int64 `[N]`."""
        names = [answer.grammar.modality for answer in answers]
        if not any(names):
            self.hidden = None
            return
        first = {name: row for row, name in enumerate(self._prompts, len(answers))}
        for row, (name, token) in enumerate(zip(names, chosen.tolist(), strict=True)):
            if name and token == self._grammar.vocabulary.begin(name):
                self._cache.begin_with(row, first[name], len(self._prompts[name]))
        device = chosen.device
        rest = torch.zeros(len(self._prompts), dtype=torch.int64, device=device)
        tokens = torch.cat([chosen, rest])[:, None]
        output = self._transformer(tokens, self._cache.positions(1), cache=self._cache)
        self.hidden = output.hidden[: len(answers), 0]
        self._cache.advance(torch.tensor([*(name != "" for name in names), *rest.tolist()], device=device))
