"""Names of the tensors of Hugging Face's Llama, Yi, Mistral, Ministral, Qwen2, Qwen3, Mixtral and Qwen3-MoE."""

from __future__ import annotations

import re

from mio.core.contract.backbone import TransformerConfig
from mio.core.errors import UserError

EMBEDDING, HEAD, HEAD_BIAS = "model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"

_NAMES = {
    "embedding.weight": EMBEDDING,
    "norm.weight": "model.norm.weight",
    "head.weight": HEAD,
    "head.bias": HEAD_BIAS,
}
_LAYER_NAMES = {
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.query.bias": "self_attn.q_proj.bias",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.key.bias": "self_attn.k_proj.bias",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.value.bias": "self_attn.v_proj.bias",
    "attention.output.weight": "self_attn.o_proj.weight",
    "attention.query_norm.weight": "self_attn.q_norm.weight",
    "attention.key_norm.weight": "self_attn.k_norm.weight",
    "ffn.gate.weight": "mlp.gate_proj.weight",
    "ffn.up.weight": "mlp.up_proj.weight",
    "ffn.down.weight": "mlp.down_proj.weight",
}
_ROUTER = "ffn.router.weight"
_EXPERTS = "block_sparse_moe", {"gate.weight": "w1.weight", "down.weight": "w2.weight", "up.weight": "w3.weight"}
_NORMED_EXPERTS = "mlp", {f"{part}.weight": f"{part}_proj.weight" for part in ("gate", "down", "up")}
"""Of Qwen3-MoE, whose queries and keys have norms."""

_LAYER = re.compile(r"layers\.(\d+)\.(?:ffn\.experts\.(\d+)\.)?(.+)")


def huggingface_name(name: str, normed: bool = False) -> str:
    """The name in the Hugging Face layout of a tensor of `Transformer.state_dict`.

    Args:
        normed: whether queries and keys have norms (`qk_norm`): experts are then named as Qwen3-MoE's.

    Raises:
        UserError: it is not a tensor of the transformer.
    """
    if name in _NAMES:
        return _NAMES[name]
    if match := _LAYER.fullmatch(name):
        layer, expert, part = match.groups()
        mixture, expert_names = _NORMED_EXPERTS if normed else _EXPERTS
        if expert is None and part == _ROUTER:
            return f"model.layers.{layer}.{mixture}.gate.weight"
        if expert is None and part in _LAYER_NAMES:
            return f"model.layers.{layer}.{_LAYER_NAMES[part]}"
        if expert is not None and part in expert_names:
            return f"model.layers.{layer}.{mixture}.experts.{expert}.{expert_names[part]}"
    raise UserError(f"`{name}` is not a tensor of the transformer alone, and has no name in the Hugging Face layout")


def is_redundant(huggingface: str, config: TransformerConfig) -> bool:
    """Whether a stored tensor says nothing: a head tied to the embedding, or the rotary frequencies of old models."""
    return huggingface.endswith("rotary_emb.inv_freq") or (huggingface == HEAD and config.tied_embeddings)
