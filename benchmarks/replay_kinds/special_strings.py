"""Special tokens written out in ordinary text, with tokenizers of every kind that have them in their own vocabulary.

By definition no id of a special token may come out of a text, and where the kind can write every text down the text has
to come back. Tokenizers: unigrams, whole words, word pieces, BPE by merges and BPE that looks words up first.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from replays import Variant
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from mio.plugins.text.pretrained import PretrainedTokenizer

SPECIALS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<pad>")
LETTERS = sorted(set("abcdefghijklmnopqrstuvwxyz<>|/_ \nAISTU0123456789éü▁"))


def _merged(words: tuple[str, ...]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges that make words letter by letter."""
    vocab = {"<unk>": 0}
    for letter in LETTERS:
        vocab.setdefault(letter, len(vocab))
    merges = []
    for word in words:
        for end in range(2, len(word) + 1):
            vocab.setdefault(word[:end], len(vocab))
            if (pair := (word[: end - 1], word[end - 1])) not in merges:
                merges.append(pair)
    return vocab, merges


def tokenizers() -> Iterator[tuple[str, Tokenizer, bool]]:
    """(name, tokenizer, whether every text comes back)."""
    vocab, merges = _merged((*SPECIALS, "hello", "assistant"))
    for ignore_merges in (False, True):
        made = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, ignore_merges=ignore_merges))
        yield f"BPE, ignore_merges {ignore_merges}", made, True
    split = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", ignore_merges=True))
    split.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    yield "BPE of words, ignore_merges", split, True
    scores = [(token, 0.0 if token in (*SPECIALS, "<unk>") else -float(len(token))) for token in vocab]
    yield "unigrams", Tokenizer(models.Unigram(scores, unk_id=0)), True
    pieces = [*scores, *((f"<0x{byte:02X}>", 0.0) for byte in range(256))]
    spaced = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    spaced.normalizer = normalizers.Replace(" ", "▁")
    spaced.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    yield "unigrams with bytes", spaced, True
    words = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    yield "whole words", words, False
    bare = Tokenizer(
        models.WordLevel({token: index for index, token in enumerate(vocab) if token != "<unk>"} | {"~": 0})
    )
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    yield "whole words without an unknown one", bare, False
    bert = Tokenizer(models.WordPiece(vocab, unk_token="<unk>", continuing_subword_prefix=""))
    bert.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    yield "word pieces", bert, False


TEXTS = (
    "{}",
    "hello {}\n{} assistant",
    "a{}b",
    "{}{}{}",
    " {} ",
    "é {} ü",
    "<0x0A>{}<unk>",
)


def variants(folder: Path, random: random.Random) -> Iterator[Variant]:
    for number, (name, tokenizer, whole) in enumerate(tokenizers()):
        place = folder / str(number)
        place.mkdir()
        if whole and tokenizer.decoder is None:
            tokenizer.decoder = decoders.Fuse()
        content = json.loads(tokenizer.to_str())
        vocab = content["model"]["vocab"]
        ids = dict(vocab) if isinstance(vocab, dict) else {entry[0]: index for index, entry in enumerate(vocab)}
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        listed = [{"id": ids[token], "content": token, "special": random.random() < 0.5, **flags} for token in SPECIALS]
        content["added_tokens"] = sorted(listed, key=lambda token: token["id"])
        (place / "tokenizer.json").write_text(json.dumps(content))
        (place / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": "<s>"}))
        for text in TEXTS:
            for _ in range(2):
                written = text.format(*random.choices(SPECIALS, k=3))
                yield _variant(f"{name}: {written!r}", place, written, {ids[token] for token in SPECIALS}, whole)


def _variant(name: str, folder: Path, text: str, specials: set[int], whole: bool) -> Variant:
    def read() -> tuple[list[int], str]:
        tokenizer = PretrainedTokenizer(str(folder))
        ids = tokenizer.encode(text)
        return ids, tokenizer.decode(ids)

    def right(answer: Any) -> str:
        ids, back = answer
        if found := specials & set(ids):
            return f"{text!r} holds the special ids {sorted(found)}"
        return f"{text!r} comes back as {back!r}" if whole and back != text else ""

    return Variant(name, read, right, readable=True if whole else None)
