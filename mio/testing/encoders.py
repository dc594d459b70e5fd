"""Checks of a modality that an encoder reads: lengths, arrays, and a network whose items do not know each other.

S positions of all items together, D width of the transformer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from mio.core.contract.encoders import Encoder
from mio.testing.items import ItemChecks
from mio.testing.networks import (
    WIDTH,
    check_arrays,
    check_close,
    check_gradients,
    check_kinds,
    check_made,
    equal,
    in_place_of,
    seeded,
    shaken,
)
from mio.testing.outcomes import SkippedCheckError


class EncoderChecks(ItemChecks):
    """The checks of one modality's encoder."""

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
        yield f"{name}: gradients are finite, and reach every parameter", self._gradients

    @cached_property
    def _encoder(self) -> Encoder:
        found = self._plugins.encoder(self._modality)
        assert found is not None, "no plugin supplies an encoder, without which nothing can read the modality"
        return found[1]

    @cached_property
    def _prepared(self) -> list[Mapping[str, Any]]:
        return [self._encoder.prepare(item) for item in self._data]

    @cached_property
    def _network(self) -> Any:
        return seeded(self._encoder.module)

    def _run(self, prepared: Sequence[Mapping[str, Any]], positions: Sequence[int]) -> tuple[Any, Any]:
        """Embeddings `[S, D]` of items, and maps `[N, S, C]` or None, in training mode: statistics of a batch would
        show."""
        import torch

        from mio.core.data.items import joined

        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            found = self._network(joined(prepared, positions))
        shape = getattr(self._encoder, "maps", None)
        if shape is None:
            return found, None
        assert isinstance(found, tuple), "the network gives no maps, which `maps` promises"
        assert len(found) == 2, "the network gives no maps, which `maps` promises"
        due = (len(prepared), *shape)
        assert tuple(found[1].shape) == due, f"maps {list(found[1].shape)}, `maps` promises {list(due)}"
        embeddings, maps = found
        return embeddings, maps

    def _results(self, prepared: Sequence[Mapping[str, Any]], positions: Sequence[int]) -> list[Any]:
        """All that there is of each item, `[n]`."""
        import torch

        embeddings, maps = self._run(prepared, positions)
        rows = [one.flatten() for one in embeddings.split(positions)]
        return rows if maps is None else [torch.cat(pair) for pair in zip(rows, maps.flatten(1), strict=True)]

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
            check_arrays(arrays, f"item {index}: `prepare`")
            assert equal(self._encoder.prepare(item), arrays), f"item {index}: `prepare` differs at the second time"

    def _fresh(self) -> None:
        found = self._plugins.encoder(self._modality)
        assert found is not None
        other = found[1]
        assert other.fingerprint == self._encoder.fingerprint, "its fingerprint differs"
        for index, (item, arrays) in enumerate(zip(self._data, self._prepared, strict=True)):
            assert other.positions(item) == self._encoder.positions(item), f"item {index}: other positions"
            assert equal(other.prepare(item), arrays), f"item {index}: `prepare` gives something else"

    def _dummy(self) -> None:
        import torch

        dummy = self._encoder.dummy()
        check_arrays(dummy, "`dummy`")
        with contextlib.suppress(SkippedCheckError):  # without an item there is nothing to compare
            check_kinds(self._prepared[0], dummy, "`prepare`")
        embeddings, _ = self._run([dummy], [0])
        assert bool(torch.isfinite(embeddings).all()), "the network gives NaN or infinities of `dummy`"

    def _made(self) -> None:
        check_made(self._encoder.module, getattr(self._encoder, "weights", dict)())

    def _embeddings(self) -> None:
        positions = [self._encoder.positions(item) for item in self._data]
        embeddings, _ = self._run(self._prepared, positions)
        due = (sum(positions), WIDTH)
        assert tuple(embeddings.shape) == due, f"{list(embeddings.shape)} embeddings, foretold were {list(due)}"

    def _isolated(self) -> None:
        import torch

        prepared = self._prepared
        if len(prepared) < 2:
            raise SkippedCheckError("two items are needed")
        positions = [self._encoder.positions(item) for item in self._data]
        chosen = max(range(len(prepared)), key=positions.__getitem__)
        together, beside = (self._results(one, positions) for one in (prepared, in_place_of(prepared, chosen)))
        for index, (one, again) in enumerate(zip(together, beside, strict=True)):
            if index != chosen:
                assert torch.equal(one, again), f"item {index}: other embeddings when item {chosen} is another"
        was_training = self._network.training
        self._network.eval()  # what is dropped at random depends on the number of items
        together = self._results(prepared, positions)
        for index, (arrays, count) in enumerate(zip(prepared, positions, strict=True)):
            [alone] = self._results([arrays], [count])
            check_close(alone, together[index], f"item {index}: other embeddings when it is alone")
        self._network.train(was_training)

    def _gradients(self) -> None:
        import torch

        from mio.core.data.items import joined

        network = shaken(self._encoder.module)
        found = network(joined(self._prepared, [self._encoder.positions(item) for item in self._data]))
        check_gradients(
            [one for one in (found if isinstance(found, tuple) else (found,)) if torch.is_tensor(one)], network
        )
