"""Networks of plugins inside the transformer: how they are made, named, and what they begin with.

They are float32 under autocast and stay in evaluation mode. D is the transformer's width.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from mio.core.contract.networks import Networks
from mio.core.distributed.regions import local, local_region
from mio.core.errors import PluginError
from mio.core.recipe.model import ADAPTERS, LAYERS, network_names, network_of

if TYPE_CHECKING:
    from mio.core.model.transformer import Transformer

_STORED = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)
"""Types that files of weights have."""


def factories(networks: Networks, layers: int) -> Iterator[tuple[str, Callable[[int], Any]]]:
    """(name in the transformer, `module`) of every network of plugins. Raises `PluginError` where they do not fit
    together."""
    for problem in networks.problems():
        raise PluginError(problem)
    for name in network_names(networks, layers):
        kind, own = network_of(f"{name}.").split(".", 1)
        yield name, getattr(networks, kind)[own].module


def make_network(name: str, factory: Callable[[int], Any], width: int) -> nn.Module:
    """A network on the device of the surrounding context, in evaluation mode.

    Raises `PluginError` for one that cannot be made, or holds what no run could store.
    """
    network = factory(width)
    if not isinstance(network, nn.Module):
        raise PluginError(f"`{name}`: its `module` gave no torch module, but {network!r:.60}")
    for layer, module in network.named_modules(prefix=name):
        for own, value in vars(module).items():
            if isinstance(value, Tensor) and value.is_meta:
                raise PluginError(
                    f"`{layer}.{own}` is a tensor of its own, which does not move to a device with its network; "
                    "make it with `register_buffer`"
                )
    for own, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.dtype not in _STORED:
            raise PluginError(f"`{name}.{own}` is {tensor.dtype}, in which no weights are stored")
    return network.eval()


def plugin_networks(transformer: Transformer) -> Iterator[tuple[str, nn.Module]]:
    """(name in the transformer, network), in the same order on every device."""
    for name, _ in factories(transformer.networks, len(transformer.layers)):
        yield name, transformer.get_submodule(name)


def units(network: nn.Module) -> Iterator[nn.Module]:
    """What is gathered, recomputed and compiled by itself: the children of its outermost `nn.ModuleList`s."""
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from units(child)


class _Reached(torch.autograd.Function):
    # an expanded 0 takes no memory, and a gradient that comes from elsewhere is added to it
    @staticmethod
    def forward(ctx: Any, x: Tensor, *others: Tensor) -> Tensor:
        ctx.others = [(one.shape, one.dtype, one.device) for one in others]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        zeros = [torch.zeros((), dtype=dtype, device=device).expand(shape) for shape, dtype, device in ctx.others]
        return grads[0], *zeros


def reached(x: Tensor, others: Iterable[Tensor]) -> Tensor:
    """`x`, whose backward pass reaches `others` too, with gradients of 0. FSDP2 gathers and adds up what a backward
    pass reaches, and devices wait for each other for ever where that is not the same on all of them."""
    wanted = [one for one in others if one.requires_grad] if torch.is_grad_enabled() else []
    found: Tensor = _Reached.apply(x, *wanted) if wanted else x
    return found


def reach_all(network: nn.Module) -> None:
    """Has every backward pass through a network reach all of its trained parameters and what it was given, in place,
    also what its forward pass left out: nothing to be read, nothing dropped. Each unit sees to its own."""
    inner = list(units(network))
    for part in inner:
        part.forward = partial(_reaching, part.forward, part, [])
    network.forward = partial(_reaching, network.forward, network, inner)


def _reaching(
    forward: Callable[..., Any], network: nn.Module, apart: Sequence[nn.Module], *given: Any, **named: Any
) -> Any:
    found = forward(*given, **named)
    if not torch.is_grad_enabled():
        return found
    elsewhere = {id(one) for part in apart for one in part.parameters()}
    leaves, form = tree_flatten(found)
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            own = (one for one in network.parameters() if id(one) not in elsewhere)
            leaves[place] = reached(
                leaf, (*own, *(one for one in tree_leaves((given, named)) if isinstance(one, Tensor)))
            )
            break
    return tree_unflatten(leaves, form)


def is_frozen(network: nn.Module) -> bool:
    """Whether none of its parameters is trained."""
    return not any(parameter.requires_grad for parameter in network.parameters())


def as_trained(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """What networks of plugins run in beside the transformer's `x`: autocast, also in a copy that decodes, of which the
    weights are not float32."""
    lower = x.dtype != torch.float32 and not torch.is_autocast_enabled(x.device.type)
    return torch.autocast(x.device.type, x.dtype) if lower else contextlib.nullcontext()


def buffers(transformer: Transformer) -> dict[str, Tensor]:
    """Buffers of the networks by their name in the transformer, which has none itself. They are stored with its
    parameters: what a pretrained network knows may lie in them."""
    return {
        f"{name}.{own}": buffer
        for name, network in plugin_networks(transformer)
        for own, buffer in network.named_buffers()
    }


def assign_buffers(transformer: Transformer, state: Mapping[str, Tensor]) -> None:
    """Puts tensors, by their name in the transformer, in the place of all buffers of its networks."""
    for name in buffers(transformer):
        layer, _, own = name.rpartition(".")
        transformer.get_submodule(layer)._buffers[own] = state[name]


def exact_parameters(transformer: Transformer) -> dict[str, Tensor]:
    """Parameters of networks that autocast uses as they are, by their name in the transformer: all but those of linear
    and convolution layers, which it rounds to the type that it computes in."""
    exact: dict[str, Tensor] = {}
    for name, network in plugin_networks(transformer):
        rounded = [one for one in network.modules() if isinstance(one, nn.Linear | _ConvNd)]
        known = {id(parameter) for module in rounded for parameter in module.parameters(recurse=False)}
        exact |= {f"{name}.{own}": one for own, one in network.named_parameters() if id(one) not in known}
    return exact


def initial_states(
    networks: Networks, width: int, layers: int, seed: int, only: frozenset[str] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """(name in the transformer, value) of what parameters and buffers of networks begin with, on the CPU: of all, or of
    `only` some (see `network_of`).

    Raises `PluginError` for pretrained values that have no place in their network.
    """
    pretrained: dict[str, dict[str, Tensor]] = {}
    for name, factory in factories(networks, layers):
        key = network_of(f"{name}.")
        if only is not None and key not in only:
            continue
        if key not in pretrained:
            pretrained[key] = _pretrained(networks, key)
        state = _drawn(name, factory, width, seed)
        for own in [own for own in pretrained[key] if own.startswith(f"{name}.")]:
            tensor = pretrained[key].pop(own)
            if own not in state or state[own].shape != tensor.shape:
                there = list(state[own].shape) if own in state else "nothing"
                raise PluginError(f"pretrained `{own}` is {list(tensor.shape)}, where its network has {there}")
            state[own] = tensor
        yield from state.items()
    for rest in pretrained.values():
        for own in rest:
            raise PluginError(f"pretrained `{own}` belongs to no network of the recipe")


def _pretrained(networks: Networks, key: str) -> dict[str, Tensor]:
    """Pretrained values by their name in the transformer."""
    kind, name = key.split(".", 1)
    source = getattr(networks, kind)[name]
    weights: Mapping[str, Tensor] = getattr(source, "weights", dict)()
    if kind != ADAPTERS:
        return {f"{key}.{own}": tensor for own, tensor in weights.items()}
    of_layers = {own: own.split(".", 1) for own in weights}
    return {
        f"{LAYERS}{layer}.{ADAPTERS}.{name}.{rest[0] if rest else ''}": weights[own]
        for own, (layer, *rest) in of_layers.items()
    }


def _drawn(name: str, factory: Callable[[int], Any], width: int, seed: int) -> dict[str, Tensor]:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(int.from_bytes(digest, "little") >> 1)
        module = factory(width)
    return {f"{name}.{own}": tensor.detach() for own, tensor in (*module.named_parameters(), *module.named_buffers())}


@torch.no_grad()
def initialise_networks(transformer: Transformer, seed: int, only: frozenset[str] | None = None) -> None:
    """Gives networks their initial values, of a split parameter this device's part: all of them, or `only` some (see
    `network_of`). What is on the meta device is left alone."""
    tensors = {
        f"{name}.{own}": tensor
        for name, network in plugin_networks(transformer)
        for own, tensor in (*network.named_parameters(), *network.named_buffers())
    }
    there = {network_of(name) for name, tensor in tensors.items() if not tensor.is_meta}
    wanted = frozenset(there if only is None else there & only)
    if not wanted:
        return
    width, layers = transformer.config.width, transformer.config.layers
    for name, value in initial_states(transformer.networks, width, layers, seed, wanted):
        tensor = tensors[name]
        shape, offset = local_region(tensor)
        box = tuple(slice(at, at + size) for at, size in zip(offset, shape, strict=True))
        local(tensor).copy_(value[box])
