"""Heads and adapters in a simulated step: items without values, what they are given, and what is computed of them.

As with encoders (`mio.core.planning.encoders`), nothing is known of a recipe's media. A head learns as many items as
the encoder of its modality reads, if there is one, as each item that is made is read back; else those of its share of
the positions. Each is its `example`.

N items, D width of the transformer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mio.core.contract.heads import Head, HeadItems
from mio.core.data.items import SeenMaps
from mio.core.data.made import MadeItems
from mio.core.errors import PluginError
from mio.core.model.heads import condition
from mio.core.model.networks import reached
from mio.core.model.transformer import Transformer
from mio.core.planning.encoders import AsOnGpu, EncoderLoad
from mio.core.recipe.model import ADAPTERS, LAYERS

META = torch.device("meta")


@dataclass(frozen=True)
class NetworkLoad:
    """What the networks of a plugin that are no encoder have to do in a forward pass of one device."""

    name: str
    """`heads.MODALITY`, or `adapters.PLUGIN`, whose networks of all layers are one."""
    parameters: int
    trained: int
    items: int = 0
    """That a head learns."""
    flops: float = 0.0
    """Of the forward pass and of as much of a backward pass as what is trained needs, without what is recomputed."""


@dataclass(frozen=True)
class HeadLoad(NetworkLoad):
    """Of a head."""

    positions: int = 0
    """Of its own, of each item."""
    context: int = 0
    before: Mapping[str, int] | None = None
    """Items before each one whose maps it is given, by modality."""
    shapes: Mapping[str, tuple[int, ...]] | None = None
    """Of an item's arrays, by name."""
    types: Mapping[str, torch.dtype] | None = None

    def batch(self, device: torch.device) -> MadeItems:
        """The items, without values on a device without memory."""
        shapes, types = self.shapes or {}, self.types or {}
        arrays = {
            name: torch.zeros((self.items * shape[0], *shape[1:]), dtype=types[name], device=device)
            for name, shape in shapes.items()
        }
        lengths = {name: [shape[0]] * self.items for name, shape in shapes.items()}

        def numbers(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        dropped = torch.zeros(self.items, dtype=torch.bool, device=device)
        return MadeItems(
            HeadItems(arrays, lengths, [self.positions] * self.items, dropped),
            numbers(self.items * self.positions),
            numbers(self.items, self.context),
            {name: numbers(self.items, count) for name, count in (self.before or {}).items()},
            torch.ones(self.items, device=device),
        )


def seen_by_rows(load: EncoderLoad, rows: int, device: torch.device) -> SeenMaps:
    """Who sees the maps of an encoder's items, spread evenly over the rows."""
    most = -(-load.items // rows)
    return SeenMaps(*(torch.zeros((rows, most), dtype=torch.int64, device=device) for _ in range(3)))


def head_loads(
    transformer: Transformer, encoders: Sequence[EncoderLoad], shares: Mapping[str, float], positions: int
) -> tuple[HeadLoad, ...]:
    """The load of each head of a transformer on the meta device that is not spread yet; arguments as those of
    `encoder_loads`. Raises `PluginError` for a network that does not run without values."""
    read = {load.modality: load.items for load in encoders}
    loads = []
    for name, head in transformer.networks.heads.items():
        network = transformer.heads[name]
        items = read.get(name) or max(1, round(shares.get(name, 0.0) * positions / (head.writes or 1)))
        arrays = _example(head)
        load = HeadLoad(
            f"heads.{name}",
            *_sizes([network]),
            items,
            0.0,
            head.writes,
            head.context,
            {one: min(count, items) for one, count in head.maps.items()},
            {key: tuple(array.shape) for key, array in arrays.items()},
            {key: torch.from_numpy(array[:0].copy()).dtype for key, array in arrays.items()},
        )
        trained = {load.modality for load in encoders if load.trained}
        run = partial(_loss, transformer, name, load, trained)
        loads.append(replace(load, flops=_counted(load.name, run, [network])))
    return tuple(loads)


def adapter_loads(
    transformer: Transformer, encoders: Sequence[EncoderLoad], rows: int, context: int
) -> tuple[NetworkLoad, ...]:
    """The load of each plugin's adapters. Raises as `head_loads`."""
    read, width, config = {load.modality: load for load in encoders}, transformer.config.width, transformer.networks
    loads = []
    for plugin, layers in config.adapted_layers(len(transformer.layers)).items():
        modality = config.adapters[plugin].reads
        networks = [transformer.get_submodule(f"{LAYERS}{layer}.{ADAPTERS}.{plugin}") for layer in layers]
        cells: tuple[int, int] = config.encoders[modality].maps  # type: ignore[attr-defined]
        items = seen_by_rows(read[modality], rows, META).items.shape[1]
        hidden = torch.zeros(rows, context, width, device=META, requires_grad=True)
        maps = torch.zeros(rows, items, *cells, device=META, requires_grad=read[modality].trained > 0)
        visible = torch.ones(rows, context, items, dtype=torch.bool, device=META)
        name = f"{ADAPTERS}.{plugin}"
        flops = _counted(name, partial(networks[0], hidden, maps, visible), networks[:1]) * len(networks)
        loads.append(NetworkLoad(name, *_sizes(networks), flops=flops))
    return tuple(loads)


def _loss(transformer: Transformer, name: str, load: HeadLoad, trained: Collection[str]) -> Tensor:
    """Of all items of a head; maps of encoders that are `trained` have gradients."""
    head, made = transformer.heads[name], load.batch(META)
    hidden = torch.zeros(1, transformer.config.width, device=META, requires_grad=True)
    readers = transformer.networks.encoders
    maps = {
        one: torch.zeros(1, *readers[one].maps, device=META, requires_grad=one in trained)  # type: ignore[attr-defined]
        for one in made.maps
    }
    total = hidden.new_zeros(())
    kept: Any = None
    if hasattr(head, "inputs"):
        embeddings, kept = head.inputs(made.input)  # type: ignore[operator]
        total = reached(total, [embeddings])
    found: Tensor = head(condition(hidden, made, maps), made.input, kept)
    return found.sum() + total


def _example(head: Head) -> dict[str, np.ndarray[Any, Any]]:
    target = head.target(head.example())
    return {**target, **head.noise(target, np.random.Generator(np.random.Philox(0)))}


def _sizes(networks: Sequence[nn.Module]) -> tuple[int, int]:
    own = [parameter for network in networks for parameter in network.parameters()]
    return sum(one.numel() for one in own), sum(one.numel() for one in own if one.requires_grad)


def _counted(name: str, run: Callable[[], Tensor], networks: Sequence[nn.Module]) -> float:
    """FLOPs of a pass, forward and backward."""
    try:
        with FlopCounterMode(display=False) as counter, AsOnGpu(None):
            run().sum().backward()
    except Exception as error:
        reason = (f"{error}".splitlines() or [type(error).__name__])[0]
        raise PluginError(
            f"`{name}` does not run on tensors without values ({type(error).__name__}: {reason:.200}), which a plan is "
            "made of; let shapes follow from the lengths that it is given, not from values of tensors"
        ) from error
    for network in networks:
        network.zero_grad()
    return float(counter.get_total_flops())
