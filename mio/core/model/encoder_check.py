"""Before training: whether encoders' networks give as many positions as their `positions` say.

Networks are run on the meta device, on tensors of the shapes of items that were prepared for this, so that nothing is
computed. One that cannot be, since it looks at values, runs for real on its dummy and the first few items.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mio.core.contract.encoders import EncoderInput
from mio.core.errors import PluginError, UserError
from mio.core.tokens.item_arrays import RUN, Prepared
from mio.core.tokens.item_encoders import ItemEncoder

_TOGETHER = 4
"""Items that are given to a network at once."""


@torch.no_grad()
def check_encoders(encoders: Iterable[ItemEncoder], width: int) -> None:
    """Runs the network of each encoder on its dummy and on the items that it has seen, one by one and some together.

    Raises `PluginError`, naming plugin and record, where a network cannot be made or run, or gives something else than
    `[positions, width]` embeddings.
    """
    for encoder in encoders:
        items = list(encoder.seen.values())
        module = _made(encoder, width, "meta")
        try:
            found = [module(_packed(group, "meta")) for group in _groups(encoder, items)]
        except Exception:  # for many reasons: it asks for a value, or an operation has no kernel there
            module, items = _made(encoder, width, "cpu"), items[:RUN]
            found = [_run(encoder, module, group) for group in _groups(encoder, items)]
        for group, embeddings in zip(_groups(encoder, items), found, strict=True):
            _check(encoder, group, embeddings, width)
        encoder.seen.clear()


def _groups(encoder: ItemEncoder, items: Sequence[Prepared]) -> Iterator[Sequence[Prepared]]:
    """What a network is given at once: its dummy, each item by itself, and some together."""
    yield [Prepared("its `dummy`", encoder.dummy, 0)]
    for item in items:
        yield [item]
    if len(items) > 1:
        yield items[:_TOGETHER]


def _run(encoder: ItemEncoder, module: nn.Module, items: Sequence[Prepared]) -> Any:
    try:
        return module(_packed(items, "cpu"))
    except UserError:
        raise
    except Exception as error:
        why = (f"{error}".splitlines() or [""])[0] or type(error).__name__
        raise PluginError(f"{_where(items)}: {encoder.name} cannot be run on what it prepared: {why}") from error


def _where(items: Sequence[Prepared]) -> str:
    return " and ".join(item.where for item in items)


def _check(encoder: ItemEncoder, items: Sequence[Prepared], found: Any, width: int) -> None:
    count = len(items)
    if encoder.maps is not None:
        due_maps = [count, *encoder.maps]
        if not isinstance(found, tuple) or len(found) != 2 or list(found[1].shape) != due_maps:
            told = list(found[1].shape) if isinstance(found, tuple) and len(found) == 2 else "none"
            raise PluginError(
                f"{_where(items)}: {encoder.name} gives maps {told}, of which its `maps` had said {due_maps}; correct "
                "`maps`, or the network"
            )
        found = found[0]
    if not isinstance(found, Tensor):
        raise PluginError(f"{_where(items)}: {encoder.name} gives a {type(found).__name__}, not a tensor [S, {width}]")
    due = sum(item.positions for item in items)
    if found.dim() != 2 or found.shape[1] != width or (due and len(found) != due):
        raise PluginError(
            f"{_where(items)}: {encoder.name} gives {list(found.shape)} embeddings, of which `positions` had said "
            f"{[due or 'S', width]}; correct `positions`, or the network".replace("'", "")
        )


def _made(encoder: ItemEncoder, width: int, device: str) -> nn.Module:
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            return encoder.encoder.module(width).eval()
    except UserError:
        raise
    except Exception as error:
        raise PluginError(f"{encoder.name} has no network: {type(error).__name__}: {error}") from error


def _packed(items: Sequence[Prepared], device: str) -> EncoderInput:
    arrays = {}
    for name, first in items[0].arrays.items():
        own = [item.arrays[name] for item in items]
        if device == "meta":
            dtype = torch.from_numpy(np.zeros(0, first.dtype)).dtype
            arrays[name] = torch.empty(sum(map(len, own)), *first.shape[1:], dtype=dtype, device=device)
        else:
            arrays[name] = torch.from_numpy(np.concatenate(own))
    lengths = {name: [len(item.arrays[name]) for item in items] for name in arrays}
    return EncoderInput(arrays, lengths, [item.positions for item in items])
