"""The Q-Former (BLIP-2, arXiv 2301.12597, section 3.1): learnt queries that read features.

B items, Q queries, N features of an item, D width, V width of the features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mio.plugins.mm_interleaved.norms import LayerNorm

EPSILON = 1e-12
"""Of BERT's layer norms."""


class Attention(nn.Module):
    """BERT's attention: multi-head attention, projection, residual, layer norm."""

    def __init__(self, width: int, heads: int, context: int, normalised: bool) -> None:
        """`normalised`: queries and keys of each head pass a layer norm."""
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context, width)
        self.value = nn.Linear(context, width)
        self.q_norm = LayerNorm(width // heads, eps=EPSILON) if normalised else nn.Identity()
        self.k_norm = LayerNorm(width // heads, eps=EPSILON) if normalised else nn.Identity()
        self.out = nn.Linear(width, width)
        self.norm = LayerNorm(width, eps=EPSILON)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """`[B, Q, D]` for `x` `[B, Q, D]` and `context` `[B, N, V]`; bool `mask` `[B, N]` is false where a feature is
        not to be read."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x), self.key(context), self.value(context))
        )
        seen = None if mask is None else mask[:, None, None]
        read = functional.scaled_dot_product_attention(
            self.q_norm(query).to(value.dtype), self.k_norm(key).to(value.dtype), value, attn_mask=seen
        )
        output: Tensor = self.norm(self.out(read.transpose(1, 2).flatten(2)) + x)
        return output


class Layer(nn.Module):
    """Self-attention of the queries, in some layers attention to the features, and a feed-forward network."""

    def __init__(self, width: int, heads: int, hidden: int, features: int | None, normalised: bool) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, width, normalised)
        self.cross_attention = None if features is None else Attention(width, heads, features, normalised)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.norm = LayerNorm(width, eps=EPSILON)

    def forward(self, x: Tensor, features: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.self_attention(x, x)
        if self.cross_attention is not None:
            x = self.cross_attention(x, features, mask)
        output: Tensor = self.norm(self.contract(functional.gelu(self.expand(x))) + x)
        return output


class QFormer(nn.Module):
    """Features `[B, N, V]` of any number to `[B, Q, D]`.

    (`PerceiverResampler` of `mm_interleaved/models/decoders/perceiver.py` in github.com/OpenGVLab/MM-Interleaved, with
    the norms of queries and keys of `utils/monkey_patch/blip2_qknorm_monkey_patch.py`. Its dropout is left out.)
    """

    def __init__(
        self,
        queries: int,
        width: int,
        layers: int,
        heads: int,
        hidden: int,
        features: int,
        *,
        every: int,
        normalised: bool,
    ) -> None:
        """`every`: layers from one that reads the features, width `features`, to the next."""
        super().__init__()
        self.queries = nn.Parameter(torch.empty(1, queries, width))
        self.norm = LayerNorm(width, eps=EPSILON)
        self.layers = nn.ModuleList(
            Layer(width, heads, hidden, features if index % every == 0 else None, normalised) for index in range(layers)
        )
        nn.init.normal_(self.queries, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """bool `mask` `[B, N]` is false where a feature is not to be read; each item has one that is."""
        x: Tensor = self.norm(self.queries).expand(len(features), -1, -1)
        for layer in self.layers:
            x = layer(x, features, mask)
        return x
