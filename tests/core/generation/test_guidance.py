"""Guided spans against two models' runs over whole sequences, without a cache."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import MELODY
from mio_world import TEXT, FakeText

from mio import Codes, Decoding, Frames, Modality, Template
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.plugins import PluginManager
from mio.core.generation.engine import generate_tokens
from mio.core.generation.grammar import AnswerGrammar, Grammar, need_of
from mio.core.generation.model import Model
from mio.core.model.transformer import Transformer
from mio.core.runs.run import Run
from mio.core.tokens.rendered import Prompt
from mio.core.tokens.templates import CompiledTemplate, to_document
from mio.core.tokens.vocabulary import Vocabulary

TONES = Modality(name="tones", codebooks=(6, 6), begin="<t>", end="</t>", code_token="<t{}>",
                 layout="frame_major", frames=Frames(minimum=2, maximum=5))  # fmt: skip
DOTS = Modality(name="dots", codebooks=(9,), begin="<d>", end="</d>", code_token="<d{}>",
                frames=Frames(minimum=3, maximum=3))  # fmt: skip
MODALITIES = {modality.name: modality for modality in (TEXT, TONES, DOTS)}
VOCABULARY = Vocabulary.build(FakeText(size=356), [("made", modality) for modality in MODALITIES.values()])
UNASKED = {"tones": [1, 99, 98, 97]}  # dots have bos alone
GRAMMAR = Grammar(VOCABULARY, MODALITIES, VOCABULARY.specials.eos, UNASKED)
PROMPTS = [[1, 120, 130, 140], [1], [1, *range(200, 220)], [1, 150, 151]]
GREEDY = Decoding(temperature=0.0, media_temperature=0.0, max_tokens=60)


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


def logits_after(transformer, tokens):
    ids = torch.tensor([tokens])
    hidden = transformer(ids, torch.arange(ids.shape[1])[None]).hidden[0, -1]
    return hidden @ transformer.head_weight.T


@torch.inference_mode()
def naive(transformer, prompt, need, guidance):
    """Greedy, one sequence, and the span that is open behind its own prompt as a second one."""
    answer, tokens, opened = AnswerGrammar(GRAMMAR, need, GREEDY.max_tokens), [], 0
    while True:
        logits = logits_after(transformer, [*prompt, *tokens])
        if answer.in_span:
            unasked = logits_after(transformer, [*UNASKED.get(answer.modality, [1]), *tokens[opened:]])
            logits = unasked + guidance * (logits - unasked)
        ids = torch.tensor(GRAMMAR.allowed(answer.state()))
        between, token = not answer.in_span, int(ids[logits[ids].argmax()])
        answer.advance(token)
        if answer.done:
            return tokens
        if between:
            opened = len(tokens)
        tokens.append(token)


@pytest.mark.parametrize("output", ["", "tones", "dots"])
@pytest.mark.parametrize("guidance", [0.5, 5.0])
def test_spans_are_those_of_two_sequences(transformer, output, guidance):
    need = replace(need_of(output, MODALITIES, only=False), least=2 if output else 0)
    decoding = replace(GREEDY, guidance=guidance)
    made = generated(transformer, GRAMMAR, PROMPTS, decoding, need, (0, 1, 2, 3))
    assert made == [naive(transformer, prompt, need, guidance) for prompt in PROMPTS]
    if output:
        assert made != generated(transformer, GRAMMAR, PROMPTS, GREEDY, need, (0, 1, 2, 3))


@pytest.mark.parametrize(
    ("form", "system"), [("plain", {}), ("chat", {}), ("chat", {"default": "Be brief.", "melody": "Sing."})]
)
def test_what_asks_nothing_is_a_document_of_a_template_without_a_prompt(finished, form, system):
    run = Run.open(finished, PluginManager.discover([f"melody={MELODY / 'mio_melody.py'}"]))
    run.recipe.data.form, run.recipe.data.system = form, system
    template = CompiledTemplate(Template(direction="nothing_to_melody", response="{melody}"))
    notes = Codes("melody", np.zeros((1, 4), np.int64))
    rendered = run.renderer.render(to_document({"melody": notes}, template, form, system))
    unasked = Model.of(run).grammar.unasked_of("melody")
    assert rendered.tokens[: len(unasked) + 1].tolist() == [*unasked, run.vocabulary.begin("melody")]
    assert (len(unasked) == 1) == (form == "plain")


def test_an_answer_is_the_same_alone_and_in_a_batch(transformer):
    decoding = replace(GREEDY, guidance=3.0, temperature=1.0, media_temperature=1.0)
    need = need_of("dots", MODALITIES, only=False)
    together = generated(transformer, GRAMMAR, PROMPTS, decoding, need, (0, 1, 2, 3))
    alone = [
        generated(transformer, GRAMMAR, [prompt], decoding, need, [seed])[0] for seed, prompt in enumerate(PROMPTS)
    ]
    assert together == alone


def test_none_and_one_are_the_answer_itself_and_cost_nothing(transformer):
    need = need_of("tones", MODALITIES, only=True)
    passes = []
    with transformer.register_forward_hook(lambda *_: passes.append(1)):
        off, one, guided = (
            generated(transformer, GRAMMAR, PROMPTS, replace(GREEDY, guidance=guidance), need, (0, 1, 2, 3))
            for guidance in (0, 1, 1.0001)
        )
        both = len(passes)
    assert off == one == guided
    with transformer.register_forward_hook(lambda *_: passes.append(1)):
        generated(transformer, GRAMMAR, PROMPTS, GREEDY, need, (0, 1, 2, 3))
    assert both > 3 * (len(passes) - both)
