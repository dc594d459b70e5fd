"""Checks of a modality that a head makes: what it learns and draws, and a network whose items do not know each other.

N items, S positions of the head's own of all of them, C positions of a context, M items whose maps are given, D width.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mio.core.contract.heads import Condition, Head, HeadItems, Sampling
from mio.testing.codecs import STEMS, check_saved
from mio.testing.items import ItemChecks
from mio.testing.networks import (
    CLOSE,
    WIDTH,
    check_arrays,
    check_close,
    check_gradients,
    check_kinds,
    check_made,
    equal,
    in_place_of,
    shaken,
)
from mio.testing.outcomes import SkippedCheckError, same

if TYPE_CHECKING:
    from torch import Tensor

_SEEDS = (3, 1, 4)


class HeadChecks(ItemChecks):
    """The checks of one modality's head."""

    def all(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Name and function of every check."""
        name = self._modality
        yield f"{name}: the head foretells its own positions", self._positions
        yield f"{name}: the head learns the same of an item again", self._targets
        yield f"{name}: a fresh head does the same", self._fresh
        yield f"{name}: what the head draws follows from its generator", self._noise
        yield f"{name}: the head's example is like an item", self._example
        yield f"{name}: the head's network is made without memory, and the same again", self._made
        yield f"{name}: the head gives a loss for each item", self._losses
        yield f"{name}: an item's loss depends on nothing but its own", self._isolated
        yield f"{name}: an item that is dropped does not know its context", self._dropped
        yield f"{name}: gradients of the losses are finite, and reach every parameter", self._gradients
        yield f"{name}: media follow from their seeds, alone or together", self._sampled
        yield f"{name}: media that are made are saved, and learnt like others", self._saved

    @cached_property
    def _head(self) -> Head:
        found = self._plugins.head(self._modality)
        assert found is not None, "no plugin supplies a head"
        return found[1]

    @cached_property
    def _drawn(self) -> list[Mapping[str, Any]]:
        """Targets with what is random about learning them."""
        return [self._with_noise(self._head.target(item), number) for number, item in enumerate(self._data)]

    def _with_noise(self, target: Mapping[str, Any], seed: int) -> dict[str, Any]:
        return {**target, **self._head.noise(target, np.random.Generator(np.random.Philox(seed)))}

    @cached_property
    def _own(self) -> list[int]:
        return [self._head.positions(item) for item in self._data]

    @cached_property
    def _maps(self) -> dict[str, tuple[int, int]]:
        shapes = {}
        for name in self._head.maps:
            found = self._plugins.encoder(name)
            if found is None:
                raise SkippedCheckError(f"no plugin here reads `{name}` by an encoder; give one beside (`--with NAME`)")
            shape = getattr(found[1], "maps", None)
            assert shape is not None, f"the encoder of `{name}` makes no maps, which the head reads"
            shapes[name] = shape
        return shapes

    @cached_property
    def _network(self) -> Any:
        return shaken(self._head.module)

    def _condition(self, count: int, own: int, seed: int = 0, spare: int = 0) -> Condition:
        """Of so many items and positions of their own, with `spare` places of context and maps that are not there."""
        import torch

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw)

        draw = torch.Generator().manual_seed(seed)
        context, hidden = random(count, self._head.context, WIDTH), random(own, WIDTH)
        mask = torch.ones(count, self._head.context, dtype=torch.bool)
        mask[:, 1 + self._head.context // 2 :] = False
        maps = {}
        for name, most in self._head.maps.items():
            of_items = random(count, most, *self._maps[name])
            maps[name] = of_items, torch.ones(count, most, dtype=torch.bool)
        if spare:
            context, mask = _longer(context, spare, draw), _longer(mask, spare)
            maps = {name: (_longer(one, spare, draw), _longer(there, spare)) for name, (one, there) in maps.items()}
        return Condition(context, mask, hidden, maps)

    def _items(self, drawn: Sequence[Mapping[str, Any]], own: Sequence[int], dropped: bool = False) -> HeadItems:
        import torch

        from mio.core.data.items import joined

        given = joined(drawn, own)
        flags = torch.full((len(drawn),), dropped)
        return HeadItems(dict(given.arrays), dict(given.lengths), list(own), flags)

    def _run(self, condition: Condition, items: HeadItems) -> Tensor:
        """Losses `[N]`."""
        import torch

        with torch.no_grad():
            kept = self._network.inputs(items)[1] if hasattr(self._network, "inputs") else None
            losses: Tensor = self._network(condition, items, kept)
        return losses

    def _positions(self) -> None:
        assert isinstance(self._head.fingerprint, str), "`fingerprint` is not a string"
        assert self._head.fingerprint, "`fingerprint` is empty"
        for index, item in enumerate(self._data):
            own = self._head.positions(item)
            assert isinstance(own, int), f"item {index}: `positions` says {own!r}, not a whole number"
            assert own >= 0, f"item {index}: `positions` says {own}"
            assert self._head.positions(item) == own, f"item {index}: `positions` differs at the second time"

    def _targets(self) -> None:
        for index, item in enumerate(self._data):
            target = self._head.target(item)
            check_arrays(target, f"item {index}: `target`")
            for name, array in target.items():
                finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
                assert finite, f"item {index}: `{name}` of its target holds NaN or infinities"
            assert equal(self._head.target(item), target), f"item {index}: `target` differs at the second time"

    def _fresh(self) -> None:
        found = self._plugins.head(self._modality)
        assert found is not None
        other = found[1]
        assert other.fingerprint == self._head.fingerprint, "its fingerprint differs"
        for index, item in enumerate(self._data):
            assert other.positions(item) == self._head.positions(item), f"item {index}: other positions"
            assert equal(other.target(item), self._head.target(item)), f"item {index}: `target` gives something else"

    def _noise(self) -> None:
        for index, item in enumerate(self._data):
            target = self._head.target(item)
            noise = self._with_noise(target, index)
            check_arrays({name: noise[name] for name in noise.keys() - target.keys()}, f"item {index}: `noise`")
            assert equal(self._with_noise(target, index), noise), (
                f"item {index}: `noise` differs with an equal generator: it draws from elsewhere too"
            )

    def _example(self) -> None:
        import torch

        example = self._head.target(self._head.example())
        check_arrays(example, "`target` of `example`")
        with contextlib.suppress(SkippedCheckError):  # without an item there is nothing to compare
            check_kinds(self._head.target(self._data[0]), example, "`target`")
        writes = self._head.writes
        items = self._items([self._with_noise(example, 0)], [writes])
        losses = self._run(self._condition(1, writes), items)
        assert bool(torch.isfinite(losses).all()), "the network gives NaN or infinities of `example`"

    def _made(self) -> None:
        network = check_made(self._head.module, getattr(self._head, "weights", dict)())
        assert hasattr(network, "sample"), "the network has no `sample`"
        assert hasattr(network, "inputs") or not self._head.writes, "positions of its own need a network with `inputs`"

    def _losses(self) -> None:
        import torch

        count, own = len(self._drawn), sum(self._own)
        items = self._items(self._drawn, self._own)
        if hasattr(self._network, "inputs"):
            embeddings = self._network.inputs(items)[0]
            due = (own, WIDTH)
            assert tuple(embeddings.shape) == due, f"`inputs` gives {list(embeddings.shape)}, foretold were {list(due)}"
        losses = self._run(self._condition(count, own), items)
        assert tuple(losses.shape) == (count,), f"gives losses {list(losses.shape)} for {count} items"
        assert losses.dtype == torch.float32, f"gives losses of {losses.dtype}; they must be float32"
        assert bool(torch.isfinite(losses).all()), "gives NaN or infinities"

    def _isolated(self) -> None:
        import torch

        drawn, own = self._drawn, self._own
        if len(drawn) < 2:
            raise SkippedCheckError("two items are needed")
        condition = self._condition(len(drawn), sum(own))
        together = self._run(condition, self._items(drawn, own))
        chosen = len(drawn) - 1
        beside = self._run(condition, self._items(in_place_of(drawn, chosen), own))
        assert torch.equal(beside[:chosen], together[:chosen]), f"other losses when item {chosen} is another"
        spare = self._run(self._condition(len(drawn), sum(own), spare=2), self._items(drawn, own))
        check_close(spare, together, "other losses where there is more room for context and maps that are not there")
        first = 0
        for index, (arrays, count) in enumerate(zip(drawn, own, strict=True)):
            alone = self._run(_only(condition, index, first, first + count), self._items([arrays], [count]))
            check_close(alone, together[index : index + 1], f"item {index}: another loss when it is alone")
            first += count

    def _dropped(self) -> None:
        import torch

        if not (self._head.drop and self._head.context):
            raise SkippedCheckError("there is no context that it drops")
        items = self._items(self._drawn, self._own, dropped=True)
        condition = self._condition(len(self._drawn), sum(self._own))
        # maps may stay: MM-Interleaved's do
        other = self._condition(len(self._drawn), sum(self._own), seed=1)
        other = condition._replace(context=other.context, context_mask=other.context_mask)
        first, second = self._run(condition, items), self._run(other, items)
        assert torch.equal(first, second), "the context changes the loss of an item that is learnt without it"

    def _gradients(self) -> None:
        """Of a batch in which one item is learnt without its condition, if the head has such."""
        import torch

        network, count, own = shaken(self._head.module), len(self._drawn), sum(self._own)
        items = self._items(self._drawn, self._own)
        if self._head.drop:
            items.dropped[0] = True
        condition, kept = self._condition(count, own), None
        if hasattr(network, "inputs"):
            embeddings, kept = network.inputs(items)
            condition = condition._replace(own=torch.tanh(embeddings))
        check_gradients([network(condition, items, kept)], network)

    def _sample(self, seeds: Sequence[int], chosen: Sequence[int]) -> list[Any]:
        """Media of some of the items of a condition."""
        import torch

        condition = self._condition(len(_SEEDS), 0)
        condition = Condition(
            condition.context[list(chosen)],
            condition.context_mask[list(chosen)],
            condition.own,
            {name: (maps[list(chosen)], there[list(chosen)]) for name, (maps, there) in condition.maps.items()},
        )
        run = (lambda embeddings, dropped: torch.tanh(embeddings) * (0.5 if dropped else 1.0)) if self._writes else None
        with torch.no_grad():
            media = self._network.sample(condition, Sampling(tuple(seeds), steps=2), run)
        assert len(media) == len(seeds), f"`sample` gives {len(media)} media for {len(seeds)} seeds"
        return list(media)

    @property
    def _writes(self) -> bool:
        return bool(self._head.writes)

    def _sampled(self) -> None:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            together = self._sample(_SEEDS, range(len(_SEEDS)))
            again = self._sample(_SEEDS, range(len(_SEEDS)))  # torch's own generator has gone on
            for index, seed in enumerate(_SEEDS):
                assert _alike(again[index], together[index]), f"seed {seed}: other media at the second time"
                [alone] = self._sample([seed], [index])
                assert _alike(alone, together[index]), f"seed {seed}: other media when it is alone"

    def _saved(self) -> None:
        [media] = self._sample(_SEEDS[:1], [0])
        own = self._head.positions(media)
        assert own == self._head.writes, f"`positions` says {own} of media that it made in {self._head.writes}"
        due = self._head.target(self._head.example())
        check_kinds(self._head.target(media), due, "`target` of media that it made")
        with tempfile.TemporaryDirectory() as folder:
            for stem in STEMS:
                path = check_saved(self._head.save, media, Path(folder) / stem)
            module = self._plugins.datamodule(self._modality)
            if module.read is not None and path.suffix.lower() in module.suffixes:
                check_kinds(self._head.target(module.read(path)), due, "`target` of a saved file")


def _longer(tensor: Tensor, by: int, draw: Any = None) -> Tensor:
    """With more along the second axis: anything, or nothing where it says what is there."""
    import torch

    shape = (tensor.shape[0], by, *tensor.shape[2:])
    more = torch.zeros(shape, dtype=tensor.dtype) if draw is None else torch.randn(shape, generator=draw)
    return torch.cat((tensor, more), 1)


def _only(condition: Condition, item: int, first: int, end: int) -> Condition:
    """The condition of one item, with its own positions."""
    chosen = slice(item, item + 1)
    maps = {name: (maps[chosen], there[chosen]) for name, (maps, there) in condition.maps.items()}
    return Condition(condition.context[chosen], condition.context_mask[chosen], condition.own[first:end], maps)


def _alike(first: Any, second: Any) -> bool:
    """Whether media are the same up to rounding: of whole numbers, one step."""
    try:
        one, other = np.asarray(first), np.asarray(second)
    except (TypeError, ValueError):
        return same(first, second)
    if one.dtype.kind not in "biuf" or one.shape != other.shape or one.dtype != other.dtype:
        return same(first, second)
    difference = np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0)
    least = 1.0 if one.dtype.kind in "biu" else CLOSE
    return bool(difference <= max(least, CLOSE * float(np.abs(other.astype(np.float64)).max(initial=0))))
