"""Byte-level byte pair encoding, trained on the recipe's own text.

The method of GPT-2 (Radford et al. 2019) on top of the `tokenizers` library: every byte is a token, so any text comes
back unchanged. Digits stay single tokens, as in Llama and Yi, so that numbers read alike wherever they are cut.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mio import UserError
from mio.plugins.text.byte_tokenizer import SPECIALS

if TYPE_CHECKING:
    from tokenizers import Tokenizer as HuggingFaceTokenizer

FILE = "tokenizer.json"


class BpeTokenizer:
    """`mio.TextTokenizer` that is trainable. `size` tokens at most: a small corpus may not have that many pairs."""

    def __init__(self, size: int) -> None:
        least = 256 + len(SPECIALS)
        if size < least:
            raise UserError(f"plugins.text.size: a `bpe` has {least} tokens (bytes and specials) at least, not {size}")
        self.specials: Mapping[str, int] = {name: index for index, name in enumerate(SPECIALS)}
        self._requested = size
        self._tokenizer: HuggingFaceTokenizer | None = None
        self._fingerprint = ""

    @property
    def _trained(self) -> HuggingFaceTokenizer:
        if self._tokenizer is None:
            raise UserError("the text tokenizer is not trained yet; `mio fit` trains it before the first stage")
        return self._tokenizer

    @property
    def size(self) -> int:
        """Number of tokens; the requested one before training."""
        return self._requested if self._tokenizer is None else self._tokenizer.get_vocab_size()

    @property
    def fingerprint(self) -> str:
        """Hash of vocabulary and merges. Raises UserError before training."""
        return self._trained and self._fingerprint

    def fit(self, items: Sequence[str], seed: int) -> Mapping[str, float]:
        """Learns the merges. Nothing about it is random, so `seed` has no effect."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        del seed
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self._requested,
            special_tokens=list(SPECIALS.values()),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(items, trainer)
        self._adopt(tokenizer)
        tokens = sum(len(self.encode(text)) for text in items)
        return {"size": float(self.size), "characters_per_token": sum(map(len, items)) / max(tokens, 1)}

    def save_weights(self, folder: Path) -> None:
        """Writes `tokenizer.json` in the Hugging Face format."""
        folder.mkdir(parents=True, exist_ok=True)
        self._trained.save(str(folder / FILE))

    def load(self, folder: Path) -> None:
        """Reads what `save_weights` wrote. Raises UserError when it is not there."""
        from tokenizers import Tokenizer

        path = folder / FILE
        if not path.is_file():
            raise UserError(f"{path}: the trained text tokenizer is missing; restore it, or train a new run")
        self._adopt(Tokenizer.from_file(str(path)))

    def _adopt(self, tokenizer: HuggingFaceTokenizer) -> None:
        tokenizer.encode_special_tokens = True  # the string of a special token inside a text is plain text
        model = json.loads(tokenizer.to_str())["model"]
        meaning = json.dumps([sorted(model["vocab"].items()), model["merges"]])
        self._fingerprint = hashlib.sha256(meaning.encode()).hexdigest()
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Ids of a text. Raises UserError before training, as everything below does."""
        return self._trained.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; what is not UTF-8 becomes U+FFFD, special tokens are left out."""
        return self._trained.decode(list(ids), skip_special_tokens=True)

    def definition(self) -> dict[str, Any]:
        """Content of its `tokenizer.json`."""
        content: dict[str, Any] = json.loads(self._trained.to_str())
        return content

    def token(self, index: int) -> str:
        """Token string, in the printable form of GPT-2's bytes."""
        return str(self._trained.id_to_token(index))
