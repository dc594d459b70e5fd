"""Repositories as they lie on the Hub, made up: models of every family with random weights, and tokenizer files."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers

from mio.plugins.text.bpe import BpeTokenizer

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES = {
    "llama": ("Llama", {}),
    "llama-tied-llama3": ("Llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "yi": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6}}),
    "mistral": ("Mistral", {"sliding_window": 17}),
    "qwen2": ("Qwen2", {"use_sliding_window": False}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen2-some-windows": ("Qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
    "qwen3-mixed": (
        "Qwen3",
        {
            "head_dim": 16,
            "num_hidden_layers": 4,
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        },
    ),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "sliding_window": 11}),
    "qwen3-moe": (
        "Qwen3Moe",
        {
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "norm_topk_prob": True,
        },
    ),
}
CORPUS = [
    f"the number {number} comes before {number + 1}, and then {number + 2}; say it: naïve Ünder 数字 Ａｂ½"
    for number in range(100)
]


def write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def make_model(family: str, rows: int):
    name, settings = FAMILIES[family]
    torch.manual_seed(7)
    sizes = {
        "vocab_size": rows,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
    }
    model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**sizes | settings))
    with torch.no_grad():  # norms and biases start out as ones and zeros, which would hide a wrong mapping
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def write_bpe(folder: Path, size: int = 300) -> int:
    """The files of a fast tokenizer that has ChatML. Returns its size."""
    tokenizer = BpeTokenizer(size)
    tokenizer.fit(CORPUS, seed=0)
    tokenizer.save_weights(folder)
    write_json(
        folder / "tokenizer_config.json",
        {"bos_token": "<|startoftext|>", "eos_token": {"content": "<|endoftext|>"}, "pad_token": "<unk>"},
    )
    return tokenizer.size


def train_sentencepiece(path: Path, specials: tuple[str, ...] = ("<s>", "</s>"), **options: Any) -> int:
    """A `tokenizer.model` of the Llama kind, made by the package itself; bos and eos are the first two of `specials`.
    Returns its size."""
    data, size = _trained(specials, json.dumps(options))
    path.write_bytes(data)
    return size


@cache
def _trained(specials: tuple[str, ...], options: str) -> tuple[bytes, int]:
    import sentencepiece

    written = io.BytesIO()
    settings = {
        "model_type": "bpe",
        "vocab_size": 450,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "bos_piece": specials[0],
        "eos_piece": specials[1],
        "control_symbols": list(specials[2:]),
        "hard_vocab_limit": False,
        "num_threads": 1,
        "minloglevel": 2,
        **json.loads(options),
    }
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=written, **settings)
    processor = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    return written.getvalue(), processor.get_piece_size()
