"""Checks of a modality that an encoder reads: lengths, arrays, and a network whose items do not know each other.

S positions of all items together, D width of the transformer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from mio.core.contract.encoders import Encoder
from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import Media
from mio.testing.outcomes import RECORDS, SkippedCheckError, same

WIDTH = 32
"""Of the transformer that the network is made for."""
_CLOSE = 1e-4
"""Largest difference between an item's embeddings with and without others beside it, relative to the largest one:
matrix products of another shape are summed in another order."""


class EncoderChecks:
    """The checks of one modality's encoder."""

    def __init__(self, plugins: EnabledPlugins, modality: str, media: Callable[[], list[Media]]) -> None:
        self._plugins = plugins
        self._modality = modality
        self._find_media = media

    def all(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Name and function of every check."""
        name = self._modality
        yield f"{name}: the encoder foretells positions", self._positions
        yield f"{name}: the encoder prepares the same arrays again", self._arrays
        yield f"{name}: a fresh encoder does the same", self._fresh
        yield f"{name}: the encoder's dummy is like an item", self._dummy
        yield f"{name}: the network is made without memory, and the same again", self._made
        yield f"{name}: the network gives as many embeddings as foretold", self._embeddings
        yield f"{name}: an item's embeddings do not depend on other items", self._isolated

    @cached_property
    def _encoder(self) -> Encoder:
        found = self._plugins.encoder(self._modality)
        assert found is not None, "no plugin supplies an encoder, without which nothing can read the modality"
        return found[1]

    @cached_property
    def _data(self) -> list[Any]:
        return [item.data for item in self._find_media()[:RECORDS]]

    @cached_property
    def _prepared(self) -> list[Mapping[str, Any]]:
        return [self._encoder.prepare(item) for item in self._data]

    @cached_property
    def _network(self) -> Any:
        return self._seeded()

    def _seeded(self) -> Any:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self._encoder.module(WIDTH)

    def _run(self, prepared: Sequence[Mapping[str, Any]], positions: Sequence[int]) -> Any:
        """Embeddings `[S, D]` of items, in training mode: statistics of a batch would show."""
        import torch

        from mio.core.data.items import joined

        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            return self._network(joined(prepared, positions))

    def _positions(self) -> None:
        assert isinstance(self._encoder.fingerprint, str), "`fingerprint` is not a string"
        assert self._encoder.fingerprint, "`fingerprint` is empty"
        for index, item in enumerate(self._data):
            positions = self._encoder.positions(item)
            assert isinstance(positions, int), f"item {index}: `positions` says {positions!r}, not a whole number"
            assert positions >= 1, f"item {index}: `positions` says {positions}, at least 1 is due"
            assert self._encoder.positions(item) == positions, f"item {index}: `positions` differs at the second time"

    def _arrays(self) -> None:
        for index, (item, arrays) in enumerate(zip(self._data, self._prepared, strict=True)):
            _are_arrays(arrays, f"item {index}: `prepare`")
            assert _equal(self._encoder.prepare(item), arrays), f"item {index}: `prepare` differs at the second time"

    def _fresh(self) -> None:
        found = self._plugins.encoder(self._modality)
        assert found is not None
        other = found[1]
        assert other.fingerprint == self._encoder.fingerprint, "its fingerprint differs"
        for index, (item, arrays) in enumerate(zip(self._data, self._prepared, strict=True)):
            assert other.positions(item) == self._encoder.positions(item), f"item {index}: other positions"
            assert _equal(other.prepare(item), arrays), f"item {index}: `prepare` gives something else"

    def _dummy(self) -> None:
        import torch

        dummy = self._encoder.dummy()
        _are_arrays(dummy, "`dummy`")
        with contextlib.suppress(SkippedCheckError):  # without an item there is nothing to compare
            kinds = [_kinds(dummy), _kinds(self._prepared[0])]
            assert kinds[0] == kinds[1], f"`dummy` gives {kinds[0]}, `prepare` {kinds[1]}"
        embeddings = self._run([dummy], [0])
        assert bool(torch.isfinite(embeddings).all()), "the network gives NaN or infinities of `dummy`"

    def _made(self) -> None:
        import torch

        with torch.device("meta"):
            planned = self._encoder.module(WIDTH)
        made, again = self._network, self._seeded()
        shapes = [{name: one.shape for name, one in module.named_parameters()} for module in (planned, made)]
        assert shapes[0] == shapes[1], "under `torch.device('meta')` it has other parameters"
        real = [name for name, one in planned.named_parameters() if not one.is_meta]
        assert not real, f"under `torch.device('meta')` `{real[0]}` takes memory all the same"
        for (name, one), other in zip(made.state_dict().items(), again.state_dict().values(), strict=True):
            assert torch.equal(one, other), f"`{name}` has other initial values with the same seed of torch"
        state = made.state_dict()
        for name, tensor in getattr(self._encoder, "weights", dict)().items():
            assert name in state, f"`weights` has `{name}`, the network does not"
            given, due = list(tensor.shape), list(state[name].shape)
            assert given == due, f"`weights` has `{name}` as {given}, the network as {due}"

    def _embeddings(self) -> None:
        positions = [self._encoder.positions(item) for item in self._data]
        embeddings = self._run(self._prepared, positions)
        due = (sum(positions), WIDTH)
        assert tuple(embeddings.shape) == due, f"{list(embeddings.shape)} embeddings, foretold were {list(due)}"

    def _isolated(self) -> None:
        import torch

        prepared = self._prepared
        if len(prepared) < 2:
            raise SkippedCheckError("two items are needed")
        positions = [self._encoder.positions(item) for item in self._data]
        chosen = max(range(len(prepared)), key=positions.__getitem__)
        other = prepared[chosen - 1]  # content that an item may have, at the length of this one
        changed = {name: np.resize(other[name], array.shape) for name, array in prepared[chosen].items()}
        together = self._run(prepared, positions).split(positions)
        beside = self._run([*prepared[:chosen], changed, *prepared[chosen + 1 :]], positions).split(positions)
        for index, (one, again) in enumerate(zip(together, beside, strict=True)):
            if index != chosen:
                assert torch.equal(one, again), f"item {index}: other embeddings when item {chosen} is another"
        was_training = self._network.training
        self._network.eval()  # what is dropped at random depends on the number of items
        together = self._run(prepared, positions).split(positions)
        for index, (arrays, count) in enumerate(zip(prepared, positions, strict=True)):
            alone = self._run([arrays], [count])
            difference = float((alone - together[index]).abs().max())
            largest = float(together[index].abs().max())
            assert difference <= _CLOSE * largest, f"item {index}: other embeddings when it is alone, by {difference:g}"
        self._network.train(was_training)


def _kinds(arrays: Mapping[str, Any]) -> str:
    """Types and inner shapes of arrays, for comparing and for messages."""
    return ", ".join(f"{name} {array.dtype} [n, {', '.join(map(str, array.shape[1:]))}]" for name, array in
                     sorted(arrays.items()))  # fmt: skip


def _are_arrays(arrays: Any, what: str) -> None:
    assert isinstance(arrays, Mapping), f"{what} gives {type(arrays).__name__}, not arrays by name"
    assert arrays, f"{what} gives nothing"
    for name, array in arrays.items():
        assert isinstance(array, np.ndarray), f"{what} gives {type(array).__name__} as `{name}`, not an array"
        assert array.ndim, f"{what} gives `{name}` without an axis to join items along"


def _equal(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    kinds = all(first[name].dtype == second[name].dtype for name in first.keys() & second.keys())
    return kinds and same(first, second)
