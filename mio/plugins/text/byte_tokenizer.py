"""Bytes of UTF-8 as tokens: nothing to train, nothing to download."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

SPECIALS = {
    "pad": "<unk>",
    "bos": "<|startoftext|>",
    "eos": "<|endoftext|>",
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
}
"""Token strings of the special tokens, those of Yi."""


class ByteTokenizer:
    """`mio.TextTokenizer`: id = byte, then the special tokens."""

    fingerprint = "bytes-1"

    def __init__(self) -> None:
        self.specials = {name: 256 + index for index, name in enumerate(SPECIALS)}
        self.size = 256 + len(SPECIALS)
        self._tokens = [f"<0x{byte:02X}>" for byte in range(256)] + list(SPECIALS.values())

    def encode(self, text: str) -> list[int]:
        """One id per byte."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the bytes; what is not UTF-8 becomes U+FFFD, special tokens are left out."""
        return bytes(index for index in ids if index < 256).decode(errors="replace")

    def token(self, index: int) -> str:
        """`<0x41>` for a byte."""
        return self._tokens[index]

    def definition(self) -> dict[str, Any]:
        """A BPE without merges: every character falls back to its bytes."""
        from tokenizers import Tokenizer, decoders, models

        vocab = {token: index for index, token in enumerate(self._tokens[:256])}
        tokenizer = Tokenizer(models.BPE(vocab, [], byte_fallback=True))
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        tokenizer.add_special_tokens(self._tokens[256:])
        content: dict[str, Any] = json.loads(tokenizer.to_str())
        return content
