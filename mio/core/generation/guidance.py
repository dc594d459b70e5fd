"""Classifier-free guidance of spans of codes: what is asked is followed more closely than the model would by itself.

The logits inside a span are u + g (c - u): c those of the answer, u those of the same span where nothing was asked, and
g `Decoding.guidance` (Ho and Salimans 2022, arXiv 2207.12598; of codes as in Janus, arXiv 2410.13848, section 3.4).

N answers, D width of the transformer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mio.core.generation.grammar import Grammar
from mio.core.generation.growing import GrowingAnswer
from mio.core.generation.rows import NoRoom
from mio.core.generation.sampling import is_guided
from mio.core.model.transformer import Transformer


class UnaskedSpans:
    """The open span of each answer, behind a prompt in which nothing is asked (`Grammar.unasked`).

    A cache has a row for each answer, and behind them one for each modality, which holds its prompt: a span that opens
    begins with a copy of it.

    Args:
        rows: most answers.
        room: most tokens of an answer.

    Raises:
        NoRoom: keys and values do not fit into memory.
    """

    def __init__(self, transformer: Transformer, grammar: Grammar, rows: int, room: int) -> None:
        self._transformer, self._grammar = transformer, grammar
        self._prompts = {name: grammar.unasked_of(name) for name in grammar.spans}
        longest = max(map(len, self._prompts.values()), default=0)
        head = transformer.head_weight
        count = rows + len(self._prompts)
        try:
            self._cache = transformer.cache(count, longest + room)
        except RuntimeError as error:  # torch's error for too little memory
            raise NoRoom from error
        self._row_of = {name: rows + number for number, name in enumerate(self._prompts)}
        self._lengths = [0] * rows
        """Tokens of each row, to know without waiting for a device."""
        self.hidden = torch.zeros(rows, transformer.config.width, dtype=head.dtype, device=head.device)
        """`[rows, D]` at the last token of each answer's span; without meaning where none is guided."""
        self._read_prompts(rows, longest)

    def _read_prompts(self, rows: int, longest: int) -> None:
        """Computes the prompts, before the first step."""
        cache = self._cache.sequences(rows, rows + len(self._prompts))
        tokens = torch.zeros(len(self._prompts), longest, dtype=torch.int64, device=cache.lengths.device)
        for row, prompt in enumerate(self._prompts.values()):
            tokens[row, : len(prompt)] = torch.as_tensor(prompt, device=tokens.device)
        self._transformer(tokens, cache.positions(longest), cache=cache)
        cache.advance(torch.tensor([len(prompt) for prompt in self._prompts.values()], device=tokens.device))

    def swap(self, first: int, second: int) -> None:
        """Has two rows change places."""
        if first == second:
            return
        lengths = self._lengths
        self._cache.swap(first, second, max(lengths[first], lengths[second]))
        lengths[second], lengths[first] = lengths[first], lengths[second]
        both, turned = [first, second], [second, first]
        self.hidden[both] = self.hidden[turned]

    def step(self, answers: Sequence[GrowingAnswer], tokens: Sequence[int]) -> None:
        """Takes the tokens that the answers on the first rows were given."""
        names = [answer.grammar.modality if is_guided(answer.decoding) else "" for answer in answers]
        if not any(names):
            return
        for row, (name, token) in enumerate(zip(names, tokens, strict=True)):
            if name and token == self._grammar.vocabulary.begin(name):
                self._lengths[row] = len(self._prompts[name])
                self._cache.begin_with(row, self._row_of[name], self._lengths[row])
        cache = self._cache.sequences(0, len(answers))
        self.hidden[: len(answers)] = self._transformer.decode(torch.tensor(tokens, device=cache.lengths.device), cache)
        inside = [int(name != "") for name in names]
        cache.advance(torch.tensor(inside, device=cache.lengths.device))
        self._lengths[: len(answers)] = [length + more for length, more in zip(self._lengths, inside, strict=False)]
