"""Beam search against transformers' with the same weights, and beside other answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from mio_world import TEXT, FakeCodecs, FakeText

from mio import ControlToken, Decoding, Frames, Modality, UserError
from mio.core.contract.backbone import TransformerConfig
from mio.core.exchange.huggingface import huggingface_name
from mio.core.generation import requests
from mio.core.generation.answer import read_answer
from mio.core.generation.engine import Engine
from mio.core.generation.grammar import AnswerGrammar, Grammar, Need, need_of
from mio.core.generation.requests import Request
from mio.core.model.transformer import Transformer
from mio.core.tokens.rendered import Prompt
from mio.core.tokens.vocabulary import Vocabulary

TEXTS = FakeText(size=140)
TONES = Modality(name="tones", codebooks=(6, 6), begin="<t>", end="</t>", code_token="<t{}>",
                 layout="frame_major", frames=Frames(minimum=2, maximum=5))  # fmt: skip
SAID = [("made", ControlToken(name="over", token="<over>", anywhere=True, action="silence")),
        ("made", ControlToken(name="hum", token="<hum>", anywhere=True, action="insert", insert=" !"))]  # fmt: skip
MODALITIES = {"text": TEXT, "tones": TONES}


def world(controls=()):
    vocabulary = Vocabulary.build(TEXTS, [("made", TEXT), ("made", TONES)], controls)
    return vocabulary, Grammar(vocabulary, MODALITIES, vocabulary.specials.eos)


VOCABULARY, GRAMMAR = world()


@pytest.fixture(scope="module")
def pair():
    """A Llama of transformers, and ours with its weights and rows of padding."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY.size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.35, max_position_embeddings=256, eos_token_id=2, bos_token_id=1,
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).eval()
    ours = Transformer(
        TransformerConfig(width=32, layers=2, heads=2, kv_heads=1, ffn_width=64, norm_eps=config.rms_norm_eps),
        VOCABULARY.rows,
    ).eval()
    tensors = theirs.state_dict()
    for name, parameter in ours.state_dict().items():
        given = tensors[huggingface_name(name)]
        parameter[: len(given)] = given
    return theirs, ours


def request(prompt, beams, budget, **options):
    decoding = Decoding(beams=beams, max_tokens=budget, **options)
    return Request(Prompt(np.array(prompt, np.int32)), decoding, Need(), 0, budget)


def searched(transformer, asked, grammar=GRAMMAR, rows=1):
    codecs = FakeCodecs(TEXTS)
    codecs.modalities = MODALITIES
    engine = Engine(transformer, grammar, rows, 120, codecs)
    tickets = [engine.submit(one) for one in asked]
    engine.run()
    return tickets


PROMPTS = [[1, *range(start, start + 3 + start % 7)] for start in range(100, 130, 6)]


@pytest.mark.parametrize(("penalty", "budget"), [(1.0, 4), (1.0, 12), (1.0, 40), (1.3, 12)])
@pytest.mark.parametrize("beams", [2, 5])
def test_tokens_are_those_of_transformers(pair, beams, budget, penalty):
    """Closed are, in both, special tokens and codes. The budget holds the stop token, which the other leaves out where
    the length ends the answer; a penalty is about the prompt too there, so that prompts are one token here."""
    theirs, ours = pair
    allowed = GRAMMAR.allowed(AnswerGrammar(GRAMMAR, Need(only=True), 100).state())
    closed = sorted(set(range(VOCABULARY.size)) - set(allowed))
    stopped = 0
    for prompt in PROMPTS if penalty == 1 else [prompt[:1] for prompt in PROMPTS[:1]]:
        given = torch.tensor([prompt])
        found = theirs.generate(
            given, attention_mask=torch.ones_like(given), num_beams=beams, do_sample=False, max_new_tokens=budget - 1,
            suppress_tokens=closed, length_penalty=1.0, repetition_penalty=penalty, eos_token_id=2, pad_token_id=0,
        )[0, len(prompt) :].tolist()  # fmt: skip
        [ticket] = searched(ours, [request(prompt, beams, budget, repetition_penalty=penalty)])
        assert ticket.answer.tokens == [token for token in found if token != 2]
        assert ticket.finished.reason == (requests.STOP if found[-1] == 2 else requests.LENGTH)
        stopped += found[-1] == 2
    assert penalty != 1 or budget < 40 or stopped > 0


