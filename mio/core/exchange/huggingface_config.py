"""`config.json` of Hugging Face's Llama, Yi, Mistral, Ministral, Qwen2, Qwen3, Mixtral and Qwen3-MoE, both
ways.

Free of transformers. What a configuration leaves out has the default of its family in transformers, which differ: a
Mistral without the key `sliding_window` has a window. A key that changes the mathematics is honoured or refused by
name; `unread_keys` lists the keys that the family does not read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from mio.core.contract.backbone import RopeScaling, TransformerConfig
from mio.core.errors import UserError, nearest
from mio.core.exchange.huggingface_keys import (
    ACTIVATIONS,
    BIASES,
    DEFAULTS,
    FAMILIES,
    HARMLESS,
    LARGEST,
    MIXTURES,
    NEUTRAL,
    REQUIRED,
)

_ROPE_KINDS = ("default", "linear", "llama3")
_ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
_WINDOWED, _FULL = "sliding_attention", "full_attention"
SPARSE = ("mixtral", "qwen3_moe")
_LAYER_TYPES = {_WINDOWED: True, _FULL: False, "attention": False}


def config_from_huggingface(data: Mapping[str, Any]) -> TransformerConfig:
    """The architecture that a `config.json` describes, with `tied_embeddings` as it says.

    Raises:
        UserError: the family or a feature is not supported, or a value is out of range; all problems at once.
    """
    family = family_of(data)
    if missing := [name for name in REQUIRED if name not in data]:
        raise UserError(f"config.json: {', '.join(f'`{name}`' for name in missing)} missing; is this a model's folder?")
    settings = DEFAULTS[family] | {name: data[name] for name in DEFAULTS[family] if name in data}
    if settings.get("use_sliding_window") is False:
        settings["sliding_window"] = None
    if settings.get("num_experts") is not None:  # transformers takes both names
        settings["num_local_experts"] = settings["num_experts"]
    problems = [*_wrong_numbers(data, settings), *_unsupported(data, settings)]
    if problems:
        raise UserError("config.json: " + "; ".join(problems))
    windowed, problems = _windowed_layers(settings, data["num_hidden_layers"])
    scaling, theta, more = _rope(data, settings)
    problems += more
    if problems:
        raise UserError("config.json: " + "; ".join(problems))
    sparse = family in SPARSE
    full = [layer for layer, has in enumerate(windowed) if not has]
    config = TransformerConfig(
        width=data["hidden_size"],
        layers=data["num_hidden_layers"],
        heads=data["num_attention_heads"],
        kv_heads=settings["num_key_value_heads"] or 0,
        head_width=settings["head_dim"] or 0,
        ffn_width=settings.get("moe_intermediate_size", data["intermediate_size"]),
        norm_eps=float(settings["rms_norm_eps"]),
        rope_theta=theta,
        rope_scaling=scaling,
        qkv_bias=family == "qwen2",
        qk_norm=family in ("qwen3", "qwen3_moe"),
        tied_embeddings=bool(data.get("tie_word_embeddings", False)),
        sliding_window=settings["sliding_window"] if any(windowed) else 0,
        full_attention_layers=full if any(windowed) else [],
        experts=settings["num_local_experts"] if sparse else 0,
        experts_per_token=settings["num_experts_per_tok"] if sparse else 2,
        router_aux_weight=float(settings["router_aux_loss_coef"] or 0) if sparse else 0.0,
        init_std=float(data.get("initializer_range") or 0.02),
    )
    try:
        config.check()
    except UserError as error:
        raise UserError(f"config.json: {str(error).removeprefix('transformer: ')}") from None
    return config


def family_of(data: Mapping[str, Any]) -> str:
    """The family whose rules a `config.json` follows in transformers. Raises `UserError` for another."""
    family = data.get("model_type", "")
    if not isinstance(family, str) or family not in FAMILIES:
        hint = nearest(family, FAMILIES) if isinstance(family, str) else ""
        raise UserError(
            f"config.json: `model_type` {family!r} is not supported{hint}; choose one of {', '.join(FAMILIES)}"
        )
    if family == "mistral" and "layer_types" in data:
        return "ministral"  # transformers' AutoConfig does so
    return {"Yi": "llama"}.get(family, family)


def unread_keys(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of a `config.json` that have a value and that the family does not read: transformers ignores them too."""
    family = family_of(data)
    read = DEFAULTS[family].keys() | set(REQUIRED)
    known = HARMLESS | read | (NEUTRAL.keys() - (BIASES - read))
    return tuple(key for key, value in data.items() if key not in known and value not in (None, False, [], {}, ""))


