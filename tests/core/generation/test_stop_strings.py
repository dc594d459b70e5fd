"""Strings that end an answer: the engine stops where one is complete, and the answer holds what is before it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mio_world import FakeCodecs, FakeText
from test_engine import GRAMMAR, MODALITIES, VOCABULARY

from mio import Codes, Decoding
from mio.core.contract.backbone import TransformerConfig
from mio.core.generation import requests
from mio.core.generation.answer import read_answer
from mio.core.generation.engine import Engine
from mio.core.generation.grammar import need_of
from mio.core.generation.requests import Request
from mio.core.generation.stopping import before_stop
from mio.core.model.transformer import Transformer
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.rendered import Prompt


class Pairs(FakeText):
    """Two letters a token: strings begin and end in the midst of one."""

    def decode(self, ids):
        return "".join("abcde"[index % 5] + "xyz"[index // 5 % 3] for index in ids if index > 7)


TEXTS = Pairs(356)


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(0)
    return Transformer(TransformerConfig(width=32, layers=2, heads=2, kv_heads=1, init_std=0.6), VOCABULARY.rows).eval()


def answered(transformer, seed, output, stop):
    decoding = Decoding(temperature=1.0, media_temperature=1.0, max_tokens=60, stop=stop)
    codecs = FakeCodecs(TEXTS)
    codecs.modalities = MODALITIES
    engine = Engine(transformer, GRAMMAR, 2, 100, codecs)
    prompt = Prompt(np.array([1, 120], np.int32))
    ticket = engine.submit(Request(prompt, decoding, need_of(output, MODALITIES, only=False), seed, 60))
    engine.run()
    return ticket


def text_of(tokens):
    return "".join(part for part in parse_tokens(tokens, VOCABULARY, TEXTS).parts if isinstance(part, str))


@pytest.mark.parametrize("seed", range(12))
def test_an_answer_ends_with_the_first_token_that_completes_a_string(transformer, seed):
    free = answered(transformer, seed, "text", ()).answer.tokens
    text = text_of(free)
    assert len(text) > 10
    place = 3 + seed % 5
    strings = (text[place : place + 1 + seed % 4], "never said")
    first = text.find(strings[0])
    ticket = answered(transformer, seed, "text", strings)
    tokens = ticket.answer.tokens
    assert tokens == free[: len(tokens)]
    assert strings[0] in text_of(tokens)
    assert strings[0] not in text_of(tokens[:-1])
    assert ticket.finished.reason == requests.STOP
    codecs = FakeCodecs(TEXTS)
    codecs.modalities = MODALITIES
    assert read_answer(ticket.answer, VOCABULARY, codecs, "", strings).text == text[:first]


def test_codes_between_texts_are_none_of_a_string():
    """A string is found in one piece of text: spans separate it."""
    codes = Codes("tones", np.zeros((2, 2), int))
    assert list(before_stop(["ab", codes, "cd"], ["bc"])) == ["ab", codes, "cd"]
    assert list(before_stop(["ab", codes, "xcdy", codes], ["cd", "dy"])) == ["ab", codes, "x"]
    assert list(before_stop(["ab", codes], ["ab"])) == []


def test_a_string_that_is_not_said_changes_nothing(transformer):
    for output in ("", "tones"):
        free, watched = (answered(transformer, 3, output, stop) for stop in ((), ("\x00\x00\x00",)))
        assert free.answer == watched.answer
        assert free.finished.reason == watched.finished.reason
