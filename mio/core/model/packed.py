"""Layers of a transformer that only computes forward, on a CPU: fewer and larger products, of packed matrices.

Matrices lie as oneDNN's kernels read them (`torch.ops.mkldnn`, what torch's own compiler uses for frozen weights): at
one row a product reads memory at twice the rate of `F.linear`, and what a row gets does not depend, bit by bit, on how
many rows are computed with it. Attention is computed in float32, in which torch multiplies small matrices faster, and
alike in every batch. All else here keeps to that too: with the attention of `mio.core.model.cache` the hidden state of
a token is a function of its own past, whatever is in the batch, and in however many pieces it came. One thing does not:
where a processor has AMX, last bits of oneDNN's products in bfloat16 depend on the number of rows, for matrices of 512
inputs and more (not of 448 and fewer, but for single rows, see `_TILE`). Pieces of fewer inputs would agree and take up
to four times as long; float32 (`--precision fp32`) agrees too.

B sequences, L positions, D width, H query heads, K key/value heads, E head width, F hidden units.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mio.core.model.attention import attend
from mio.core.model.experts import SparseExperts, SwiGLU
from mio.core.model.layers import Attention, Block, RMSNorm, Shared
from mio.core.model.rope import rotate

if TYPE_CHECKING:
    from mio.core.model.transformer import Transformer

_UNSPLIT = 1024
"""Inputs up to which oneDNN sums a single row as it sums several; it cuts the sums of longer single rows in pieces, in
float32 also those of shorter ones where threads can share them."""
_TILE = 32
"""Inputs of bfloat16 in a tile of AMX: where they do not fill tiles, a single row is summed in another order."""
_UNSHARED = 32_767
"""Elements up to which torch computes a function of each in one thread. Where it cuts them in two, the last elements of
a piece take another exponential function, which differs in the last bit."""


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this machine multiplies packed matrices of this dtype well."""
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@torch.no_grad()
def pack(transformer: Transformer, summed: Callable[[Tensor], object] | None = None) -> None:
    """Replaces the layers of a transformer in place; their parameters are then no longer there by name. It must be
    plain: neither spread over devices nor with adapters of rank.

    Args:
        summed: sums in place what layers of a transformer that is split over devices give, over these.
    """
    for number, block in enumerate(transformer.layers):
        assert isinstance(block, Block)
        transformer.layers[number] = PackedBlock(block, summed)
    norm = PackedNorm(transformer.norm)
    del transformer.norm
    transformer.norm = norm  # type: ignore[assignment]
    transformer.packed_head = PackedHead(transformer.head_weight, transformer.head_bias)


class PackedLinear:
    """A linear layer of a matrix [outputs, inputs] and a bias [outputs]."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.inputs = weight.shape[1]
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        self.bias = None if bias is None else bias.detach()
        self._product = torch.ops.mkldnn._linear_pointwise.default

    @classmethod
    def of(cls, *layers: nn.Linear) -> PackedLinear:
        """The outputs of all of these, side by side."""
        biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        return cls(torch.cat([layer.weight.detach() for layer in layers]), torch.cat(biases) if biases else None)

    def __call__(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        if x.numel() == self.inputs and self._cuts_a_row():
            twice = x.reshape(1, -1).expand(2, -1).contiguous()
            return self._product(twice, self.weight, self.bias, "none", [], "")[:1].view(*x.shape[:-1], -1)
        product: Tensor = self._product(x, self.weight, self.bias, "none", [], "")
        return product

    def _cuts_a_row(self) -> bool:
        if self.weight.dtype == torch.float32:
            return self.inputs > _UNSPLIT or torch.get_num_threads() > 1
        return self.inputs > _UNSPLIT or self.inputs % _TILE > 0


class PackedHead:
    """Scores of runs of ids, each of which is packed when it is first asked for: what a grammar asks for are a few."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias
        self._runs: dict[tuple[int, int], PackedLinear] = {}

    def __call__(self, hidden: Tensor, first: int, end: int) -> Tensor:
        """float32 [..., end - first] of hidden [..., D]."""
        run = self._runs.get((first, end))
        if run is None:
            with torch.inference_mode(False):
                bias = None if self._bias is None else self._bias[first:end]
                run = self._runs[first, end] = PackedLinear(self._weight[first:end], bias)
        return run(hidden).float()


