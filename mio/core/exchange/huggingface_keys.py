"""The keys of a `config.json` in the Hugging Face layout: what each family reads, what changes the mathematics, what
does not. The tests compare them with transformers' configuration classes."""

from __future__ import annotations

from typing import Any

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "Yi": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "ministral": "MinistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}

_EVERY: dict[str, Any] = {"num_key_value_heads": None, "head_dim": None, "rms_norm_eps": 1e-6, "rope_theta": 1e4}
_MISTRAL = {"num_key_value_heads": 8, "sliding_window": 4096, "max_position_embeddings": 131072}
_QWEN = {
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {**_EVERY, "max_position_embeddings": 2048, "attention_bias": False, "mlp_bias": False},
    "mistral": {**_EVERY, **_MISTRAL},
    "ministral": {**_EVERY, **_MISTRAL, "layer_types": None},
    "qwen2": {**_EVERY, **_QWEN},
    "qwen3": {**_EVERY, **_QWEN, "attention_bias": False, "head_dim": 128},
    "mixtral": {
        **_EVERY,
        **_MISTRAL,
        "sliding_window": None,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "num_local_experts": 8,
        "num_experts": None,
        "num_experts_per_tok": 2,
        "router_aux_loss_coef": 0.001,
    },
    "qwen3_moe": {
        **_EVERY,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "attention_bias": False,
        "num_local_experts": 128,
        "num_experts": None,
        "num_experts_per_tok": 8,
        "router_aux_loss_coef": 0.001,
        "moe_intermediate_size": 768,
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": None,
    },
}
"""Keys that each family reads, with the defaults of transformers' configuration classes."""

LARGEST = {
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 22,
    "moe_intermediate_size": 1 << 22,
    "num_hidden_layers": 4096,
    "num_attention_heads": 1 << 14,
    "num_key_value_heads": 1 << 14,
    "head_dim": 1 << 14,
    "vocab_size": 1 << 26,
    "max_position_embeddings": 1 << 40,
    "sliding_window": 1 << 40,
    "num_local_experts": 1 << 12,
    "num_experts_per_tok": 1 << 12,
}
"""Upper bounds of whole numbers: a typing error is refused before it allocates memory."""
REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
ACTIVATIONS = ("silu", "swish")

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "quantization_config": (None,),
    "compression_config": (None,),
    "per_layer_config": (None, {}),
    "is_causal": (None, True),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
    "use_bidirectional_attention": (None, False),
    "partial_rotary_factor": (None, 1, 1.0),
    "rotary_pct": (None, 1, 1.0),
    "clip_qkv": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "logit_scale": (None, 1, 1.0),
    "logits_scaling": (None, 1, 1.0),
    "embedding_multiplier": (None, 1, 1.0),
    "residual_multiplier": (None, 1, 1.0),
    "attention_multiplier": (None,),
    "scale_emb": (None, 1, 1.0),
    "scale_depth": (None,),
    "query_pre_attn_scalar": (None,),
    "no_rope_layers": (None, []),
    "use_qk_norm": (None, False),
    "qk_layernorm": (None, False),
    "parallel_attn": (None, False),
    "alibi": (None, False),
    "norm_type": (None, "rmsnorm", "rms_norm"),
    "position_embedding_type": (None, "rotary", "rope"),
    "n_shared_experts": (None, 0),
    "attention_sinks": (None, False),
}
"""Keys that change the mathematics, with their neutral values; any other value is refused."""

MIXTURES: dict[str, tuple[Any, ...]] = {
    "norm_topk_prob": (True,),
    "decoder_sparse_step": (1,),
    "mlp_only_layers": (None, []),
}
"""Keys of a mixture of experts, with the values that the transformer has, which are not their defaults."""

BIASES = {"attention_bias", "mlp_bias"}
"""Those of them that only some families read."""

HARMLESS = frozenset(
    [
        *("_attn_implementation_autoset", "_commit_hash", "_name_or_path", "architectures", "attention_dropout"),
        *("attn_implementation", "auto_map", "bad_words_ids", "begin_suppress_tokens", "bos_token_id"),
        *("chunk_size_feed_forward", "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty"),
        *("do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id"),
        *("exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id", "forced_eos_token_id"),
        *("hidden_act", "id2label", "initializer_range", "label2id", "length_penalty", "max_length"),
        *("max_position_embeddings", "max_sequence_length", "min_length", "model_type", "name_or_path"),
        *("no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_labels", "num_return_sequences"),
        *("original_max_position_embeddings", "output_attentions", "output_hidden_states", "output_router_logits"),
        *("output_scores", "pad_token_id", "prefix", "pretraining_tp", "problem_type", "pruned_heads"),
        *("remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate", "rope_parameters"),
        *("rope_scaling", "router_jitter_noise", "sep_token_id", "suppress_tokens", "task_specific_params"),
        *("temperature", "tf_legacy_loss", "tie_encoder_decoder", "tie_last_hidden_states", "tie_word_embeddings"),
        *("tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers.js_config"),
        *("transformers_version", "typical_p", "unk_token_id", "unsloth_fixed", "unsloth_version", "use_bfloat16"),
        *("use_cache", "vocab_size"),
    ]
)
"""Keys that do not change a trained model's logits, or that other code here reads."""
