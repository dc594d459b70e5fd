"""Checkpoints of Hugging Face's Llama, Yi, Mistral, Qwen2, Qwen3 and Mixtral: configuration and tensors, both ways.

Free of transformers: `config.json` is a dictionary, and tensors pass one by one, so checkpoints of any size stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mio.core.errors import UserError
from mio.core.transformer.config import RopeScaling, TransformerConfig

if TYPE_CHECKING:
    from torch import Tensor

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "Yi": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
}

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


def config_from_huggingface(data: Mapping[str, Any]) -> TransformerConfig:
    """The architecture that a `config.json` describes.

    Raises:
        UserError: the family, or something that the configuration switches on, is not supported; all problems at once.
    """
    family = data.get("model_type", "")
    if family not in FAMILIES:
        raise UserError(f"config.json: `model_type` {family!r} is not supported; choose one of {', '.join(FAMILIES)}")
    required = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    if missing := [name for name in required if name not in data]:
        raise UserError(f"config.json: {', '.join(f'`{name}`' for name in missing)} missing; is this a model's folder?")
    problems = []
    if data.get("hidden_act", "silu") != "silu":
        problems.append(f"`hidden_act` {data['hidden_act']!r} is not supported, only `silu`")
    problems += [f"`{name}` is not supported" for name in ("attention_bias", "mlp_bias") if data.get(name)]
    window = data.get("sliding_window") or 0
    if family in ("qwen2", "qwen3"):
        window = window if data.get("use_sliding_window") else 0
        if window and data.get("max_window_layers", 0) >= data["num_hidden_layers"]:
            window = 0
        elif window and data.get("max_window_layers", 0) > 0:
            problems.append("a sliding window in only some layers (`max_window_layers`) is not supported")
    # transformers 5 has it all in `rope_parameters`; before, theta stood beside `rope_scaling`.
    rope = data.get("rope_parameters") or {"rope_theta": data.get("rope_theta"), **(data.get("rope_scaling") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        problems.append(f"rotary scaling {kind!r} is not supported, only `linear` and `llama3`")
    if problems:
        raise UserError("config.json: " + "; ".join(problems))
    default = RopeScaling()
    sparse = family == "mixtral"
    config = TransformerConfig(
        width=data["hidden_size"],
        layers=data["num_hidden_layers"],
        heads=data["num_attention_heads"],
        kv_heads=data.get("num_key_value_heads") or 0,
        head_width=data.get("head_dim") or (128 if family == "qwen3" else 0),
        ffn_width=data["intermediate_size"],
        norm_eps=data.get("rms_norm_eps", 1e-6),
        rope_theta=float(rope.get("rope_theta") or (1e6 if sparse else 1e4)),
        rope_scaling=RopeScaling(
            kind="none" if kind == "default" else kind,
            factor=rope.get("factor", default.factor),
            low_freq_factor=rope.get("low_freq_factor", default.low_freq_factor),
            high_freq_factor=rope.get("high_freq_factor", default.high_freq_factor),
            original_context=rope.get("original_max_position_embeddings", default.original_context),
        ),
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        tied_embeddings=bool(data.get("tie_word_embeddings", False)),
        sliding_window=window,
        experts=data.get("num_local_experts", 8) if sparse else 0,
        experts_per_token=data.get("num_experts_per_tok", 2),
        router_aux_weight=data.get("router_aux_loss_coef", 0.001) if sparse else 0.0,
        init_std=data.get("initializer_range", 0.02),
    )
    config.check()
    return config


def config_to_huggingface(config: TransformerConfig, rows: int, context: int, dtype: str = "float32") -> dict[str, Any]:
    """The `config.json` of the family that has this architecture.

    Args:
        config: architecture.
        rows: rows of the embedding.
        context: longest sequence that the model was trained on.
        dtype: of the tensors beside it.

    Raises:
        UserError: no family combines these features.
    """
    features = {"mixtral": config.experts > 0, "qwen3": config.qk_norm, "qwen2": config.qkv_bias}
    present = [family for family, has in features.items() if has]
    if len(present) > 1:
        raise UserError(
            f"no Hugging Face family combines these features: the model needs {' and '.join(present)} at once"
        )
    family = present[0] if present else ("mistral" if config.sliding_window else "llama")
    scaling = config.rope_scaling
    rope: dict[str, Any] = {"rope_type": "default" if scaling.kind == "none" else scaling.kind}
    if scaling.kind != "none":
        rope["factor"] = scaling.factor
    if scaling.kind == "llama3":
        rope |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
        rope["original_max_position_embeddings"] = scaling.original_context
    data: dict[str, Any] = {
        "architectures": [FAMILIES[family]],
        "model_type": family,
        "vocab_size": rows,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads or config.heads,
        "head_dim": config.head_size,
        "intermediate_size": config.ffn_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "max_position_embeddings": context,
        # Both forms: readers older than transformers 5 know only the second.
        "rope_parameters": {"rope_theta": config.rope_theta, **rope},
        "rope_theta": config.rope_theta,
        "rope_scaling": None if scaling.kind == "none" else rope,
        "tie_word_embeddings": config.tied_embeddings,
        "initializer_range": config.init_std,
        "dtype": dtype,
    }
    if family in ("mistral", "mixtral"):
        data["sliding_window"] = config.sliding_window or None
    if family in ("qwen2", "qwen3"):
        data |= {"use_sliding_window": bool(config.sliding_window), "max_window_layers": 0}
        data["sliding_window"] = config.sliding_window or None
    if family == "mixtral":
        data |= {"num_local_experts": config.experts, "num_experts_per_tok": config.experts_per_token}
        data["router_aux_loss_coef"] = config.router_aux_weight
    return data


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
