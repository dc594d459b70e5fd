"""Networks of plugins, run for a check before training: on the meta device where that can be, so that nothing is
computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mio.core.contract.encoders import EncoderInput
from mio.core.errors import PluginError, UserError
from mio.core.tokens.item_arrays import RUN, Prepared, Preparing

META, CPU = "meta", "cpu"
_TOGETHER = 4
"""Items that are given to a network at once."""


def groups(dummy: Prepared, items: Sequence[Prepared]) -> Iterator[Sequence[Prepared]]:
    """What a network is given at once: its dummy, each item by itself, and some together."""
    yield [dummy]
    for item in items:
        yield [item]
    if len(items) > 1:
        yield items[:_TOGETHER]


def made(name: str, module: Callable[[int], Any], width: int, device: str) -> nn.Module:
    """A network. Raises `PluginError` for one that cannot be made."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            network: nn.Module = module(width).eval()
            return network
    except UserError:
        raise
    except Exception as error:
        raise PluginError(f"{name} has no network: {type(error).__name__}: {error}") from error


Run = Callable[[nn.Module, Sequence[Prepared], str], Any]
"""Runs a network on items, on a device."""


def results(
    preparing: Preparing, module: Callable[[int], Any], width: int, dummy: Prepared, run: Run
) -> Iterator[tuple[Sequence[Prepared], Any]]:
    """(items, what the network gives) of its dummy and of the items that were seen, which are forgotten. A network that
    cannot run on the meta device, since it looks at values, runs for real on its dummy and the first few items.

    Raises `PluginError`, naming plugin and record, where it cannot be run.
    """
    items = list(preparing.seen.values())
    network = made(preparing.name, module, width, META)
    try:
        found = [run(network, group, META) for group in groups(dummy, items)]
    except Exception:  # for many reasons: it asks for a value, or an operation has no kernel there
        network, items = made(preparing.name, module, width, CPU), items[:RUN]
        found = [_for_real(preparing.name, run, network, group) for group in groups(dummy, items)]
    preparing.seen.clear()
    return zip(groups(dummy, items), found, strict=True)


def _for_real(name: str, run: Run, network: nn.Module, items: Sequence[Prepared]) -> Any:
    try:
        return run(network, items, CPU)
    except UserError:
        raise
    except Exception as error:
        raise PluginError(f"{where(items)}: {name} cannot be run on what it prepared: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Why something failed, in one line."""
    return (f"{error}".splitlines() or [""])[0] or type(error).__name__


def where(items: Sequence[Prepared]) -> str:
    """Names the records of items."""
    return " and ".join(item.where for item in items)


def shape_of(found: Any) -> str:
    """Of a tensor, or what it is instead."""
    return f"{list(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"


def packed(items: Sequence[Prepared], device: str) -> EncoderInput:
    """Items joined; on the meta device without their values."""
    arrays: dict[str, Tensor] = {}
    for name, first in items[0].arrays.items():
        own = [item.arrays[name] for item in items]
        if device == META:
            dtype = torch.from_numpy(np.zeros(0, first.dtype)).dtype
            arrays[name] = torch.empty(sum(map(len, own)), *first.shape[1:], dtype=dtype, device=device)
        else:
            arrays[name] = torch.from_numpy(np.concatenate(own))
    lengths: Mapping[str, Sequence[int]] = {name: [len(item.arrays[name]) for item in items] for name in arrays}
    return EncoderInput(arrays, lengths, [item.positions for item in items])
