"""Before training: whether encoders' networks give as many positions as their `positions` say.

Networks are run on the meta device, on tensors of the shapes of items that were prepared for this, so that nothing is
computed. One that cannot be, since it looks at values, runs for real on its dummy and the first few items.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from mio.core.contract.encoders import EncoderInput
from mio.core.errors import PluginError, UserError
from mio.core.tokens.item_encoders import RUN, ItemEncoder, Prepared

_TOGETHER = 4
"""Items that are given to a network at once."""


@torch.no_grad()
def check_networks(encoders: Iterable[ItemEncoder], width: int) -> None:
    """Runs the network of each encoder on its dummy and on the items that it has seen, one by one and some together.

    Raises `PluginError`, naming plugin and record, where a network cannot be made or run, or gives something else than
    `[positions, width]` embeddings.
    """
    for encoder in encoders:
        dummy = Prepared("its `dummy`", encoder.dummy, 0)
        items = list(encoder.seen.values())
        module = _made(encoder, width, "meta")
        try:
            for item in (dummy, *items):
                module(_packed([item], "meta"))
        except Exception:  # for many reasons: it asks for a value, or an operation has no kernel there
            module, device = _made(encoder, width, "cpu"), "cpu"
            items = items[:RUN]
        else:
            device = "meta"
        _check(encoder, module, [dummy], width, device)
        for item in items:
            _check(encoder, module, [item], width, device)
        if len(items) > 1:
            _check(encoder, module, list(islice(items, _TOGETHER)), width, device)
        encoder.seen.clear()


def _check(encoder: ItemEncoder, module: nn.Module, items: Sequence[Prepared], width: int, device: str) -> None:
    where = " and ".join(item.where for item in items)
    try:
        found = module(_packed(items, device))
    except UserError:
        raise
    except Exception as error:
        why = (f"{error}".splitlines() or [""])[0] or type(error).__name__
        raise PluginError(f"{where}: {encoder.name} cannot be run on what it prepared: {why}") from error
    if not isinstance(found, Tensor):
        raise PluginError(f"{where}: {encoder.name} gives a {type(found).__name__}, not a tensor [S, {width}]")
    due = sum(item.positions for item in items)
    if found.dim() != 2 or found.shape[1] != width or (due and len(found) != due):
        raise PluginError(
            f"{where}: {encoder.name} gives {list(found.shape)} embeddings, of which `positions` had said "
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