def test_a_search_is_the_same_beside_others_and_does_not_hold_them_up(pair):
    _, ours = pair
    drawn = Request(
        Prompt(np.array([1, 120], np.int32)), Decoding(temperature=1.0), need_of("", MODALITIES, False), 5, 30
    )
    asked = [
        request(PROMPTS[0], 3, 30),
        drawn,
        request(PROMPTS[1], 5, 30),
        replace(drawn, seed=6),
        request(PROMPTS[2], 2, 9),
    ]
    together = [ticket.answer for ticket in searched(ours, asked, rows=2)]
    assert together == [searched(ours, [one])[0].answer for one in asked]
    engine = Engine(ours, GRAMMAR, 2, 120)
    long, short = engine.submit(request(PROMPTS[0], 5, 100)), engine.submit(replace(drawn, budget=5))
    for _ in range(7):
        engine.step()
    assert short.finished is not None
    assert long.finished is None
    engine.cancel(long)
    engine.run()
    assert long.finished.reason == requests.CANCELLED
    assert engine.running == []


def test_control_tokens_end_a_beam_or_insert_text():
    """What is inserted costs nothing; an answer that a control token ends has no stop token."""
    vocabulary, grammar = world(SAID)
    torch.manual_seed(0)
    config = TransformerConfig(width=16, layers=1, heads=1, init_std=0.5, head_bias=True)
    transformer = Transformer(config, vocabulary.rows).eval()
    hum, over = vocabulary.id("<hum>"), vocabulary.id("<over>")
    with torch.no_grad():
        transformer.head.bias[hum] = 30.0
    [ticket] = searched(transformer, [request([1, 100], 3, 19)], grammar)
    inserted = TEXTS.encode(" !")
    assert ticket.answer.tokens[:6] == [hum, *inserted, hum, *inserted]
    with torch.no_grad():
        transformer.head.bias[over] = 60.0
    [ticket] = searched(transformer, [request([1, 100], 3, 19)], grammar)
    assert ticket.answer.tokens == [over]
    assert ticket.finished.reason == requests.CONTROL


def test_a_string_that_ends_answers_ends_beams(pair):
    codecs, ended = FakeCodecs(TEXTS), 0
    codecs.modalities = MODALITIES
    for prompt in PROMPTS:
        [free] = searched(pair[1], [request(prompt, 3, 30)])
        for letter in sorted(set(TEXTS.decode(free.answer.tokens)) - {"\ufffd"}):
            [ticket] = searched(pair[1], [request(prompt, 3, 30, stop=(letter,))])
            *before, last = ticket.answer.tokens
            assert letter not in TEXTS.decode(before)
            assert letter not in read_answer(ticket.answer, VOCABULARY, codecs, "text", (letter,)).text
            ended += letter in TEXTS.decode([last])
    assert ended > 3


def test_beams_for_media_are_refused(pair):
    _, ours = pair
    with pytest.raises(UserError, match="`beams` is 5: beam search is for answers of text, and `tones` is asked for"):
        searched(ours, [replace(request(PROMPTS[0], 5, 30), need=need_of("tones", MODALITIES, True))])


def test_scores_that_are_not_finite_end_the_search_alone(pair):
    _, ours = pair
    broken = Transformer(ours.config, VOCABULARY.rows).eval()
    with torch.no_grad():
        broken.norm.weight.fill_(torch.nan)
    [ticket] = searched(broken, [request(PROMPTS[0], 3, 30)])
    assert ticket.finished.reason == requests.FAILED
    assert "not finite" in str(ticket.finished.error)
