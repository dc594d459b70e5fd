"""Configuration of the transformer. Free of torch, so that recipes can be checked without loading it."""

from __future__ import annotations

from dataclasses import dataclass, field

from mio.core.errors import UserError

ROPE_SCALINGS = ("none", "linear", "llama3")


@dataclass
class RopeScaling:
    """Scaling of the rotary embedding for longer contexts."""

    kind: str = "none"
    """`none`, `linear`, or `llama3`."""
    factor: float = 1.0
    """Both kinds: how much longer the context is made."""
    low_freq_factor: float = 1.0
    """`llama3`: below this the full factor applies."""
    high_freq_factor: float = 4.0
    """`llama3`: above this nothing is scaled."""
    original_context: int = 8192
    """`llama3`: context the backbone was trained with."""


@dataclass
class TransformerConfig:
    """Decoder of the Llama family (Llama, Yi, Mistral, Ministral, Qwen2, Qwen3, Mixtral)."""

    width: int = 128
    """Size D of the residual stream."""
    layers: int = 4
    heads: int = 4
    """Query heads H."""
    kv_heads: int = 0
    """Key and value heads of grouped-query attention; 0 means as many as `heads`."""
    head_width: int = 0
    """Size of one head; 0 means `width / heads`."""
    ffn_width: int = 0
    """Hidden size of the SwiGLU; 0 means 8/3 of `width`, rounded up to a multiple of 32."""
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    qkv_bias: bool = False
    """Bias on the query, key and value projections (Qwen2)."""
    qk_norm: bool = False
    """RMSNorm on each head's query and key before the rotation (Qwen3)."""
    tied_embeddings: bool = False
    """Output head shares the embedding's matrix."""
    sliding_window: int = 0
    """Positions that a query sees back, itself included; 0 means all (Mistral)."""
    full_attention_layers: list[int] = field(default_factory=list)
    """Layers, counted from 0, that see all positions in spite of `sliding_window` (Qwen2, Qwen3, Ministral)."""
    experts: int = 0
    """Experts of the sparse mixture; 0 means a dense SwiGLU (Mixtral)."""
    experts_per_token: int = 2
    router_aux_weight: float = 0.0
    """Weight of the load-balancing loss; 0 leaves it out."""
    init_std: float = 0.02

    @property
    def head_size(self) -> int:
        """Size of one head, resolved."""
        return self.head_width or self.width // self.heads

    @property
    def ffn_size(self) -> int:
        """Hidden size of the SwiGLU, resolved."""
        return self.ffn_width or -(-8 * self.width // 3 // 32) * 32

    def window(self, layer: int) -> int:
        """Positions that a query of this layer sees back, itself included; 0 means all."""
        return 0 if layer in self.full_attention_layers else self.sliding_window

    @property
    def windows(self) -> tuple[int, ...]:
        """`window` of every layer."""
        return tuple(self.window(layer) for layer in range(self.layers))

    def check(self) -> None:
        """Raises:
        UserError: fields contradict each other; the message lists all that do.
        """
        problems = []
        if not self.head_width and self.width % self.heads:
            problems.append(f"`width` {self.width} is no multiple of `heads` {self.heads}; set `head_width`")
        if self.head_size % 2:
            problems.append(f"head width {self.head_size} is odd; rotary positions need an even one")
        if self.heads % (self.kv_heads or self.heads):
            problems.append(f"`heads` {self.heads} is no multiple of `kv_heads` {self.kv_heads}")
        if self.experts and not 1 <= self.experts_per_token <= self.experts:
            problems.append(f"`experts_per_token` {self.experts_per_token} is not between 1 and {self.experts}")
        if beyond := [layer for layer in self.full_attention_layers if not 0 <= layer < self.layers]:
            problems.append(f"`full_attention_layers` names layer {beyond[0]}; there are 0 to {self.layers - 1}")
        if self.full_attention_layers and not self.sliding_window:
            problems.append("`full_attention_layers` are exceptions from `sliding_window`, which is not set")
        if self.rope_scaling.kind not in ROPE_SCALINGS:
            kinds = ", ".join(f"`{kind}`" for kind in ROPE_SCALINGS)
            problems.append(f"unknown `rope_scaling.kind` {self.rope_scaling.kind!r}; choose one of {kinds}")
        if problems:
            raise UserError("transformer: " + "; ".join(problems))
