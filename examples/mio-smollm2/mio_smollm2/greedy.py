"""Greedy answers of an imported run beside those of transformers, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mio

PROMPTS = tuple(Path(__file__).with_name("prompts.txt").read_text().splitlines())
"""A hundred questions and requests in English, one a line."""
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What SmolLM2's template says where a conversation has no system message."""
_BATCH = 25


class Difference(NamedTuple):
    """A prompt whose answers are not the same tokens."""

    prompt: str
    ours: str
    theirs: str


def question(prompt: str) -> list[dict[str, str]]:
    """A conversation that asks `prompt` of SmolLM2."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]


def compare(run: Path, model: Path, prompts: Sequence[str] = PROMPTS, tokens: int = 32) -> list[Difference]:
    """Answers of at most `tokens` tokens, in float32, by the run and by transformers on the folder that it was imported
    from; returns where they differ."""
    messages = [question(prompt) for prompt in prompts]
    loaded = mio.load(run, "cpu", "fp32", rows=_BATCH)
    ours = [reply.tokens for reply in loaded.generate_many(messages, "text", max_tokens=tokens + 1)]
    theirs, tokenizer = _transformers(model, messages, tokens)
    return [
        Difference(prompt, tokenizer.decode(mine[:tokens]), tokenizer.decode(other))
        for prompt, mine, other in zip(prompts, ours, theirs, strict=True)
        if tuple(mine[:tokens]) != other
    ]


def _transformers(folder: Path, messages: Sequence[Any], tokens: int) -> tuple[list[tuple[int, ...]], Any]:
    """Ids of the answers without the token that ends them, and the tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found: list[tuple[int, ...]] = []
    for start in range(0, len(messages), _BATCH):
        inputs = tokenizer.apply_chat_template(
            messages[start : start + _BATCH],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        )
        written = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        for row in written.tolist():
            end = row.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row else len(row)
            found.append(tuple(row[:end]))
    return found, tokenizer
