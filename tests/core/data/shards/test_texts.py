"""The tokens of a shard's texts are those that the tokenizer gives, or none."""

from __future__ import annotations

import numpy as np
import pytest
from mio_world import FakeText

from mio.core.contract.values import Modality, Template
from mio.core.data.shards.reader import Shard
from mio.core.data.shards.texts import tokens_path, write_text_tokens
from mio.core.data.shards.writer import ShardWriter
from mio.core.tokens.templates import CompiledTemplate
from mio.core.tokens.tokenised import TokenisedText

TEXTS = ("", "word", " two words", "déjà vu", "word")


class WideText(FakeText):
    """Ids that take more than 16 bits."""

    def encode(self, text):
        return [index + 70_000 for index in super().encode(text)]


def shard(path, texts=TEXTS):
    writer = ShardWriter({"text": Modality(name="text", text=True)}, {})
    for number, text in enumerate(texts):
        writer.add({"a": text, "number": number, "list": [text, text]})
    writer.write(path, {})
    return path


@pytest.mark.parametrize("tokenizer", [FakeText(), WideText(size=80_000)])
def test_texts_bring_the_tokens_that_the_tokenizer_gives(tmp_path, tokenizer):
    path = shard(tmp_path / "000000.shard")
    write_text_tokens(path, tokenizer)
    read = Shard(path, tokenizer.fingerprint)
    template = CompiledTemplate(Template(direction="d", prompt="Say: {a}{number} ", response="{list}"))
    for place, text in enumerate(TEXTS):
        record = read[place]
        assert record == {"a": text, "number": str(place), "list": [text, text]} == Shard(path)[place]
        for found in (record["a"], record["number"], *record["list"]):
            assert found.tokens.tolist() == tokenizer.encode(found)
            assert found.spaced().tokens.tolist() == tokenizer.encode(f" {found}")
        # the space of the literal moves to the text, whose tokens change with it
        assert template.prompt(record)[1].tokens.tolist() == tokenizer.encode(f" {text}")
        assert template.prompt(record) == [piece for piece in ("Say:", f" {text}", str(place), " ") if piece]
        assert all(isinstance(piece, TokenisedText) for piece in template.response(record))


def test_tokens_of_another_tokenizer_or_shard_are_not_used(tmp_path):
    path = shard(tmp_path / "000000.shard")
    write_text_tokens(path, FakeText(fingerprint="one"))
    assert isinstance(Shard(path, "one")[1]["a"], TokenisedText)
    assert not isinstance(Shard(path, "two")[1]["a"], TokenisedText)
    assert not isinstance(Shard(path)[1]["a"], TokenisedText)
    shard(path, ("other", "texts"))
    assert not isinstance(Shard(path, "one")[1]["a"], TokenisedText)
    write_text_tokens(path, FakeText(fingerprint="one"))
    assert Shard(path, "one")[1]["a"].tokens.tolist() == FakeText().encode("texts")


def test_damaged_tokens_are_not_used_and_made_again(tmp_path):
    path, tokenizer = shard(tmp_path / "000000.shard"), FakeText()
    write_text_tokens(path, tokenizer)
    beside = tokens_path(path, tokenizer.fingerprint)
    whole = beside.read_bytes()
    beside.write_bytes(whole[:-100])
    assert not isinstance(Shard(path, tokenizer.fingerprint)[1]["a"], TokenisedText)
    for damaged in (whole[:-100], whole[:-70] + bytes([whole[-70] ^ 1]) + whole[-69:], whole[:40] + b"x" + whole[41:]):
        beside.write_bytes(damaged)
        write_text_tokens(path, tokenizer)
        assert beside.read_bytes() == whole


def test_texts_that_are_there_are_not_tokenised_again(tmp_path):
    path, tokenizer = shard(tmp_path / "000000.shard"), FakeText()
    write_text_tokens(path, tokenizer)
    tokenizer.encoded.clear()
    write_text_tokens(path, tokenizer)
    assert tokenizer.encoded == []
    assert np.array_equal(Shard(path, tokenizer.fingerprint)[1]["a"].tokens, FakeText().encode("word"))
