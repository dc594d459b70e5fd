"""Configuration of the transformer. Free of torch, so that recipes can be checked without loading it."""

from __future__ import annotations

from dataclasses import dataclass, field


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
    """Decoder of the Llama family (Llama, Yi, Mistral, Qwen2, Qwen3, Mixtral)."""

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
    experts: int = 0
    """Experts of the sparse mixture; 0 means a dense SwiGLU (Mixtral)."""
    experts_per_token: int = 2
    router_aux_weight: float = 0.0
    """Weight of the load-balancing loss; 0 leaves it out."""
    init_std: float = 0.02