def _is_number(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _wrong_numbers(data: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Values that are not numbers, or are out of range."""
    problems = []
    values = {name: data[name] for name in (*REQUIRED, "vocab_size", "max_position_embeddings") if name in data}
    for name, value in ({**settings, **values}).items():
        limit = LARGEST.get(name)
        optional = name in ("num_key_value_heads", "head_dim", "sliding_window")
        if limit is None or (value is None and optional):
            continue
        if not _is_number(value, int):
            problems.append(f"`{name}` is {value!r:.40}, not a whole number")
        elif not 1 <= value <= limit:
            problems.append(f"`{name}` is {value}, not from 1 to {limit}")
    for name in ("rms_norm_eps", "router_aux_loss_coef", "initializer_range"):
        value = settings.get(name, data.get(name))
        if value is not None and not (_is_number(value, (int, float)) and math.isfinite(value) and value >= 0):
            problems.append(f"`{name}` is {value!r:.40}, not a number from 0 on")
    if settings["rms_norm_eps"] is None:
        problems.append("`rms_norm_eps` is None, not a number from 0 on")
    for name in ("tie_word_embeddings", "use_sliding_window"):
        if not isinstance(data.get(name, False), bool):
            problems.append(f"`{name}` is {data[name]!r:.40}, not true or false")
    window_layers = settings.get("max_window_layers", 0)
    if not _is_number(window_layers, int):
        problems.append(f"`max_window_layers` is {window_layers!r:.40}, not a whole number")
    return problems


def _unsupported(data: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Features of the configuration that the transformer lacks."""
    problems = []
    if data.get("hidden_act", "silu") not in ACTIVATIONS:
        problems.append(f"`hidden_act` {data['hidden_act']!r:.40} is not supported, only `silu`")
    mixture = {name: has for name, has in MIXTURES.items() if name in settings}
    for name, has in mixture.items():
        if not any(settings[name] == value and type(settings[name]) is type(value) for value in has):
            problems.append(f"`{name}` {settings[name]!r:.60} is not supported, only {json.dumps(has[-1])}")
    for name, neutral in NEUTRAL.items():
        if name in BIASES and name not in settings:
            continue
        if name in data and not any(data[name] == value and type(data[name]) is type(value) for value in neutral):
            problems.append(f"`{name}` {data[name]!r:.60} is not supported")
    return problems


def _windowed_layers(settings: Mapping[str, Any], layers: int) -> tuple[list[bool], list[str]]:
    """Which layers have the sliding window, and the problems."""
    window, types = settings.get("sliding_window"), settings.get("layer_types")
    if types is None:
        first = settings.get("max_window_layers", 0)
        return [window is not None and layer >= first for layer in range(layers)], []
    if not isinstance(types, list) or len(types) != layers:
        return [], [f"`layer_types` is not a list of `num_hidden_layers` = {layers} names"]
    if unknown := [kind for kind in types if not isinstance(kind, str) or kind not in _LAYER_TYPES]:
        return [], [f"`layer_types` {unknown[0]!r:.40} is not supported, only `{_FULL}` and `{_WINDOWED}`"]
    windowed = [_LAYER_TYPES[kind] for kind in types]
    if any(windowed) and window is None:
        switched = (
            "`use_sliding_window` is false" if settings.get("use_sliding_window") is False else "no `sliding_window`"
        )
        return [], [f"`layer_types` has layers of `{_WINDOWED}`, but {switched}"]
    return windowed, []


def _rope(data: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[RopeScaling, float, list[str]]:
    """Scaling and base of the rotary embedding, and the problems.

    transformers 5 has it all in `rope_parameters`; before, theta stood beside `rope_scaling`. Where both are there, it
    takes `rope_scaling`.
    """
    name = "rope_scaling" if data.get("rope_scaling") else "rope_parameters"
    rope = data.get(name) or {}
    if not isinstance(rope, dict):
        return RopeScaling(), 0.0, [f"`{name}` is {rope!r:.40}, not a mapping"]
    if any(isinstance(value, dict) for value in rope.values()):
        return RopeScaling(), 0.0, [f"`{name}` of each kind of layer are not supported"]
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in _ROPE_KINDS:
        return RopeScaling(), 0.0, [f"`{name}`: rotary scaling {kind!r:.40} is not supported, only linear and llama3"]
    values: dict[str, Any] = {"rope_theta": rope.get("rope_theta", settings["rope_theta"])}
    values |= {key: rope.get(key) for key in _ROPE_KEYS[kind]}
    if kind == "llama3":
        trained = rope.get("original_max_position_embeddings", settings["max_position_embeddings"])
        values["original_max_position_embeddings"] = data.get("original_max_position_embeddings", trained)
    problems = [
        f"`{name}.{key}` is {value!r:.40}, not a number above 0"
        for key, value in values.items()
        if not (_is_number(value, (int, float)) and math.isfinite(value) and value > 0)
    ]
    partial = rope.get("partial_rotary_factor", 1.0)
    if kind != "default" and partial not in (None, 1, 1.0):
        problems.append(f"`{name}.partial_rotary_factor` {partial!r:.40} is not supported")
    if problems:
        return RopeScaling(), 0.0, problems
    theta = float(values["rope_theta"])
    if kind == "default":
        return RopeScaling(), theta, []
    scaling = RopeScaling(kind=kind, factor=float(values["factor"]))
    if kind == "llama3":
        scaling.low_freq_factor = float(values["low_freq_factor"])
        scaling.high_freq_factor = float(values["high_freq_factor"])
        scaling.original_context = int(values["original_max_position_embeddings"])
        if scaling.high_freq_factor <= scaling.low_freq_factor:
            problems.append(f"`{name}.high_freq_factor` must be above `low_freq_factor`")
    return scaling, theta, problems


def config_to_huggingface(config: TransformerConfig, rows: int, context: int, dtype: str = "float32") -> dict[str, Any]:
    """The `config.json` of the family with this architecture.

    Args:
        config: architecture.
        rows: rows of the embedding.
        context: longest sequence that the model was trained on.
        dtype: of the tensors beside it.

    Raises:
        UserError: no family combines these features.
    """
    window, full = config.sliding_window, config.full_attention_layers
    if window and len(full) == config.layers:
        window, full = 0, []
    if config.head_bias:
        raise UserError("no Hugging Face family that mio exports to has a bias on its head (`model.head_bias`)")
    mixed = bool(full)
    sparse, normed = config.experts > 0, config.qk_norm
    features = {"qwen3_moe": sparse and normed, "mixtral": sparse and not normed, "qwen3": normed and not sparse,
                "qwen2": config.qkv_bias}  # fmt: skip
    present = [family for family, has in features.items() if has]
    if len(present) > 1 or (mixed and sparse):
        needed = [*present, "windows in some of the layers"] if len(present) == 1 else present
        raise UserError(
            f"no Hugging Face family combines these features: the model needs {' and '.join(needed)} at once"
        )
    family = present[0] if present else "ministral" if mixed else "mistral" if window else "llama"
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
    if family in ("mistral", "ministral", "mixtral"):
        data["sliding_window"] = window or None
    if family == "qwen3_moe":
        data |= {"use_sliding_window": bool(window), "sliding_window": window or None}
        data |= {"num_experts": config.experts, "moe_intermediate_size": config.ffn_size, "norm_topk_prob": True}
        data |= {"decoder_sparse_step": 1, "mlp_only_layers": []}
    if family in ("qwen2", "qwen3"):
        # readers that do not know `layer_types` have windows from some layer on
        first = next((layer for layer in range(config.layers) if layer not in full), 0)
        data |= {"use_sliding_window": bool(window), "sliding_window": window or None, "max_window_layers": first}
    if mixed or (window and family in ("qwen2", "qwen3")):
        data["layer_types"] = [_FULL if layer in full else _WINDOWED for layer in range(config.layers)]
    if family == "mixtral":
        data["num_local_experts"] = config.experts
    if sparse:
        data["num_experts_per_tok"] = config.experts_per_token
        data["router_aux_loss_coef"] = config.router_aux_weight
    return data
