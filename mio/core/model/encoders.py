"""Networks that read media inside the transformer: their initial values, and where their embeddings go.

D width, S positions of all items of a modality together.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mio.core.contract.encoders import Encoder
from mio.core.data.items import EncoderItems
from mio.core.distributed.regions import local, local_region
from mio.core.errors import PluginError

if TYPE_CHECKING:
    from mio.core.model.transformer import Transformer

PREFIX = "encoders."
"""Begins the names of their parameters in the transformer; the modality follows."""


def splice(x: Tensor, encoders: nn.ModuleDict, items: Mapping[str, EncoderItems]) -> Tensor:
    """[B, L, D] of the tokens' embeddings, with those of media in their places.

    Every encoder that has an entry in `items` runs, in the same order on every device: where an entry is a dummy, so
    that devices that share parameters gather them together, and a parameter without items has a gradient of 0.
    """
    for name, encoder in encoders.items():
        if (one := items.get(name)) is None:
            continue
        # weights that are not float32 outside of autocast are a copy that decodes
        lower = x.dtype != torch.float32 and not torch.is_autocast_enabled(x.device.type)
        with torch.autocast(x.device.type, x.dtype) if lower else contextlib.nullcontext():
            embeddings = encoder(one.input)
        if one.dummy:
            x = x + 0 * embeddings.sum().to(x.dtype)
            continue
        if embeddings.shape != (due := (len(one.places), x.shape[-1])):
            raise PluginError(
                f"the encoder of `{name}` gave {list(embeddings.shape)} embeddings for {len(one.input.positions)} "
                f"items, of which its `positions` had said {list(due)}; correct `positions`, or the network"
            )
        x = x.flatten(0, 1).index_copy(0, one.places, embeddings.to(x.dtype)).view_as(x)
    return x


def initial_state(name: str, encoder: Encoder, width: int, seed: int) -> dict[str, Tensor]:
    """Values that parameters and buffers of an encoder's network begin with, by name, on the CPU.

    Raises `PluginError` for pretrained values that have no place in it.
    """
    digest = hashlib.blake2b(f"{seed}/{PREFIX}{name}".encode(), digest_size=8).digest()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(int.from_bytes(digest, "little") >> 1)
        module = encoder.module(width)
    state = {one: tensor.detach() for one, tensor in (*module.named_parameters(), *module.named_buffers())}
    pretrained: Mapping[str, Tensor] = getattr(encoder, "weights", dict)()
    for one, tensor in pretrained.items():
        if one not in state or state[one].shape != tensor.shape:
            there = list(state[one].shape) if one in state else "nothing"
            raise PluginError(
                f"encoder of `{name}`: its pretrained `{one}` is {list(tensor.shape)}, where its network has {there}"
            )
        state[one] = tensor
    return state


@torch.no_grad()
def initialise_encoders(transformer: Transformer, seed: int, only: frozenset[str] | None = None) -> None:
    """Gives encoders their initial values, of a split parameter this device's part: all of them, or of parameters those
    that `only` names. Buffers, which no run stores, always. What is on the meta device is left alone."""
    for name, encoder in transformer.readers.items():
        module = transformer.encoders[name]
        if all(one.is_meta for one in (*module.parameters(), *module.buffers())):
            continue
        state = initial_state(name, encoder, transformer.config.width, seed)
        for one, buffer in module.named_buffers():
            buffer.copy_(state[one])
        for one, parameter in module.named_parameters():
            if only is not None and f"{PREFIX}{name}.{one}" not in only:
                continue
            shape, offset = local_region(parameter)
            box = tuple(slice(at, at + size) for at, size in zip(offset, shape, strict=True))
            local(parameter).copy_(state[one][box])


@torch.no_grad()
def restore_buffers(transformer: Transformer, seed: int) -> None:
    """Gives the encoders of a transformer on the meta device their buffers, on the CPU."""
    for name, encoder in transformer.readers.items():
        module = transformer.encoders[name]
        if next(module.buffers(), None) is None:
            continue
        state = initial_state(name, encoder, transformer.config.width, seed)
        for one, _ in list(module.named_buffers()):
            layer, _, own = one.rpartition(".")
            module.get_submodule(layer)._buffers[own] = state[one]


def copy_buffers(source: Transformer, target: Transformer, device: torch.device) -> None:
    """Gives the encoders of `target`, which is made like `source`, the same buffers on a device."""
    for name, buffer in source.encoders.named_buffers():
        layer, _, own = name.rpartition(".")
        target.encoders.get_submodule(layer)._buffers[own] = buffer.to(device)
