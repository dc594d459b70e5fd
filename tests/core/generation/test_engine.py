"""Batched decoding against the model run over the whole sequence again for every token."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from mio_world import TEXT, FakeText

from mio import Codes, DataError, Decoding, Frames, Modality, UserError
from mio.core.contract.backbone import TransformerConfig
from mio.core.generation.answer import decode_answer
from mio.core.generation.engine import generate_tokens
from mio.core.generation.grammar import AnswerGrammar, Grammar, Need, need_of
from mio.core.model.transformer import Transformer
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.rendered import Prompt
from mio.core.tokens.vocabulary import Vocabulary

TONES = Modality(name="tones", codebooks=(6, 6), begin="<t>", end="</t>", code_token="<t{}>",
                 layout="frame_major", frames=Frames(minimum=2, maximum=5))  # fmt: skip
REEL = Modality(name="reel", parts="tones", frames=Frames(minimum=2, maximum=3))
TEXTS = FakeText(size=356)
DECLARED = [("made", TEXT), ("made", TONES), ("made", REEL)]
MODALITIES = {modality.name: modality for _, modality in DECLARED}
VOCABULARY = Vocabulary.build(TEXTS, DECLARED)
GRAMMAR = Grammar(VOCABULARY, MODALITIES, VOCABULARY.specials.eos)
GREEDY = Decoding(temperature=0.0, media_temperature=0.0, max_tokens=40)
SEEDS = (0, 1, 2, 3)
PROMPTS = [[1, 120, 130, 140], [1], [1, *range(200, 220)], [1, 150, 151]]


def generated(*asked, **options):
    """The tokens of each answer."""
    transformer, grammar, prompts, *rest = asked
    prompts = [Prompt(np.array(prompt, np.int32)) for prompt in prompts]
    return [answer.tokens for answer in generate_tokens(transformer, grammar, prompts, *rest, **options)]


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(0)
    config = TransformerConfig(width=32, layers=2, heads=2, kv_heads=1, init_std=0.6)
    return Transformer(config, VOCABULARY.rows).eval()


@torch.inference_mode()
def naive(transformer, prompt, need, decoding):
    """Greedy, one sequence, no cache, scores of all ids."""
    answer, tokens = AnswerGrammar(GRAMMAR, need, decoding.max_tokens), []
    while True:
        ids = torch.tensor([[*prompt, *tokens]])
        hidden = transformer(ids, torch.arange(ids.shape[1])[None]).hidden[0, -1]
        logits = hidden @ transformer.head_weight.T
        ids = torch.tensor(GRAMMAR.allowed(answer.state()))
        token = int(ids[logits[ids].argmax()])
        answer.advance(token)
        if answer.done:
            return tokens
        tokens.append(token)


@pytest.mark.parametrize("output", ["", "text", "tones", "reel"])
def test_a_ragged_batch_gives_what_each_prompt_gives_alone(transformer, output):
    need = need_of(output, MODALITIES, only=True)
    together = generated(transformer, GRAMMAR, PROMPTS, GREEDY, need, SEEDS)
    assert together == [naive(transformer, prompt, need, GREEDY) for prompt in PROMPTS]


def test_sampling_is_the_same_by_seed_and_keeps_to_the_grammar(transformer):
    decoding = replace(GREEDY, temperature=1.5, media_temperature=1.5, top_p=0.95)
    need = need_of("tones", MODALITIES, only=True)
    one, other, third = (generated(transformer, GRAMMAR, PROMPTS, decoding, need, [seed] * 4) for seed in (7, 7, 8))
    assert one == other != third
    for tokens in one + third:
        parsed = parse_tokens(tokens, VOCABULARY, TEXTS)
        assert (parsed.problems, parsed.unfinished) == ((), "")
        assert [part.modality for part in parsed.parts if isinstance(part, Codes)] == ["tones"]
        assert len(tokens) < decoding.max_tokens


@pytest.mark.parametrize("output", ["", "tones"])
def test_what_is_drawn_depends_on_the_seed_and_not_on_the_neighbours(transformer, output):
    decoding, need = replace(GREEDY, temperature=1.2, media_temperature=1.2), need_of(output, MODALITIES, only=True)
    together = generated(transformer, GRAMMAR, PROMPTS, decoding, need, SEEDS)
    alone = [
        generated(transformer, GRAMMAR, [one], decoding, need, [seed])[0]
        for one, seed in zip(PROMPTS, SEEDS, strict=True)
    ]
    assert together == alone
    turned = generated(transformer, GRAMMAR, PROMPTS[::-1], decoding, need, SEEDS[::-1])
    assert turned == together[::-1]
    assert generated(transformer, GRAMMAR, PROMPTS[:1] * 3, decoding, need, (0, 1, 0))[::2] == together[:1] * 2


def test_a_budget_of_one_token_is_the_stop_token_alone(transformer):
    assert generated(transformer, GRAMMAR, PROMPTS, replace(GREEDY, max_tokens=1), Need(), SEEDS) == [[]] * 4


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


def test_prompt_and_answer_keep_to_the_context(transformer):
    """A row of 13 positions has 14 tokens: four of prompt leave ten, the stop token included."""
    decoding = replace(GREEDY, max_tokens=1000)
    free = generated(transformer, GRAMMAR, PROMPTS[:1], replace(GREEDY, max_tokens=10), Need(), [0])
    for context in (13, 40):
        [made] = generated(transformer, GRAMMAR, [PROMPTS[0]], decoding, Need(), [0], context=context)
        assert len(PROMPTS[0]) + len(made) <= context
    assert generated(transformer, GRAMMAR, PROMPTS[:1], decoding, Need(), [0], context=13) == free
    need = need_of("tones", MODALITIES, only=True)
    assert generated(transformer, GRAMMAR, [[1] * 9], decoding, need, [0], context=15)  # 7 tokens, the shortest answer
    with pytest.raises(DataError, match="the prompt has 10 tokens and the shortest answer 7; they do not fit the 15"):
        generated(transformer, GRAMMAR, [[1] * 10], decoding, need, [0], context=15)


def test_answers_of_a_batch_have_the_room_that_their_prompts_leave(transformer):
    decoding = replace(GREEDY, max_tokens=1000)
    together = generated(transformer, GRAMMAR, PROMPTS, decoding, Need(), SEEDS, context=30)
    alone = [generated(transformer, GRAMMAR, [prompt], decoding, Need(), [0], context=30)[0] for prompt in PROMPTS]
    assert together == alone
    assert all(len(prompt) + len(made) <= 30 for prompt, made in zip(PROMPTS, together, strict=True))


def test_weights_that_are_not_finite_are_told(transformer):
    broken = copy.deepcopy(transformer)
    broken.head_weight.data[120] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        generated(broken, GRAMMAR, PROMPTS, GREEDY, Need(), SEEDS)


def test_any_temperature_draws_what_is_allowed(transformer):
    for temperature in (0, 1e-300, 1e-39, 1, 100):
        decoding = replace(GREEDY, temperature=temperature, media_temperature=temperature, top_p=0.999)
        need = need_of("tones", MODALITIES, only=True)
        made = generated(transformer, GRAMMAR, PROMPTS, decoding, need, SEEDS)
        if temperature < 1e-6:
            assert made == generated(transformer, GRAMMAR, PROMPTS, GREEDY, need, SEEDS)
        assert not any(parse_tokens(tokens, VOCABULARY, TEXTS).problems for tokens in made)