class PackedNorm:
    """`RMSNorm` in fewer passes: x / sqrt(|x|^2 + D eps) times sqrt(D) weight."""

    def __init__(self, norm: RMSNorm) -> None:
        width = norm.weight.shape[-1]
        self.scale = norm.weight.detach().float() * width**0.5
        self.eps = width * norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D] in the dtype of `x`, computed in float32."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        out = (x * length.square_().add_(self.eps).rsqrt_()).mul_(self.scale)
        return out if x.dtype == torch.float32 else out.to(x.dtype)


class PackedBlock(Block):
    """`Block` of a copy that decodes, with all that it does in one piece: a step of a small model consists of calls."""

    def __init__(self, whole: Block, summed: Callable[[Tensor], object] | None) -> None:
        nn.Module.__init__(self)
        attention, ffn = whole.attention, whole.ffn
        self.layer, self.window, E = attention.layer, attention.window, attention.head_width
        self.heads, self.kv_heads = attention.query.out_features // E, attention.key.out_features // E
        self.summed = summed
        self.reads = whole.reads
        if self.reads:
            self.adapters = whole.adapters
        self.attention_norm = PackedNorm(whole.attention_norm)  # type: ignore[assignment]
        self.project = PackedLinear.of(attention.query, attention.key, attention.value)
        self.turned_norm = _joint_norm(attention, self.heads, self.kv_heads)
        self.output = PackedLinear.of(attention.output)
        self.ffn_norm = PackedNorm(whole.ffn_norm)  # type: ignore[assignment]
        self.ffn = ffn
        if isinstance(ffn, SparseExperts):
            router = PackedLinear.of(ffn.router)
            del ffn.router
            ffn.router = router  # type: ignore[assignment]
            for number, expert in enumerate(ffn.experts):
                assert isinstance(expert, SwiGLU)
                ffn.experts[number] = PackedSwiGLU(expert)
        else:
            self.ffn = PackedSwiGLU(ffn)  # type: ignore[assignment]

    def attend(self, x: Tensor, shared: Shared) -> Tensor:
        """[B, L, D] -> [B, L, D], with what attention adds."""
        B, L, _ = x.shape
        H, K = self.heads, self.kv_heads
        projected = self.project(self.attention_norm(x)).view(B, L, H + 2 * K, -1).float()
        turned, v = projected.split_with_sizes((H + K, K), 2)
        if self.turned_norm is not None:
            turned = self.turned_norm(turned)
        q, k = rotate(turned, shared.cos, shared.sin).split_with_sizes((H, K), 2)
        if shared.cache is not None:
            out = shared.cache.attend(self.layer, self.window, q, k, v)
        else:
            out = attend(q, k, v, shared.mask, self.window)
        mixed = self.output(out.reshape(B, L, -1).to(x.dtype))
        if self.summed is not None:
            self.summed(mixed)
        return x + mixed

    def feed(self, x: Tensor, shared: Shared) -> tuple[Tensor, Tensor | None]:
        """[B, L, D] -> [B, L, D], with what the feed-forward network adds, and the experts' balance."""
        normed, balance = self.ffn_norm(x), None
        if isinstance(self.ffn, SparseExperts):
            out, balance = self.ffn.forward(normed, shared.mask.valid if shared.mask is not None else None)
        else:
            out = self.ffn.forward(normed)
        if self.summed is not None:
            self.summed(out)
        return x + out, balance


def _joint_norm(attention: Attention, heads: int, kv_heads: int) -> PackedNorm | None:
    """Of queries and keys side by side; None where they have no norm."""
    if not isinstance(attention.query_norm, RMSNorm) or not isinstance(attention.key_norm, RMSNorm):
        return None
    norm, of_keys = PackedNorm(attention.query_norm), PackedNorm(attention.key_norm)
    norm.scale = torch.cat([norm.scale.expand(heads, -1), of_keys.scale.expand(kv_heads, -1)])
    return norm


class PackedSwiGLU(nn.Module):
    """`SwiGLU` with one product for gate and values."""

    def __init__(self, whole: SwiGLU) -> None:
        super().__init__()
        self.rows = max(1, _UNSHARED // whole.gate.out_features)
        self.both, self.down = PackedLinear.of(whole.gate, whole.up), PackedLinear.of(whole.down)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        both = self.both(x)
        if both.numel() > 2 * _UNSHARED:
            pieces = both.flatten(0, -2).split(self.rows)
            gated = torch.cat([_gated(piece) for piece in pieces]).view(*both.shape[:-1], -1)
        else:
            gated = _gated(both)
        return self.down(gated)


def _gated(both: Tensor) -> Tensor:
    """[..., F] of [..., 2 F]. As the halves of rows do not follow each other in memory, each row is computed alike."""
    gate, up = both.chunk(2, -1)
    return F.silu(gate).mul_(up)
