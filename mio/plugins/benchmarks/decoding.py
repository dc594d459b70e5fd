"""How answers are decoded: as MIO's evaluation does (arXiv 2409.17692 v4, table 11)."""

from __future__ import annotations

from mio import Decoding

_MEDIA_TOKENS = 1 << 14
"""Of an answer with media: as long as the trained context allows."""


def text(tokens: int) -> Decoding:
    """The likeliest of five beams."""
    return Decoding(temperature=0.0, beams=5, max_tokens=tokens)


def picture(modality: str) -> Decoding:
    return Decoding(by={modality: {"temperature": 1.0, "top_p": 0.7}}, most=1, max_tokens=_MEDIA_TOKENS)


def speech(modality: str) -> Decoding:
    said = {"temperature": 1.0, "top_p": 0.7, "repetition_penalty": 1.15}
    return Decoding(by={modality: said}, most=1, max_tokens=_MEDIA_TOKENS)
