"""Steps of answers on a GPU as CUDA graphs: one launch for a step instead of a dozen for each layer.

A graph repeats what was done once, on the same memory. So a step is made of static parts: tokens, hidden states and a
view of the cache's first sequences, of as many as a power of two. What is computed for sequences beyond those that go
on lands in a slot that nobody sees, as nothing counts it. On other devices the same static step runs without a graph.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mio.core.model.cache import KVCache
from mio.core.model.transformer import Transformer

_WARM = 2
"""Steps before one is captured: kernels are chosen and workspaces made in them."""


def can_capture(transformer: Transformer) -> bool:
    """Whether steps of a transformer have static shapes, wait for nothing, and need no other device."""
    on_gpu = transformer.head_weight.device.type == "cuda"
    return on_gpu and transformer.devices == 1 and not transformer.config.experts and not transformer.networks.adapters


class StaticSteps:
    """Steps of the sequences of a cache.

    Args:
        cache: whose tensors stay the same ones.
    """

    def __init__(self, transformer: Transformer, cache: KVCache) -> None:
        self._transformer, self._cache = transformer, cache
        weight, rows = transformer.head_weight, len(cache.lengths)
        self._tokens = torch.zeros(rows, dtype=torch.int64, device=weight.device)
        self._hidden = torch.zeros(rows, transformer.config.width, dtype=weight.dtype, device=weight.device)
        self._steps: dict[int, Callable[[], None]] = {}
        self._pool: Any = None

    def __call__(self, tokens: Sequence[int]) -> Tensor:
        """Hidden states [N, D] of a further token of each of the first N sequences, which are stored but not yet
        counted; they last until the next step."""
        count = len(tokens)
        size = min(1 << (count - 1).bit_length(), len(self._tokens))
        self._tokens[:count].copy_(torch.tensor(tokens))
        if size not in self._steps:
            self._steps[size] = self._made(size)
        self._steps[size]()
        return self._hidden[:count]

    def _made(self, size: int) -> Callable[[], None]:
        """What does a step of so many sequences."""
        tokens, hidden, cache = self._tokens[:size], self._hidden[:size], self._cache.sequences(0, size)

        def step() -> None:
            hidden.copy_(self._transformer.decode(tokens, cache))

        if tokens.device.type != "cuda":
            return step
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                step()
        except RuntimeError as error:
            warnings.warn(f"steps of {size} answers are slower, as they cannot be captured: {error}", stacklevel=2)
            return step
        self._pool = graph.pool()
        return graph.replay
