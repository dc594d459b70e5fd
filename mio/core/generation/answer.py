"""From generated tokens to an answer: text and decoded media in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mio.core.contract.values import TEXT, Answer, Codes
from mio.core.tokens.codecs import Codecs


def decode_answer(codecs: Codecs, parts: Sequence[str | Codes], output: str = "") -> Answer:
    """Decodes the spans among `parts`.

    Where `output` is a modality made of another's spans, neighbouring spans of that other one become one item of it.
    """
    joined = codecs.modalities[output].parts if output else ""
    items: list[tuple[str, Any]] = []
    for part in parts:
        if isinstance(part, str):
            items.append((TEXT, part))
            continue
        content = codecs.decode(part.modality, part.of(codecs.modalities[part.modality].view("generate")))
        if part.modality != joined:
            items.append((part.modality, content))
        elif items and items[-1][0] == output:
            items[-1][1].append(content)
        else:
            items.append((output, [content]))
    if joined:
        items = [(name, codecs.decode(output, content) if name == output else content) for name, content in items]
    return Answer(tuple(items), tuple(part for part in parts if isinstance(part, Codes)))
