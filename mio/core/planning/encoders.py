"""Encoders in a simulated step: how many items a forward pass has, their arrays without values, and what they compute.

Nothing is known of a recipe's media without reading them. A share of the positions is theirs (`media=` of the plan),
and each item is the smallest that its encoder has: its `dummy`. For towers with tiles that is a tile.

S positions of all items of a modality together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from mio.core.contract.encoders import EncoderInput
from mio.core.data.items import EncoderItems
from mio.core.errors import PluginError
from mio.core.model.networks import is_frozen, plugin_networks, reached, units
from mio.core.model.transformer import Transformer


@dataclass(frozen=True)
class EncoderLoad:
    """What one encoder has to do in a forward pass of one device."""

    modality: str
    parameters: int
    trained: int
    items: int
    """Of the smallest size, of which each has `positions`."""
    positions: int
    shapes: Mapping[str, tuple[int, ...]]
    """Of an item's arrays, by name."""
    types: Mapping[str, torch.dtype]
    flops: float = 0.0
    """Of the forward pass and of as much of a backward pass as what is trained needs, without what is recomputed."""

    def batch(self, device: torch.device) -> EncoderItems:
        """The items, without values on a device without memory."""
        arrays = {
            name: torch.zeros((self.items * shape[0], *shape[1:]), dtype=self.types[name], device=device)
            for name, shape in self.shapes.items()
        }
        lengths = {name: [shape[0]] * self.items for name, shape in self.shapes.items()}
        places = torch.zeros(self.items * self.positions, dtype=torch.int64, device=device)
        return EncoderItems(EncoderInput(arrays, lengths, [self.positions] * self.items), places)


def encoder_loads(transformer: Transformer, shares: Mapping[str, float], positions: int) -> tuple[EncoderLoad, ...]:
    """The load of each encoder of a transformer on the meta device that is not spread yet.

    Args:
        shares: of the positions of a forward pass, by modality. Every encoder reads at least one item: a pass without
            any has a dummy.
        positions: of a forward pass of one device.

    Raises `PluginError` for a network that does not run without values.
    """
    loads = []
    for name, reader in transformer.networks.encoders.items():
        network, dummy = transformer.encoders[name], reader.dummy()
        one = EncoderLoad(
            name,
            sum(parameter.numel() for parameter in network.parameters()),
            sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad),
            1,
            0,
            {key: tuple(array.shape) for key, array in dummy.items()},
            {key: torch.from_numpy(array[:0].copy()).dtype for key, array in dummy.items()},
        )
        each, _ = _run(name, network, one)
        items = max(1, round(shares.get(name, 0.0) * positions / each))
        load = replace(one, items=items, positions=each)
        loads.append(replace(load, flops=_run(name, network, load)[1]))
    return tuple(loads)


def _run(name: str, network: nn.Module, load: EncoderLoad) -> tuple[int, float]:
    """Positions and FLOPs of a pass through a network on the meta device."""
    given = load.batch(torch.device("meta")).input
    try:
        with FlopCounterMode(display=False) as counter, AsOnGpu(None):
            with torch.set_grad_enabled(not is_frozen(network)):
                found = network(given)
            embeddings: Tensor = found[0] if isinstance(found, tuple) else found  # maps as well
            if isinstance(found, tuple):
                embeddings = reached(embeddings, [found[1]])
            if embeddings.requires_grad:
                embeddings.sum().backward()
    except Exception as error:
        reason = (f"{error}".splitlines() or [type(error).__name__])[0]
        raise PluginError(
            f"the encoder of `{name}` does not run on tensors without values ({type(error).__name__}: {reason:.200}), "
            "which a plan is made of; let shapes follow from the lengths that it is given, not from values of tensors"
        ) from error
    network.zero_grad()
    return len(embeddings), float(counter.get_total_flops())


class AsOnGpu(TorchFunctionMode):
    """On the meta device, what a GPU does with the operations of an encoder: autocast to a lower type (None: it is
    off), and attention by a kernel that keeps no scores. Both depend on the device, and meta has neither."""

    def __init__(self, low: torch.dtype | None) -> None:
        super().__init__()
        self.low = low

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self.low is not None and name in _LOWER:
            args, kwargs = _cast(self.low, args), _cast(self.low, kwargs)
        elif self.low is not None and name in _FLOAT32:
            args, kwargs = _cast(torch.float32, args), _cast(torch.float32, kwargs)
        if name == "scaled_dot_product_attention":
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)


_LOWER = {
    *("linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "addbmm", "baddbmm", "einsum"),
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("scaled_dot_product_attention", "multi_head_attention_forward"),
}
_FLOAT32 = {
    *("layer_norm", "group_norm", "softmax", "log_softmax", "exp", "log", "pow", "__pow__", "rsqrt", "sum", "prod"),
    *("cumsum", "cumprod", "norm", "cosine_similarity"),
}
"""Of the lists of CUDA's autocast (https://docs.pytorch.org/docs/2.11/amp.html), what networks that read media use."""


def _cast(dtype: torch.dtype, values: Any) -> Any:
    """Floating-point tensors among arguments in another type."""
    if isinstance(values, Tensor):
        return values.to(dtype) if values.is_floating_point() and values.dtype != torch.float64 else values
    if isinstance(values, dict):
        return {name: _cast(dtype, value) for name, value in values.items()}
    return type(values)(_cast(dtype, value) for value in values) if isinstance(values, (tuple, list)) else values


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **other: Any,  # noqa: ARG001
) -> Tensor:
    """`scaled_dot_product_attention` by the memory-efficient kernel of GPUs."""
    shape = query.shape
    query, key, value = (tensor.reshape(-1, *tensor.shape[-3:]) for tensor in (query, key, value))
    bias = attn_mask
    if bias is not None:
        bias = query.new_zeros(bias.shape) if bias.dtype == torch.bool else bias.to(query.dtype)
        bias = bias.expand(*query.shape[:3], key.shape[2])
    out: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, True, dropout_p, is_causal, scale=scale
    )[0]
    return out.reshape(*shape[:-1], value.shape[-1])


def run_as_on_gpu(transformer: Transformer, low: torch.dtype | None) -> None:
    """Has networks of plugins and their units run so, in place, those that are recomputed in a backward pass too."""
    for _, network in plugin_networks(transformer):
        for part in (*units(network), network):
            part.forward = partial(_as_on_gpu, part.forward, low)
        if hasattr(network, "inputs"):
            network.inputs = partial(_as_on_gpu, network.inputs, low)  # type: ignore[assignment,arg-type]


def _as_on_gpu(forward: Callable[..., Any], low: torch.dtype | None, *given: Any, **named: Any) -> Any:
    with AsOnGpu(low):
        return forward(*given, **named)
