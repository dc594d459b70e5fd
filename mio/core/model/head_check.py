"""Before training: whether heads' networks take what they are given and give one loss for each item.

N items, S positions of the head's own, C positions of a context, M items whose maps are given, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mio.core.contract.heads import Condition, Head, HeadItems
from mio.core.errors import PluginError
from mio.core.model.running import packed, results, shape_of, where
from mio.core.tokens.item_arrays import Prepared
from mio.core.tokens.item_heads import ItemHead

Maps = Mapping[str, tuple[int, int]]
"""Cells and channels of the maps of encoders, by modality."""


def check_head(head: ItemHead, width: int, maps: Maps) -> None:
    """Runs the network of a head on its example and on the items that it has seen, one by one and some together.

    Raises `PluginError`, naming plugin and record, where a network cannot be made or run, lacks a method, or gives
    something else than an embedding for each of its own positions and a loss for each item.
    """
    dummy = Prepared("its `example`", head.dummy_drawn, head.head.writes)
    own = head.head.writes or max((item.positions for item in head.seen.values()), default=0)
    for items, found in results(
        head, head.head.module, width, dummy, partial(_run, head=head, width=width, maps=maps, own=bool(own))
    ):
        _check(head, items, found, width)


def _run(
    network: nn.Module, items: Sequence[Prepared], device: str, head: ItemHead, width: int, maps: Maps, own: bool
) -> tuple[Any, Any]:
    """(embeddings of the head's own positions, if it has any, losses)."""
    for name in ("sample", *(["inputs"] if own else [])):
        if not callable(getattr(network, name, None)):
            why = " of a head that has positions of its own" if name == "inputs" else ""
            raise PluginError(f"{head.name} has a network without `{name}`, which that{why} needs")
    given = made_items(items, device)
    embeddings, kept = network.inputs(given) if hasattr(network, "inputs") else (None, None)  # type: ignore[operator]
    condition = made_condition(head.head, items, width, maps, device)
    return embeddings, network(condition, given, kept)


def made_items(items: Sequence[Prepared], device: str) -> HeadItems:
    """Items as a forward pass brings them, none of them dropped."""
    joined = packed(items, device)
    dropped = torch.zeros(len(items), dtype=torch.bool, device=device)
    return HeadItems(dict(joined.arrays), dict(joined.lengths), list(joined.positions), dropped)


def made_condition(head: Head, items: Sequence[Prepared], width: int, maps: Maps, device: str) -> Condition:
    """What so many items are conditioned on: hidden states of 0, and as much as a head may be given."""
    count, own = len(items), sum(item.positions for item in items)
    return Condition(
        torch.zeros(count, head.context, width, device=device),
        torch.ones(count, head.context, dtype=torch.bool, device=device),
        torch.zeros(own, width, device=device),
        {
            name: (
                torch.zeros(count, most, *maps[name], device=device),
                torch.ones(count, most, dtype=torch.bool, device=device),
            )
            for name, most in head.maps.items()
        },
    )


def _check(head: ItemHead, items: Sequence[Prepared], found: tuple[Any, Any], width: int) -> None:
    embeddings, losses = found
    due = [sum(item.positions for item in items), width]
    if embeddings is not None and (not isinstance(embeddings, Tensor) or list(embeddings.shape) != due):
        raise PluginError(
            f"{where(items)}: {head.name} gives {shape_of(embeddings)} by `inputs`, of which `positions` had said "
            f"{due}; correct `positions` (`writes` of its `example`), or `inputs`"
        )
    if not isinstance(losses, Tensor) or list(losses.shape) != [len(items)] or not losses.is_floating_point():
        raise PluginError(
            f"{where(items)}: {head.name} gives {shape_of(losses)} as the losses of {len(items)} items; it must be a "
            "tensor of floating-point numbers [N], a mean for each item"
        )
