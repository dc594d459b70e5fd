"""Configuration of the transformer. Free of torch, so that recipes can be checked without loading it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

from mio.core.contract.checker import Checker
from mio.core.contract.ranges import number, one_of
from mio.core.errors import UserError

ROPE_SCALINGS = ("none", "linear", "llama3")
MOST_PARAMETERS = 10**13
"""Of all layers together."""

FIXED = frozenset(
    {"width", "layers", "heads", "kv_heads", "head_width", "ffn_width", "experts"}
    | {"qkv_bias", "qk_norm", "tied_embeddings", "head_bias"}
)
"""Fields of `TransformerConfig` that say which weights there are, of which shapes and how they are divided into heads:
with trained weights they have the values that these were trained with."""
LEARNING = frozenset({"router_aux_weight", "init_std"})
"""Fields that a trained model computes the same without."""


@dataclass
class RopeScaling:
    """Scaling of the rotary embedding for longer contexts."""

    kind: str = one_of("none", *ROPE_SCALINGS)
    """`none`, `linear`, or `llama3`."""
    factor: float = number(1.0, 1e-3, 1e6)
    """`linear` and `llama3`: how many times longer the context becomes."""
    low_freq_factor: float = number(1.0, 1e-3, 1e6)
    """`llama3`: below this the full factor applies."""
    high_freq_factor: float = number(4.0, 1e-3, 1e6)
    """`llama3`: above this nothing is scaled."""
    original_context: int = number(8192, 1, 2**31)
    """`llama3`: context the backbone was trained with."""


@dataclass
class TransformerConfig:
    """Decoder of the Llama family (Llama, Yi, Mistral, Ministral, Qwen2, Qwen3, Mixtral)."""

    width: int = number(128, 1, 2**20)
    """Size D of the residual stream."""
    layers: int = number(4, 1, 10_000)
    heads: int = number(4, 1, 2**16)
    """Query heads H."""
    kv_heads: int = number(0, 0, 2**16)
    """Key and value heads of grouped-query attention; 0 means as many as `heads`."""
    head_width: int = number(0, 0, 2**16)
    """Size of one head; 0 means `width / heads`."""
    ffn_width: int = number(0, 0, 2**24)
    """Hidden size of the SwiGLU; 0 means 8/3 of `width`, rounded up to a multiple of 32."""
    norm_eps: float = number(1e-5, 1e-12, 1)
    rope_theta: float = number(10000.0, 1, 1e15)
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    qkv_bias: bool = False
    """Bias on the query, key and value projections (Qwen2)."""
    qk_norm: bool = False
    """RMSNorm on each head's query and key before the rotation (Qwen3)."""
    tied_embeddings: bool = False
    """Output head shares the embedding's matrix."""
    head_bias: bool = False
    """Bias on the output head, one number per vocabulary row (Phi)."""
    sliding_window: int = number(0, 0, 2**31)
    """Positions that a query sees back, itself included; 0 means all (Mistral)."""
    full_attention_layers: list[int] = field(default_factory=list)
    """Layers, counted from 0, that see all positions in spite of `sliding_window` (Qwen2, Qwen3, Ministral)."""
    experts: int = number(0, 0, 2**16)
    """Experts of the sparse mixture; 0 means a dense SwiGLU (Mixtral)."""
    experts_per_token: int = number(2, 0, 2**16)
    router_aux_weight: float = number(0.0, 0, 1e6)
    """Weight of the load-balancing loss; 0 leaves it out."""
    init_std: float = number(0.02, 0, 10)

    @property
    def head_size(self) -> int:
        """Size of one head, resolved."""
        return self.head_width or self.width // self.heads

    @property
    def ffn_size(self) -> int:
        """Hidden size of the SwiGLU, resolved."""
        return self.ffn_width or -(-8 * self.width // 3 // 32) * 32

    @property
    def explicit(self) -> TransformerConfig:
        """The same with the sizes that follow from others written out."""
        return replace(self, head_width=self.head_size, ffn_width=self.ffn_size, kv_heads=self.kv_heads or self.heads)

    def window(self, layer: int) -> int:
        """Positions that a query of this layer sees back, itself included; 0 means all."""
        return 0 if layer in self.full_attention_layers else self.sliding_window

    @property
    def windows(self) -> tuple[int, ...]:
        """`window` of every layer."""
        return tuple(self.window(layer) for layer in range(self.layers))

    @property
    def parameters(self) -> int:
        """Numbers in all layers, without embedding and head."""
        kv_heads = self.kv_heads or self.heads
        attention = 2 * self.width * self.head_size * (self.heads + kv_heads)
        return self.layers * (attention + 3 * self.width * self.ffn_size * max(1, self.experts))

    def problems(self) -> Iterator[str]:
        """How fields contradict each other, one sentence each; every field by itself is within its range."""
        if not self.head_width and self.width % self.heads:
            yield f"`model.width` {self.width} is no multiple of `model.heads` {self.heads}; set `model.head_width`"
        elif self.head_size < 2 or self.head_size % 2:
            yield "`model.head_width` (width / heads) must be even: the rotary embedding turns pairs"
        if self.kv_heads and self.heads % self.kv_heads:
            yield f"`model.heads` {self.heads} must be a multiple of `model.kv_heads` {self.kv_heads}"
        if self.experts and not 1 <= self.experts_per_token <= self.experts:
            yield f"`model.experts_per_token` {self.experts_per_token} must be from 1 to `model.experts` {self.experts}"
        if self.head_bias and self.tied_embeddings:
            yield "`model.head_bias` needs a head of its own: set `model.tied_embeddings` to false, or leave it out"
        if beyond := [layer for layer in self.full_attention_layers if not 0 <= layer < self.layers]:
            yield f"`model.full_attention_layers` names layer {beyond[0]}; there are 0 to {self.layers - 1}"
        if self.full_attention_layers and not self.sliding_window:
            yield "`model.full_attention_layers` are exceptions from `model.sliding_window`, which is not set"
        scaling = self.rope_scaling
        if scaling.kind == "llama3" and scaling.high_freq_factor <= scaling.low_freq_factor:
            yield (
                f"`model.rope_scaling.high_freq_factor` {scaling.high_freq_factor:g} must be above `low_freq_factor` "
                f"{scaling.low_freq_factor:g}"
            )
        if self.parameters > MOST_PARAMETERS:
            yield (
                f"`model` has {self.parameters:.2g} parameters in its layers, {self.parameters * 4e-12:,.0f} TB in "
                f"float32; at most {MOST_PARAMETERS:.0e} are allowed: lower `width`, `layers`, `ffn_width` or `experts`"
            )

    def check(self) -> None:
        """Raises:
        UserError: fields contradict each other or are out of range; the message lists all that are.
        """
        checker = Checker()
        checker.check(TransformerConfig, asdict(self), ("model",))
        problems = [text for _, text in checker.problems] or list(self.problems())
        if problems:
            raise UserError("transformer: " + "; ".join(problems))
