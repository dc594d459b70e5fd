"""Tensors of Hugging Face's Llama, Yi, Mistral, Ministral, Qwen2, Qwen3 and Mixtral by name, both ways.

Free of transformers: tensors pass one by one, so checkpoints of any size stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mio.core.contract.backbone import TransformerConfig
from mio.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
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
    "ffn.router.weight": "block_sparse_moe.gate.weight",
}
_EXPERT_NAMES = {"gate.weight": "w1.weight", "down.weight": "w2.weight", "up.weight": "w3.weight"}

_FROM_NAMES = {theirs: ours for ours, theirs in _NAMES.items()}
_FROM_LAYER_NAMES = {theirs: ours for ours, theirs in _LAYER_NAMES.items()}
_FROM_EXPERT_NAMES = {theirs: ours for ours, theirs in _EXPERT_NAMES.items()}


def from_huggingface(tensors: Iterable[tuple[str, Tensor]], config: TransformerConfig) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a checkpoint under the names of `Transformer.state_dict`, one by one.

    A head that is tied to the embedding, and the constant rotary frequencies of old checkpoints, are left out.

    Raises:
        UserError: a tensor has no place in the model.
    """
    for theirs, tensor in tensors:
        if theirs.endswith("rotary_emb.inv_freq") or (theirs == "lm_head.weight" and config.tied_embeddings):
            continue
        yield _our_name(theirs), tensor


def to_huggingface(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Tensors of `Transformer.state_dict` under the names that checkpoints on the Hub have, one by one.

    Raises:
        UserError: a tensor is none of the transformer's.
    """
    for ours, tensor in tensors:
        yield _their_name(ours), tensor


def _our_name(theirs: str) -> str:
    if theirs in _FROM_NAMES:
        return _FROM_NAMES[theirs]
    if match := re.fullmatch(r"model\.layers\.(\d+)\.block_sparse_moe\.experts\.(\d+)\.(.+)", theirs):
        layer, expert, part = match.groups()
        if part in _FROM_EXPERT_NAMES:
            return f"layers.{layer}.ffn.experts.{expert}.{_FROM_EXPERT_NAMES[part]}"
    elif (match := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", theirs)) and match[2] in _FROM_LAYER_NAMES:
        return f"layers.{match[1]}.{_FROM_LAYER_NAMES[match[2]]}"
    raise UserError(f"the checkpoint's tensor `{theirs}` has no place in the transformer; is the family supported?")


def _their_name(ours: str) -> str:
    if ours in _NAMES:
        return _NAMES[ours]
    if match := re.fullmatch(r"layers\.(\d+)\.ffn\.experts\.(\d+)\.(.+)", ours):
        layer, expert, part = match.groups()
        if part in _EXPERT_NAMES:
            return f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{_EXPERT_NAMES[part]}"
    elif (match := re.fullmatch(r"layers\.(\d+)\.(.+)", ours)) and match[2] in _LAYER_NAMES:
        return f"model.layers.{match[1]}.{_LAYER_NAMES[match[2]]}"
    raise UserError(f"`{ours}` is not a tensor of the transformer alone, and has no name in the Hugging Face layout")
