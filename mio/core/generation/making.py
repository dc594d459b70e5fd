"""Media that answers make by heads: a span opens, its head makes the media, an encoder reads them back.

N answers, D width of the transformer, n positions of a head's own, L those by which media are read, C positions of a
context, M items whose maps are given.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mio.core.contract.heads import Condition, Run, Sampling
from mio.core.contract.values import Media
from mio.core.data.items import change_items, pack_items
from mio.core.errors import PluginError
from mio.core.generation.growing import GrowingAnswer
from mio.core.generation.sampling import SEEDS
from mio.core.model.cache import KVCache
from mio.core.model.networks import as_trained
from mio.core.model.transformer import Transformer
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendered import Item
from mio.core.tokens.vocabulary import Vocabulary

_KEYS = itertools.count()
"""Numbers in the keys of media that were made: no two of a process have one key."""


class Making:
    """Makes the media of the spans that answers have opened."""

    def __init__(self, transformer: Transformer, vocabulary: Vocabulary, codecs: Codecs) -> None:
        self._transformer, self._codecs = transformer, codecs
        self._pad = vocabulary.specials.pad

    def make(self, answers: Mapping[int, GrowingAnswer], cache: KVCache) -> dict[int, Tensor]:
        """Makes what the answers on these rows of a cache have opened, those alike together, and has the cache
        hold the positions by which it is read. Returns, by row, the hidden state `[D]` of the last of these.

        What is made depends on an answer's own past and random numbers. A row that is not returned has nothing to read:
        the hidden state of the token that opened the span stays its last.

        Raises:
            PluginError: a head has given something else than media, or larger ones than its `example`.
        """
        states: dict[int, Tensor] = {}
        alike: dict[tuple[str, int, float], dict[int, GrowingAnswer]] = {}
        for row, answer in answers.items():
            one = answer.grammar.opened, answer.decoding.steps, answer.decoding.guidance
            alike.setdefault(one, {})[row] = answer
        for (name, steps, guidance), those in alike.items():
            seeds = [int(answer.random.integers(SEEDS)) for answer in those.values()]
            states |= self._make(name, those, cache, Sampling(seeds, steps, guidance))
        return states

    def _make(
        self, name: str, answers: Mapping[int, GrowingAnswer], cache: KVCache, sampling: Sampling
    ) -> dict[int, Tensor]:
        rows, head = list(answers), self._codecs.makers[name].head
        most = self._codecs.made_positions(name)
        # the rows themselves where all of them go on, and nothing is written beyond what they have room for
        itself = rows == list(range(len(cache.lengths))) and not head.writes
        own = cache if itself else cache.taken(rows, max(head.writes, most))
        found = self._sampled(name, own, sampling)
        media = [Media(name, one, f"made/{next(_KEYS)}") for one in found]
        counts = [self._codecs.positions(one) if most else 0 for one in media]
        if max(counts) > most:
            raise PluginError(
                f"the head of `{name}` made an item that takes {max(counts)} positions, where its `example` takes "
                f"{most}; correct `example`"
            )
        for answer, one, count in zip(answers.values(), media, counts, strict=True):
            answer.take(one, [self._pad] * count)
        if not most:
            return {}
        states = self._read(own, media, counts)
        if not itself:
            cache.put(rows, own)
        return dict(zip(rows, states, strict=True))

    def _sampled(self, name: str, cache: KVCache, sampling: Sampling) -> list[Any]:
        """Media of one modality, of all sequences of a cache."""
        head, network = self._codecs.makers[name].head, self._transformer.heads[name]
        weight, count = self._transformer.head_weight, len(cache.lengths)
        width = self._transformer.config.width
        context = weight.new_zeros(count, 0, width), torch.zeros(count, 0, dtype=torch.bool, device=weight.device)
        if head.context:
            context = cache.newest(head.context)
        maps = {}
        if head.maps:
            assert cache.maps is not None
            maps = {other: cache.maps.newest(other, most) for other, most in head.maps.items()}
        condition = Condition(*context, weight.new_zeros(0, width), maps)
        with as_trained(context[0]):
            found = network.sample(condition, sampling, self._run(cache) if head.writes else None)  # type: ignore[operator]
        if not isinstance(found, Sequence) or len(found) != count:
            told = f"{len(found)} items" if isinstance(found, Sequence) else type(found).__name__
            raise PluginError(f"the head of `{name}`: its `sample` gave {told}, where {count} items were asked for")
        return list(found)

    def _run(self, cache: KVCache) -> Run:
        """A head's own positions behind the sequences of a cache, which do not go on by them."""

        def run(embeddings: Tensor, dropped: bool = False) -> Tensor:
            """Hidden states `[N, n, D]` of embeddings `[N, n, D]`."""
            count, device = embeddings.shape[1], embeddings.device
            positions = cache.positions(count)
            together = torch.full_like(positions, -1 if dropped else 1, dtype=torch.int32)
            inputs = embeddings.to(self._transformer.head_weight.dtype)
            with torch.autocast(device.type, enabled=False):
                return self._transformer(
                    torch.zeros_like(positions), positions, cache=cache, embeddings=inputs, together=together
                ).hidden

        return run

    def _read(self, cache: KVCache, media: Sequence[Media], counts: Sequence[int]) -> Tensor:
        """Has the sequences of a cache go on by the positions of media, which take so many; the last hidden states
        `[N, D]`."""
        longest, device = max(counts), cache.lengths.device
        placed = ((row * longest, Item(one.modality, 0, count, one)) for row, (one, count) in
                  enumerate(zip(media, counts, strict=True)))  # fmt: skip
        items = change_items(pack_items(placed, self._codecs), lambda tensor: tensor.to(device))
        tokens = torch.full((len(media), longest), self._pad, device=device)
        hidden = self._transformer(tokens, cache.positions(longest), cache=cache, items=items).hidden
        lengths = torch.tensor(counts, device=device)
        cache.advance(lengths)
        return hidden[torch.arange(len(media), device=device), lengths - 1]
