"""Networks that read media inside the transformer: where their embeddings go, and who sees their maps.

B rows, L positions, D width, N items, M items of the row that has most, S cells of a map, C its channels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mio.core.contract.encoders import Encoder
from mio.core.data.items import EncoderItems
from mio.core.errors import PluginError
from mio.core.model.map_cache import MapCache
from mio.core.model.networks import as_trained, is_frozen, reached


def splice(
    x: Tensor, encoders: nn.ModuleDict, readers: Mapping[str, Encoder], items: Mapping[str, EncoderItems]
) -> tuple[Tensor, dict[str, Tensor]]:
    """[B, L, D] of the tokens' embeddings, with those of media in their places, and the items' maps [N, S, C] by
    modality.

    Every encoder that has an entry in `items` runs, in the same order on every device: where an entry is a dummy, so
    that devices that share parameters gather them together, and a parameter without items has a gradient of 0.
    """
    maps: dict[str, Tensor] = {}
    for name, encoder in encoders.items():
        if (one := items.get(name)) is None:
            continue
        frozen = is_frozen(encoder)
        with as_trained(x), torch.no_grad() if frozen else contextlib.nullcontext():
            embeddings = encoder(one.input)
        if (shape := getattr(readers[name], "maps", None)) is not None:
            embeddings, maps[name] = _with_maps(name, embeddings, len(one.input.positions), shape)
            x = reached(x, [maps[name]])  # whoever reads them, and however much of them is seen in this pass
        if one.dummy:
            x = x if frozen else x + 0 * embeddings.sum().to(x.dtype)
            continue
        if embeddings.shape != (due := (len(one.places), x.shape[-1])):
            raise PluginError(
                f"the encoder of `{name}` gave {list(embeddings.shape)} embeddings for {len(one.input.positions)} "
                f"items, of which its `positions` had said {list(due)}; correct `positions`, or the network"
            )
        x = x.flatten(0, 1).index_copy(0, one.places, embeddings.to(x.dtype)).view_as(x)
    return x, maps


def _with_maps(name: str, found: Any, items: int, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What an encoder that makes maps gave. Raises `PluginError` for anything else than it had said."""
    due = (items, *shape)
    if not (isinstance(found, tuple) and len(found) == 2 and tuple(found[1].shape) == due):
        told = list(found[1].shape) if isinstance(found, tuple) and len(found) == 2 else "none"
        raise PluginError(f"the encoder of `{name}` gave maps {told}, of which its `maps` had said {list(due)}")
    return found


RowMaps = dict[str, tuple[Tensor, Tensor]]
"""By modality, what layers read: maps [B, M, S, C] of each row's items, and who sees them, bool [B, L, M]. A plain
dictionary of tuples: FSDP finds the tensors of a module's input in standard containers alone."""


def maps_of_rows(maps: Mapping[str, Tensor], items: Mapping[str, EncoderItems], length: int) -> RowMaps:
    """The maps of packed documents, row by row."""
    rows: RowMaps = {}
    for name, of_items in maps.items():
        seen = items[name].seen
        assert seen is not None
        rows[name] = picked(of_items, seen.items), seen.visible(length)
    return rows


def keep_maps(
    cache: MapCache, maps: Mapping[str, Tensor], items: Mapping[str, EncoderItems], positions: Tensor
) -> None:
    """Has the sequences of a cache see the maps of items that are read at `positions` int64 [B, L]."""
    for name in set(maps) & set(cache.modalities):
        places = _beginnings(items[name])
        rows, firsts = (places // positions.shape[1]).tolist(), positions.flatten()[places].tolist()
        for row in dict.fromkeys(rows):
            start, count = rows.index(row), rows.count(row)
            cache.append(name, row, maps[name][start : start + count], firsts[start : start + count])


def _beginnings(items: EncoderItems) -> Tensor:
    """int64 [N]: the flat place of each item's first position."""
    starts = np.cumsum([0, *items.input.positions[:-1]])
    return items.places[torch.from_numpy(starts).to(items.places.device)]


def seen_together(readers: Mapping[str, Encoder], items: Mapping[str, EncoderItems], like: Tensor) -> Tensor | None:
    """int32 [B, L], as `KVCache.step` takes them: positions of items that see each other, of an encoder that wants it,
    beside tokens [B, L]; None where there are none."""
    numbers = None
    for name, one in items.items():
        if not getattr(readers[name], "together", False) or one.dummy:
            continue
        numbers = torch.zeros(like.numel(), dtype=torch.int32, device=like.device) if numbers is None else numbers
        own = (_beginnings(one) % like.shape[1] + 1).to(torch.int32)  # of a row, no two items begin at one position
        counts = torch.tensor(one.input.positions, device=like.device)
        numbers[one.places] = own.repeat_interleave(counts, output_size=len(one.places))
    return None if numbers is None else numbers.view_as(like)


def picked(maps: Tensor, numbers: Tensor) -> Tensor:
    """[..., S, C]: the maps of the items with these numbers, int64 [...], 0 where that is -1."""
    found = maps.index_select(0, numbers.clamp(min=0).flatten()).view(*numbers.shape, *maps.shape[1:])
    return found * (numbers >= 0)[..., None, None]


def nothing_seen(reader: Encoder, like: Tensor) -> tuple[Tensor, Tensor]:
    """What layers read where there is no item: one map of 0 per row that nobody sees."""
    shape: tuple[int, int] = reader.maps  # type: ignore[attr-defined]
    maps = like.new_zeros(like.shape[0], 1, *shape, dtype=torch.float32)
    return maps, torch.zeros(*like.shape[:2], 1, dtype=torch.bool, device=like.device)
