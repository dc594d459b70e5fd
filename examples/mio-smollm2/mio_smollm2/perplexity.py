"""Perplexity of English prose, by transformers: neither training nor scoring of mio takes part."""

from __future__ import annotations

import math
import pydoc_data.topics
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_LEAST = 240
"""Characters of a paragraph: shorter ones are headings and captions."""


def python_reference() -> list[str]:
    """Prose of the Python Language Reference, which lies in the standard library (`pydoc_data.topics`, PSF-2.0)."""
    return [text for name in sorted(pydoc_data.topics.topics) for text in prose(pydoc_data.topics.topics[name])]


def documentation(folder: Path) -> list[str]:
    """Prose of Markdown files. That of mio (Apache-2.0) is younger than SmolLM2, which cannot have read it."""
    return [text for path in sorted(folder.glob("*.md")) for text in prose(path.read_text())]


def prose(text: str) -> Iterator[str]:
    """Paragraphs of whole sentences, each as one line: no code, lists, tables or headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for paragraph in re.split(r"\n\s*\n", text):
        line = " ".join(paragraph.split())
        if len(line) >= _LEAST and paragraph[0].isalpha() and line.endswith("."):
            yield line


def perplexity(model: Any, tokenizer: Any, texts: Sequence[str], tokens: int, length: int = 256) -> float:
    """exp of the mean negative log-likelihood over `tokens` tokens of texts, which follow one another in rows of
    `length`; the first token of a row is given.

    Args:
        model: of transformers, in float32.
        tokenizer: that of the untouched model for every model that is compared, so that all score the same ids.
        texts: taken evenly from all of them where there are more than enough.
    """
    import torch

    ids = tokenizer("\n\n".join(texts), add_special_tokens=False, return_tensors="pt").input_ids[0]
    rows = ids[: len(ids) // length * length].view(-1, length)
    wanted = min(len(rows), max(1, tokens // length))
    rows = rows[torch.arange(wanted) * len(rows) // wanted]
    total = 0.0
    with torch.inference_mode():
        for row in rows.split(8):
            scores = model(input_ids=row).logits[:, :-1].float()
            total += torch.nn.functional.cross_entropy(
                scores.flatten(0, 1), row[:, 1:].flatten(), reduction="sum"
            ).item()
    return math.exp(total / (rows.numel() - len(rows)))


def ratios(before: Path, after: Path, texts: dict[str, Sequence[str]], tokens: int) -> dict[str, tuple[float, float]]:
    """Perplexities of each text, by the model in the folder `before` and by that in `after`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(before)
    found: dict[str, list[float]] = {name: [] for name in texts}
    for folder in (before, after):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for name, own in texts.items():
            found[name].append(perplexity(model, tokenizer, own, tokens))
    return {name: (first, second) for name, (first, second) in found.items()}
