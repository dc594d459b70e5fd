"""Before training: whether encoders' networks give as many positions as their `positions` say, and maps as large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mio.core.errors import PluginError
from mio.core.model.running import packed, results, where
from mio.core.tokens.item_arrays import Prepared
from mio.core.tokens.item_encoders import ItemEncoder


def check_encoder(encoder: ItemEncoder, width: int) -> None:
    """Runs the network of an encoder on its dummy and on the items that it has seen, one by one and some together.

    Raises `PluginError`, naming plugin and record, where a network cannot be made or run, or gives something else than
    `[positions, width]` embeddings, with maps if it has them.
    """
    dummy = Prepared("its `dummy`", encoder.dummy, 0)
    for items, found in results(encoder, encoder.encoder.module, width, dummy, _run):
        _check(encoder, items, found, width)


def _run(network: nn.Module, items: Sequence[Prepared], device: str) -> Any:
    return network(packed(items, device))


def _check(encoder: ItemEncoder, items: Sequence[Prepared], found: Any, width: int) -> None:
    if encoder.maps is not None:
        due_maps = [len(items), *encoder.maps]
        if not isinstance(found, tuple) or len(found) != 2 or list(found[1].shape) != due_maps:
            told = list(found[1].shape) if isinstance(found, tuple) and len(found) == 2 else "none"
            raise PluginError(
                f"{where(items)}: {encoder.name} gives maps {told}, of which its `maps` had said {due_maps}; correct "
                "`maps`, or the network"
            )
        found = found[0]
    if not isinstance(found, Tensor):
        raise PluginError(f"{where(items)}: {encoder.name} gives a {type(found).__name__}, not a tensor [S, {width}]")
    due = sum(item.positions for item in items)
    if found.dim() != 2 or found.shape[1] != width or (due and len(found) != due):
        raise PluginError(
            f"{where(items)}: {encoder.name} gives {list(found.shape)} embeddings, of which `positions` had said "
            f"{[due or 'S', width]}; correct `positions`, or the network".replace("'", "")
        )
