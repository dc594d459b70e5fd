"""The parts of one decoder layer: normalisation, attention, and the block that joins them with a feed-forward network.

B batch rows, L positions, D width, H query heads, K key/value heads, E head width. Projections are separate matrices:
fusing them gains nothing on CPU (measured), and separate ones suit tensor parallelism and Muon as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mio.core.contract.backbone import TransformerConfig
from mio.core.data.document_mask import DocumentMask
from mio.core.distributed.regions import is_split
from mio.core.model.attention import attend
from mio.core.model.cache import CacheStep, NextStep
from mio.core.model.experts import SparseExperts, SwiGLU
from mio.core.model.networks import as_trained, reached
from mio.core.model.rope import rotate

if TYPE_CHECKING:
    from torch.distributed.tensor import Placement


@dataclass
class Shared:
    """What all layers of one forward pass share."""

    cos: Tensor
    sin: Tensor
    mask: DocumentMask | None
    cache: CacheStep | NextStep | None
    unseen: frozenset[str] = frozenset()
    """Modalities of which a training's pass holds no item."""


Maps = Mapping[str, tuple[Tensor, Tensor]]
"""By modality, the maps of each row's items and who sees them (see `mio.core.model.encoders.RowMaps`)."""


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that matrix products on `x` take: autocast's where it is on, else that of `x`."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class _CpuRMSNorm(torch.autograd.Function):
    # torch has no fused kernel for CPU; this takes half the time of its composite, and casts once for all projections.
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = norm.square_().mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        normed = x * scale
        product = normed * grads[0]
        by_weight = product.flatten(0, -2).sum(0).to(weight.dtype)
        mean = (product @ weight.to(product.dtype)).unsqueeze(-1).mul_(1 / x.shape[-1])
        by_x = (grads[0] * weight.to(product.dtype)).addcmul_(normed, mean, value=-1).mul_(scale)
        return by_x.to(x.dtype), by_weight, None, None


class RMSNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich, 2019, arXiv:1910.07467), computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps
        self.gradient: Sequence[Placement] = ()
        """Of a weight that is a `DTensor`: how this device's gradient is placed in the whole."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width] in the dtype that the projections after it compute in."""
        weight: Tensor = self.weight
        if is_split(weight):
            weight = weight.to_local(grad_placements=self.gradient)
        if x.device.type == "cpu" and x.dtype != torch.float64:
            return _CpuRMSNorm.apply(x, weight, self.eps, compute_dtype(x))
        return F.rms_norm(x, weight.shape, weight.to(x.dtype), self.eps).to(compute_dtype(x))


class Attention(nn.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        E, K = config.head_size, config.kv_heads or config.heads
        self.layer = layer
        self.head_width = E
        self.window = config.window(layer)
        self.query = nn.Linear(config.width, config.heads * E, bias=config.qkv_bias)
        self.key = nn.Linear(config.width, K * E, bias=config.qkv_bias)
        self.value = nn.Linear(config.width, K * E, bias=config.qkv_bias)
        self.output = nn.Linear(config.heads * E, config.width, bias=False)
        self.query_norm = RMSNorm(E, config.norm_eps) if config.qk_norm else nn.Identity()
        self.key_norm = RMSNorm(E, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, shared: Shared) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        B, L, _ = x.shape
        # -1 heads: under tensor parallelism a device holds only its share.
        q = self.query_norm(self.query(x).view(B, L, -1, self.head_width))
        k = self.key_norm(self.key(x).view(B, L, -1, self.head_width))
        v = self.value(x).view(B, L, -1, self.head_width)
        q, k = rotate(q, shared.cos, shared.sin), rotate(k, shared.cos, shared.sin)
        if shared.cache is not None:
            out = shared.cache.attend(self.layer, self.window, q, k, v)
        else:
            out = attend(q, k, v, shared.mask, self.window)
        return self.output(out.reshape(B, L, -1))


class Block(nn.Module):
    """Pre-norm decoder layer. The unit of sharding, compilation and activation checkpointing."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(config, layer)
        self.ffn_norm = RMSNorm(config.width, config.norm_eps)
        self.ffn = SparseExperts(config) if config.experts else SwiGLU(config)
        self.reads: dict[str, str] = {}
        """Modality whose maps each network of a plugin in this layer reads, by plugin (see `add_adapter`)."""

    def add_adapter(self, plugin: str, reads: str, network: nn.Module) -> None:
        """Puts a plugin's network between attention and feed-forward network."""
        if not self.reads:
            self.adapters = nn.ModuleDict()
        network.forward = partial(_adapted, network.forward, network)
        self.adapters[plugin] = network
        self.reads[plugin] = reads

    def forward(self, x: Tensor, shared: Shared, maps: Maps = MappingProxyType({})) -> tuple[Tensor, Tensor | None]:
        """[B, L, D] -> [B, L, D], and the experts' balance (see `SparseExperts`), None without experts. `maps` are by
        modality what the layer's adapters read, and who sees it."""
        x = self.attend(x, shared)
        if self.reads:
            x = self.adapt(x, maps, shared.unseen)
        return self.feed(x, shared)

    def attend(self, x: Tensor, shared: Shared) -> Tensor:
        """[B, L, D] -> [B, L, D], with what attention adds."""
        return x + self.attention(self.attention_norm(x), shared)

    def adapt(self, x: Tensor, maps: Maps, unseen: Set[str]) -> Tensor:
        """[B, L, D] -> [B, L, D], with what the networks of plugins add."""
        for plugin, reads in self.reads.items():
            with as_trained(x):
                delta = self.adapters[plugin](x, *maps[reads], reads in unseen)
            x = x + delta.to(x.dtype)
        return x

    def feed(self, x: Tensor, shared: Shared) -> tuple[Tensor, Tensor | None]:
        """[B, L, D] -> [B, L, D], with what the feed-forward network adds, and the experts' balance."""
        normed = self.ffn_norm(x)
        if not isinstance(self.ffn, SparseExperts):
            return x + self.ffn(normed), None
        out, balance = self.ffn(normed, shared.mask.valid if shared.mask is not None else None)
        return x + out, balance


def _adapted(
    forward: Callable[..., Tensor], network: nn.Module, x: Tensor, maps: Tensor, visible: Tensor, unseen: bool = False
) -> Tensor:
    """Of a network of a plugin, through which a backward pass goes also where there is nothing to be seen."""
    delta = forward(x, maps, visible)
    return reached(delta, (x, maps, *network.parameters())) if unseen else delta
