"""Repositories as they lie on the Hub, made up: models of every family with random weights, and tokenizer files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

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
    "mixtral": ("Mixtral", {"num_local_experts": 4}),
}
CORPUS = [f"the number {number} comes before {number + 1}, and then {number + 2}\nsay it" for number in range(100)]


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
    model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**sizes, **settings))
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


NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def llama_pieces(specials: tuple[str, ...] = ("<s>", "</s>")) -> list[tuple[str, float, int]]:
    """(string, score, kind) of a SentencePiece model with byte fallback; longer pieces by how often they occur."""
    text = "▁" + "▁".join(" ".join(CORPUS).split())
    counts: dict[str, int] = {}
    for size in (2, 3, 4, 5):
        for start in range(len(text) - size):
            piece = text[start : start + size]
            if "▁" not in piece[1:]:
                counts[piece] = counts.get(piece, 0) + 1
    longer = sorted(counts, key=lambda piece: (-counts[piece], piece))[:150]
    pieces = [("<unk>", 0.0, UNKNOWN), *((name, 0.0, CONTROL) for name in specials)]
    pieces += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    pieces += [(piece, -float(rank), NORMAL) for rank, piece in enumerate(longer)]
    return pieces + [(letter, -float(1000 + rank), NORMAL) for rank, letter in enumerate(sorted(set(text)))]


def write_sentencepiece(path: Path, pieces, kind: int = 2) -> None:
    """The wire format of `sentencepiece_model.proto`: trainer_spec.model_type, normalizer_spec.add_dummy_prefix."""

    def varint(value: int) -> bytes:
        out = b""
        while value > 0x7F:
            out += bytes([value & 0x7F | 0x80])
            value >>= 7
        return out + bytes([value])

    def message(field: int, content: bytes) -> bytes:
        return varint(field << 3 | 2) + varint(len(content)) + content

    data = b""
    for string, score, piece_kind in pieces:
        inner = message(1, string.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score)
        data += message(1, inner + varint(3 << 3) + varint(piece_kind))
    data += message(2, varint(3 << 3) + varint(kind) + varint(4 << 3) + varint(len(pieces)))
    data += message(3, message(1, b"identity") + varint(3 << 3) + varint(1))
    path.write_bytes(data)
