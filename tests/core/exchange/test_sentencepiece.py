"""SentencePiece models against the algorithm itself, written out."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repositories import CONTROL, NORMAL, UNKNOWN, USER_DEFINED, llama_pieces, write_sentencepiece
from tokenizers import Tokenizer

from mio.core.errors import DataError, UserError
from mio.core.exchange.sentencepiece import read_sentencepiece

PIECES = llama_pieces()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_sentencepiece(folder / "tokenizer.model", PIECES)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.from_str(json.dumps(read_sentencepiece(folder / "tokenizer.model").definition()))


def segment(text: str) -> list[str]:
    """Joins, again and again, the neighbours that make the piece of the highest score, leftmost first; characters
    without a piece become bytes (sentencepiece, `bpe_model.cc`)."""
    scores = {string: score for string, score, kind in PIECES if kind == NORMAL}
    symbols = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [(scores[a + b], -i) for i, (a, b) in enumerate(itertools.pairwise(symbols)) if a + b in scores]
        if not pairs:
            break
        at = -max(pairs)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    pieces = []
    for symbol in symbols:
        pieces += [symbol] if symbol in scores else [f"<0x{byte:02X}>" for byte in symbol.encode()]
    return pieces


def test_the_file_is_read_as_it_was_written(folder):
    model = read_sentencepiece(folder / "tokenizer.model")
    assert [tuple(piece) for piece in model.pieces] == PIECES
    assert model.dummy_prefix
    assert model.charsmap == b""


def test_corpus(tokenizer):
    for text in ("the number 17 comes before 18", "say it, ünd 数字 then", "  two  spaces ", "a\nb"):
        assert tokenizer.encode(text, add_special_tokens=False).tokens == segment(text)


@given(st.text(st.sampled_from("the number comes before 0123456789,\nüé数"), min_size=1, max_size=40))
def test_any_text(tokenizer, text):
    encoded = tokenizer.encode(text, add_special_tokens=False)
    assert encoded.tokens == segment(text)
    assert [PIECES[index][0] for index in encoded.ids] == encoded.tokens
    assert tokenizer.decode(encoded.ids) == text


def test_control_and_user_defined_pieces_are_whole_tokens(tmp_path):
    pieces = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("<fim>", 0.0, USER_DEFINED), *PIECES[3:]]
    write_sentencepiece(tmp_path / "tokenizer.model", pieces)
    definition = read_sentencepiece(tmp_path / "tokenizer.model").definition()
    assert [(t["id"], t["content"], t["special"]) for t in definition["added_tokens"]] == [
        (0, "<unk>", True),
        (1, "<s>", True),
        (2, "<fim>", False),
    ]
    encoded = Tokenizer.from_str(json.dumps(definition)).encode("the<fim>the", add_special_tokens=False)
    assert encoded.ids[encoded.tokens.index("<fim>")] == 2


def test_other_kinds_of_model_are_refused(tmp_path):
    write_sentencepiece(tmp_path / "tokenizer.model", PIECES, kind=1)
    with pytest.raises(UserError, match="another kind than BPE"):
        read_sentencepiece(tmp_path / "tokenizer.model")


@pytest.mark.parametrize("keep", [0.3, 0.999])
def test_damaged_files_are_refused(folder, tmp_path, keep):
    data = (folder / "tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError):
        read_sentencepiece(tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer.model").write_bytes(b"\xff" * 40)
    with pytest.raises(DataError, match="no whole SentencePiece model"):
        read_sentencepiece(tmp_path / "tokenizer.model")
