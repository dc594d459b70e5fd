"""Answers read token by token against the same tokens read at once; sentences against their text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_model import World

from mio import Codes, Control, Modality
from mio.core.generation.reading import AnswerReader
from mio.core.live.sentences import SentenceCutter
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.vocabulary import Vocabulary

MODEL = World({}).model()
TOKENS = MODEL.transformer.tokens
TEXT = MODEL.codecs.text
OWN = MODEL.vocabulary.controls.ids["own"][0]


def read(ids):
    reader = AnswerReader(MODEL.vocabulary, TEXT)
    pieces = [piece for index in ids for piece in reader.push(index)]
    return reader, [*pieces, *reader.finish()]


def joined(pieces):
    parts = []
    for piece in pieces:
        if isinstance(piece, str) and parts and isinstance(parts[-1], str):
            parts[-1] += piece
        else:
            parts.append(piece)
    return [part.codes.tolist() if isinstance(part, Codes) else part for part in parts]


@settings(deadline=None)
@given(st.lists(st.one_of(st.text(min_size=1), st.tuples(st.integers(0, 7), st.integers(0, 7))), max_size=6))
def test_pieces_are_what_the_whole_answer_is(parts):
    ids = TOKENS(["!", *parts])  # no control token in front
    reader, pieces = read(ids)
    whole = parse_tokens(ids, MODEL.vocabulary, TEXT).parts
    assert joined(pieces) == joined(whole)
    assert TOKENS([part if isinstance(part, str) else part.codes[0].tolist() for part in reader.parts]) == ids
    assert [token for part in reader.parts if isinstance(part, str) for token in part.tokens] == [
        index for index in ids if index < 256
    ]


class Llama:
    """Decodes as SentencePiece does in Llama: the space before a text is taken away, unknown characters are bytes."""

    def __init__(self):
        from tokenizers import Tokenizer, decoders, models

        words = ["▁the", "▁", "cat", "s", "▁é"]
        tokens = [*(f"<0x{byte:02X}>" for byte in range(256)), "<s>", *words]
        self.tokens = Tokenizer(
            models.BPE({token: index for index, token in enumerate(tokens)}, [], byte_fallback=True)
        )
        self.tokens.add_special_tokens(["<s>"])
        self.tokens.decoder = decoders.Sequence([
            decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ])  # fmt: skip
        self.fingerprint, self.size = "llama", len(tokens)
        self.specials = dict.fromkeys(("pad", "bos", "eos", "im_start", "im_end"), 256)

    def decode(self, ids):
        return self.tokens.decode(list(ids), skip_special_tokens=True)

    def token(self, index):
        return self.tokens.id_to_token(index)


LLAMA = Llama()
LLAMA_VOCABULARY = Vocabulary.build(LLAMA, [("text", Modality(name="text", text=True))])
UNITS = [*([index] for index in range(256, LLAMA.size)), *(list(one.encode()) for one in "né€😀")]
"""Words, and characters in bytes."""


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(UNITS), max_size=12))
def test_pieces_of_a_text_are_the_text_where_spaces_and_bytes_depend_on_what_is_before(units):
    ids = [index for unit in units for index in unit]
    reader = AnswerReader(LLAMA_VOCABULARY, LLAMA)
    pieces = [piece for index in ids for piece in reader.push(index)]
    assert not any(piece.endswith("�") for piece in pieces)
    assert "".join([*pieces, *reader.finish()]) == LLAMA.decode(ids)


def test_a_step_decodes_no_more_of_a_long_text_than_of_a_short_one():
    decoded = []

    class Counted(type(TEXT)):
        def decode(self, ids):
            decoded.append(len(ids))
            return super().decode(ids)

    reader = AnswerReader(MODEL.vocabulary, Counted())
    for index in TEXT.encode("It is three. " * 40):
        reader.push(index)
    assert max(decoded) <= 8


def test_characters_of_several_tokens_come_whole():
    reader = AnswerReader(MODEL.vocabulary, TEXT)
    assert [reader.push(index) for index in TEXT.encode("né€")] == [["n"], [], ["é"], [], [], ["€"]]
    assert reader.push(0xC3) == []
    assert reader.finish() == ["\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("<1>yes", [Control("state1"), "yes"]),
        ("<1><3>yes", [Control("state1"), Control("state3"), "yes"]),
        ("<9>yes", ["<9>yes"]),
        ("<1<1>", ["<1<1>"]),
        ("<1", ["<1"]),
        ("<1>", [Control("state1")]),
        (" <1>", [" <1>"]),
        ("", []),
    ],
)
def test_control_tokens_of_plain_text_count_at_the_beginning(answer, expected):
    reader, pieces = read(TEXT.encode(answer))
    assert joined(pieces) == expected
    assert reader.parts == expected


def test_control_tokens_with_an_id_count_everywhere():
    ids = [OWN, *TEXT.encode("<1>a<"), OWN, *TEXT.encode("<1>b")]
    reader, pieces = read(ids)
    own = Control("own")
    assert joined(pieces) == [own, Control("state1"), "a<", own, "<1>b"] == reader.parts
    assert joined(parse_tokens(ids, MODEL.vocabulary, TEXT).parts) == joined(pieces)


@settings(deadline=None)
@given(st.text("ab1.,? \n"), st.integers(1, 8), st.lists(st.integers(1, 5)))
def test_sentences_join_to_the_text_wherever_it_is_cut_before(text, least, sizes):
    def cut(pieces):
        cutter = SentenceCutter(".,?\n", least)
        return [sentence for piece in pieces for sentence in cutter.push(piece)] + cutter.flush()

    whole, start, bits = cut([text]), 0, []
    for size in sizes:
        bits.append(text[start : start + size])
        start += size
    assert cut([*bits, text[start:]]) == whole == cut(text)
    assert text.startswith("".join(whole))
    assert not text[len("".join(whole)) :].strip()
    assert all(len(sentence) >= least and sentence[-1] in ".,?\n" for sentence in whole[:-1])


def test_numbers_are_not_cut():
    cutter = SentenceCutter(".,:", 3)
    assert cutter.push("It is 3.5, or 10,000 at 12:30. ") == ["It is 3.5,", " or 10,000 at 12:30."]
    assert cutter.push("Yes, 7") == [" Yes,"]
    assert cutter.push(".") == []
    assert cutter.flush() == [" 7."]
