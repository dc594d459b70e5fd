"""Published text models as fields of `TransformerConfig`, from the `config.json` of each release on Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LLAMA_2_7B: Mapping[str, Any] = {
    "width": 4096,
    "layers": 32,
    "heads": 32,
    "kv_heads": 32,
    "ffn_width": 11008,
    "norm_eps": 1e-5,
    "rope_theta": 10000.0,
}

_MISTRAL_7B: Mapping[str, Any] = {**_LLAMA_2_7B, "kv_heads": 8, "ffn_width": 14336, "sliding_window": 4096}

BACKBONES: Mapping[str, Mapping[str, Any]] = {
    "llama-2-7b": _LLAMA_2_7B,  # meta-llama/Llama-2-7b-hf, backbone of AnyGPT
    "yi-6b": {**_LLAMA_2_7B, "kv_heads": 4, "rope_theta": 5_000_000.0},  # 01-ai/Yi-6B, backbone of MIO
    "mistral-7b": _MISTRAL_7B,  # mistralai/Mistral-7B-v0.1
    "mixtral-8x7b": {  # mistralai/Mixtral-8x7B-v0.1, backbone of VITA
        **_MISTRAL_7B,
        "sliding_window": 0,
        "rope_theta": 1_000_000.0,
        "experts": 8,
        "experts_per_token": 2,
        "router_aux_weight": 0.02,
    },
    "qwen2.5-7b": {  # Qwen/Qwen2.5-7B
        "width": 3584,
        "layers": 28,
        "heads": 28,
        "kv_heads": 4,
        "ffn_width": 18944,
        "norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "qkv_bias": True,
    },
    "qwen3-8b": {  # Qwen/Qwen3-8B-Base
        "width": 4096,
        "layers": 36,
        "heads": 32,
        "kv_heads": 8,
        "head_width": 128,
        "ffn_width": 12288,
        "norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "qk_norm": True,
    },
}
"""Without their vocabularies: the recipe's own sets the rows of embedding and head."""
