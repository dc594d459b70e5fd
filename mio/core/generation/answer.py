"""Generated tokens to an answer: text and decoded media in order."""

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
    made: list[tuple[str, Any]] = []
    for part in parts:
        if isinstance(part, str):
            made.append((TEXT, part))
            continue
        content = codecs.decode(part.modality, part.of(codecs.modalities[part.modality].view("generate")))
        if part.modality != joined:
            made.append((part.modality, content))
        elif made and made[-1][0] == output:
            made[-1][1].append(content)
        else:
            made.append((output, [content]))
    if joined:
        made = [(name, codecs.decode(output, content) if name == output else content) for name, content in made]
    return Answer(tuple(made), tuple(part for part in parts if isinstance(part, Codes)))
