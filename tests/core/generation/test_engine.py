"""Batched decoding against the model run over the whole sequence again for every token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mio_world import TEXT, FakeText

from mio import Codes, Decoding, Frames, Modality
from mio.core.generation.answer import decode_answer
from mio.core.generation.engine import generate_tokens
from mio.core.generation.grammar import AnswerGrammar, Grammar, Need, need_of
from mio.core.parsing import parse_tokens
from mio.core.transformer.config import TransformerConfig
from mio.core.transformer.model import Transformer
from mio.core.vocabulary import Vocabulary

TONES = Modality(name="tones", codebooks=(6, 6), begin="<t>", end="</t>", code_token="<t{}>",
                 layout="frame_major", frames=Frames(minimum=2, maximum=5))  # fmt: skip
REEL = Modality(name="reel", parts="tones", frames=Frames(minimum=2, maximum=3))
TEXTS = FakeText(size=356)
DECLARED = [("made", TEXT), ("made", TONES), ("made", REEL)]
MODALITIES = {modality.name: modality for _, modality in DECLARED}
VOCABULARY = Vocabulary.build(TEXTS, DECLARED)
GRAMMAR = Grammar(VOCABULARY, MODALITIES, VOCABULARY.specials.eos)
GREEDY = Decoding(temperature=0.0, media_temperature=0.0, max_tokens=40)
PROMPTS = [[1, 120, 130, 140], [1], [1, *range(200, 220)], [1, 150, 151]]


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(0)
    config = TransformerConfig(width=32, layers=2, heads=2, kv_heads=1, init_std=0.6)
    return Transformer(config, VOCABULARY.rows).eval()


@torch.inference_mode()
def naive(transformer, prompt, need, decoding):
    """Greedy, one sequence, no cache, each mask asked for anew."""
    answer, tokens = AnswerGrammar(GRAMMAR, need, decoding.max_tokens), []
    while True:
        ids = torch.tensor([[*prompt, *tokens]])
        hidden = transformer(ids, torch.arange(ids.shape[1])[None]).hidden[0, -1]
        logits = hidden @ transformer.head_weight.T
        row = answer.row()
        logits[~GRAMMAR.table(torch.device("cpu"))[row]] = -torch.inf
        token = int(logits.argmax())
        answer.advance(token)
        if answer.done:
            return tokens
        tokens.append(token)


@pytest.mark.parametrize("output", ["", "text", "tones", "reel"])
def test_a_ragged_batch_gives_what_each_prompt_gives_alone(transformer, output):
    need = need_of(output, MODALITIES, only=True)
    together = generate_tokens(transformer, GRAMMAR, PROMPTS, GREEDY, need)
    assert together == [naive(transformer, prompt, need, GREEDY) for prompt in PROMPTS]


def test_sampling_is_the_same_by_seed_and_keeps_to_the_grammar(transformer):
    decoding = replace(GREEDY, temperature=1.5, media_temperature=1.5, top_p=0.95)
    need = need_of("tones", MODALITIES, only=True)
    one, other, third = (generate_tokens(transformer, GRAMMAR, PROMPTS, decoding, need, seed) for seed in (7, 7, 8))
    assert one == other != third
    for tokens in one + third:
        parsed = parse_tokens(tokens, VOCABULARY, TEXTS)
        assert (parsed.problems, parsed.unfinished) == ((), "")
        assert [part.modality for part in parsed.parts if isinstance(part, Codes)] == ["tones"]
        assert len(tokens) < decoding.max_tokens


def test_a_budget_of_one_token_is_the_stop_token_alone(transformer):
    assert generate_tokens(transformer, GRAMMAR, PROMPTS, replace(GREEDY, max_tokens=1), Need()) == [[]] * 4


class Decoders:
    """Media that spell out their codes."""

    modalities = MODALITIES

    def decode(self, modality, content):
        return f"{modality}({','.join(content)})" if modality == "reel" else str(content.sum())


def test_neighbouring_spans_become_one_item_of_the_modality_that_is_made_of_them():
    import numpy as np

    one, two = Codes("tones", np.ones((2, 2), int)), Codes("tones", np.ones((2, 3), int))
    parts = ["so: ", one, two, " and ", one]
    assert decode_answer(Decoders(), parts, "reel").parts == (
        ("text", "so: "), ("reel", "reel(4,6)"), ("text", " and "), ("reel", "reel(4)"),
    )  # fmt: skip
    plain = decode_answer(Decoders(), parts, "tones")
    assert plain.parts == (("text", "so: "), ("tones", "4"), ("tones", "6"), ("text", " and "), ("tones", "4"))
    assert plain.codes == (one, two, one)
    assert plain.text == "so:  and "
