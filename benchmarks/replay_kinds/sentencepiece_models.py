"""SentencePiece models of every kind and setting, trained here: ids and text as the package `sentencepiece` has them.

Texts hold other scripts, marks, spaces at odd places, symbols, and runs of letters. Unigrams add up logarithms in
single precision there and in double precision here: of two ways to cut a run that are equally likely either will do.
"""

from __future__ import annotations

import io
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sentencepiece
from replays import Variant
from tokenizers import Tokenizer

from mio.core.exchange.sentencepiece import read_sentencepiece
from mio.plugins.text.plain_text import text_only

LINES = (
    "the number seven comes before eight, and then nine",
    "Der schnelle braune Fuchs springt über den faulen Hund",
    "naïve café déjà vu œuvre ½ ①",
    "数字は七です、そして八",
    "число семь стоит перед восьмью",
    "x = [1, 22, 333]; f(x) -> y ==== ----",
    "ＦＵＬＬ width ａｂｃ １２３ ﬁne",
    "한국어 텍스트 <sep> [user] Tiếng Việt",
)
LETTERS = (
    "the numbr svn  ,.0123456789\t\n\r\u00a0\u3000\u200b\u2028üéñß\u0308\u0301\u0323\u0302ａＡ①½ﬁ数字がは\u3099゜한국"
    "ㅎㅏ👍🏽👩ﷺ\u0627ệâ"
)
SYMBOLS = ["<sep>", "[user]", "ab", "数字"]
SPECIALS = ("<unk>", "<s>", "</s>", "<pad>", "<|im_end|>")


def settings() -> Iterator[dict[str, Any]]:
    """Settings of the trainer."""
    rules = ("identity", "nmt_nfkc", "nfkc", "nmt_nfkc_cf")
    others: tuple[dict[str, Any], ...] = (
        {},
        {"user_defined_symbols": SYMBOLS},
        {"add_dummy_prefix": False},
        {"treat_whitespace_as_suffix": True},
        {"control_symbols": ["<|im_end|>"], "pad_id": 3},
        {"split_digits": True, "character_coverage": 0.98},
        {"split_by_whitespace": False},
    )
    for more, rule, kind in itertools.product(others, rules, ("bpe", "unigram", "char")):
        for trimmed, byte_fallback in ((True, True), (False, False)) if kind == "unigram" else ((False, True),):
            yield {
                "model_type": kind,
                "normalization_rule_name": rule,
                "remove_extra_whitespaces": trimmed or rule == "nfkc",
                "byte_fallback": byte_fallback,
                "vocab_size": 700 if kind == "bpe" else 420,
                **more,
            }
    yield {"model_type": "word", "vocab_size": 200}


def texts(chance: random.Random) -> list[str]:
    """A few dozen texts."""
    made = ["", " ", "  two  spaces ", "\r\n", "</s>", "a<s>b", "<unk>", "ab<sep>ab", " [user] ", "Ａ\u0301 ﬁ\u0301"]
    for _ in range(25):
        made.append("".join(chance.choices(LETTERS, k=chance.randint(1, 20))))
        made.append(" ".join(chance.choice(LINES).split()[chance.randint(0, 2) :]))
        made.append("".join(chance.choices([*"ab =-.o", *SYMBOLS], k=chance.randint(1, 25))))
        anything = [chance.randint(32, 0xD7FF) if chance.random() < 0.8 else chance.randint(0xE000, 0x1FFFF)]
        made.append("".join(map(chr, anything * chance.randint(1, 3))))
    return made


def variants(folder: Path, random: random.Random) -> Iterator[Variant]:
    corpus = [" ".join(random.sample(LINES, 3)) + f" {random.randint(0, 9999)}" for _ in range(200)]
    for number, given in enumerate(settings()):
        written = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus), model_writer=written, hard_vocab_limit=False, num_threads=1,
            minloglevel=2, **given,
        )  # fmt: skip
        path = folder / f"{number}.model"
        path.write_bytes(written.getvalue())
        yield _variant(given, path, texts(random))


def _variant(given: dict[str, Any], path: Path, lines: list[str]) -> Variant:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    unigrams = given["model_type"] == "unigram"

    def read() -> list[tuple[list[int], str]]:
        definition = read_sentencepiece(path).definition()
        tokenizer = Tokenizer.from_str(json.dumps(text_only(definition, SPECIALS)))
        tokenizer.encode_special_tokens = True
        encoded = [tokenizer.encode(line, add_special_tokens=False).ids for line in lines]
        return [(ids, tokenizer.decode(ids)) for ids in encoded]

    def right(answers: list[tuple[list[int], str]]) -> str:
        for line, (ids, text) in zip(lines, answers, strict=True):
            expected = processor.encode(line)
            likely = [sum(map(processor.get_score, each)) for each in (ids, expected)]
            same = processor.decode(ids) == processor.decode(expected)
            if ids != expected and not (unigrams and same and abs(likely[0] - likely[1]) < 1e-4):
                pieces = [[processor.id_to_piece(index) for index in each] for each in (ids, expected)]
                return f"{line!a} is {pieces[0]}, not {pieces[1]}"
            if processor.unk_id() not in ids and text != processor.decode(ids):
                return f"{line!a} comes back as {text!a}, not as {processor.decode(ids)!a}"
        return ""

    name = ", ".join(f"{key} {value}" for key, value in given.items())
    return Variant(name, read, right, readable=None if given["model_type"] == "word" else True)
