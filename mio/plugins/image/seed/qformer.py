"""The causal Q-Former: learnt queries that read an image's features one after the other.

BLIP-2 (arXiv 2301.12597, section 3.1) reads an image with a BERT whose tokens are learnt queries and whose even layers
attend to the image's features. SEED (arXiv 2310.01218, section 3.1) lets a query see only the earlier ones, so that the
codes have the order of a sentence.

Shapes: B images, Q queries, P patch features of an image, D width, V width of the patch features.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-12
"""Of BERT's layer norms."""


class Attention(nn.Module):
    """BERT's attention: multi-head attention, projection, residual, layer norm.

    Queries are `[B, Q, D]`, keys and values come from `context` `[B, N, C]`, C being `context_width`.
    """

    def __init__(self, width: int, heads: int, context_width: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x), self.key(context), self.value(context))
        )  # [B, heads, Q or N, D / heads]
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        attended_norm: Tensor = self.norm(self.out(attended.transpose(1, 2).flatten(2)) + x)
        return attended_norm


class Layer(nn.Module):
    """Causal self-attention, in every other layer attention to the image, and the queries' feed-forward network."""

    def __init__(self, width: int, heads: int, hidden: int, context_width: int | None) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, width, causal=True)
        self.cross_attention = Attention(width, heads, context_width, causal=False) if context_width else None
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        x = self.self_attention(x, x)
        if self.cross_attention is not None:
            x = self.cross_attention(x, features)
        output: Tensor = self.norm(self.contract(functional.gelu(self.expand(x))) + x)
        return output


class CausalQFormer(nn.Module):
    """Queries `[B, Q, D]` and features `[B, P, V]` -> `[B, Q, D]`; output q depends on queries 0..q alone."""

    def __init__(self, width: int, layers: int, heads: int, hidden: int, features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.layers = nn.ModuleList(
            Layer(width, heads, hidden, features if index % 2 == 0 else None) for index in range(layers)
        )

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        x: Tensor = self.norm(queries)
        for layer in self.layers:
            x = layer(x, features)
        return x
