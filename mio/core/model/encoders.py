"""Networks that read media inside the transformer: their initial values, and where their embeddings go.

D width, S positions of all items of a modality together.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from mio.core.contract.encoders import Encoder
from mio.core.data.items import EncoderItems
from mio.core.distributed.regions import local, local_region
from mio.core.errors import PluginError
from mio.core.recipe.model import ENCODERS

if TYPE_CHECKING:
    from mio.core.model.transformer import Transformer

_STORED = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)
"""Types that files of weights have."""


def make_networks(encoders: Mapping[str, Encoder], width: int) -> nn.ModuleDict:
    """The networks by modality, on the device of the surrounding context.

    They stay in evaluation mode. Raises `PluginError` for one that cannot be made, or holds what no run could store.
    """
    networks = nn.ModuleDict()
    for name, encoder in encoders.items():
        network = encoder.module(width)
        if not isinstance(network, nn.Module):
            raise PluginError(f"the encoder of `{name}`: its `module` gave no torch module, but {network!r:.60}")
        for layer, module in network.named_modules(prefix=f"{ENCODERS}{name}"):
            for own, value in vars(module).items():
                if isinstance(value, Tensor) and value.is_meta:
                    raise PluginError(
                        f"`{layer}.{own}` is a tensor of its own, which does not move to a device with its network; "
                        "make it with `register_buffer`"
                    )
        for own, tensor in (*network.named_parameters(), *network.named_buffers()):
            if tensor.dtype not in _STORED:
                raise PluginError(f"`{ENCODERS}{name}.{own}` is {tensor.dtype}, in which no weights are stored")
        networks[name] = network
    return networks.eval()


def units(network: nn.Module) -> Iterator[nn.Module]:
    """What is gathered, recomputed and compiled by itself: the children of its outermost `nn.ModuleList`s."""
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from units(child)


def is_frozen(network: nn.Module) -> bool:
    """Whether none of its parameters is trained."""
    return not any(parameter.requires_grad for parameter in network.parameters())


def splice(x: Tensor, encoders: nn.ModuleDict, items: Mapping[str, EncoderItems]) -> Tensor:
    """[B, L, D] of the tokens' embeddings, with those of media in their places.

    Every encoder that has an entry in `items` runs, in the same order on every device: where an entry is a dummy, so
    that devices that share parameters gather them together, and a parameter without items has a gradient of 0.
    """
    for name, encoder in encoders.items():
        if (one := items.get(name)) is None:
            continue
        frozen = is_frozen(encoder)
        # weights that are not float32 outside of autocast are a copy that decodes
        lower = x.dtype != torch.float32 and not torch.is_autocast_enabled(x.device.type)
        with (
            torch.autocast(x.device.type, x.dtype) if lower else contextlib.nullcontext(),
            torch.no_grad() if frozen else contextlib.nullcontext(),
        ):
            embeddings = encoder(one.input)
        if one.dummy:
            x = x if frozen else x + 0 * embeddings.sum().to(x.dtype)
            continue
        if embeddings.shape != (due := (len(one.places), x.shape[-1])):
            raise PluginError(
                f"the encoder of `{name}` gave {list(embeddings.shape)} embeddings for {len(one.input.positions)} "
                f"items, of which its `positions` had said {list(due)}; correct `positions`, or the network"
            )
        x = x.flatten(0, 1).index_copy(0, one.places, embeddings.to(x.dtype)).view_as(x)
    return x


def buffers(transformer: Transformer) -> dict[str, Tensor]:
    """Buffers of the encoders by their name in the transformer, which has none itself. They are stored with its
    parameters: what a pretrained network knows may lie in them."""
    return {f"{ENCODERS}{name}": buffer for name, buffer in transformer.encoders.named_buffers()}


def assign_buffers(transformer: Transformer, state: Mapping[str, Tensor]) -> None:
    """Puts tensors, by their name in the transformer, in the place of all buffers of its encoders."""
    for name in buffers(transformer):
        layer, _, own = name.rpartition(".")
        transformer.get_submodule(layer)._buffers[own] = state[name]


def exact_parameters(transformer: Transformer) -> dict[str, Tensor]:
    """Parameters of encoders that autocast uses as they are, by their name in the transformer: all but those of linear
    and convolution layers, which it rounds to the type that it computes in."""
    rounded = [one for one in transformer.encoders.modules() if isinstance(one, nn.Linear | _ConvNd)]
    known = {id(parameter) for module in rounded for parameter in module.parameters(recurse=False)}
    named = transformer.encoders.named_parameters()
    return {f"{ENCODERS}{name}": parameter for name, parameter in named if id(parameter) not in known}


def initial_state(name: str, encoder: Encoder, width: int, seed: int) -> dict[str, Tensor]:
    """Values that parameters and buffers of an encoder's network begin with, by name, on the CPU.

    Raises `PluginError` for pretrained values that have no place in it.
    """
    digest = hashlib.blake2b(f"{seed}/{ENCODERS}{name}".encode(), digest_size=8).digest()
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
    """Gives encoders their initial values, of a split parameter this device's part: all of them, or those of the
    modalities `only`. What is on the meta device is left alone."""
    for name, encoder in transformer.readers.items():
        network = transformer.encoders[name]
        tensors = dict((*network.named_parameters(), *network.named_buffers()))
        if (only is not None and name not in only) or all(one.is_meta for one in tensors.values()):
            continue
        state = initial_state(name, encoder, transformer.config.width, seed)
        for one, tensor in tensors.items():
            shape, offset = local_region(tensor)
            box = tuple(slice(at, at + size) for at, size in zip(offset, shape, strict=True))
            local(tensor).copy_(state[one][box])
