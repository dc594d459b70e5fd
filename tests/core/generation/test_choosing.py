"""One step of many answers, each in a place and with settings of its own, against one at a time over all scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mio_world import TEXT, FakeText

from mio import Arc, Automaton, Decoding, Frames, Modality
from mio.core.contract.backbone import TransformerConfig
from mio.core.generation.choosing import choose
from mio.core.generation.grammar import Grammar, Need
from mio.core.generation.growing import GrowingAnswer
from mio.core.generation.sampling import Settings, sample
from mio.core.model.transformer import Transformer
from mio.core.tokens.vocabulary import Vocabulary

TEXTS = FakeText(size=356)
MODALITIES = [
    Modality(name="tones", codebooks=(60, 70), begin="<t>", end="</t>", code_token="<t{}>",
             layout="frame_major", frames=Frames(minimum=1, maximum=8)),
    Modality(name="dots", codebooks=(300,), begin="<d>", end="</d>", code_token="<d{}>",
             frames=Frames(minimum=3, maximum=3)),
    Modality(name="notes", codebooks=(90,), begin="<n>", end="</n>", code_token="<n{}>",
             frames=Frames(minimum=2, maximum=12, step=2),
             automaton=Automaton(start=0, final=(0, 2), arcs={
                 0: (Arc(range(40), 1), Arc(range(80, 85), 2)), 1: (Arc(range(40, 80, 3), 0), Arc((85,), 2)),
                 2: (Arc(range(88), 0),)})),
]  # fmt: skip
FIRST = Vocabulary.build(TEXTS, [("made", TEXT), ("made", MODALITIES[0])])
VOCABULARY = Vocabulary.build(TEXTS, [("made", TEXT), *(("made", one) for one in MODALITIES)], base=FIRST)
GRAMMAR = Grammar(VOCABULARY, {one.name: one for one in (TEXT, *MODALITIES)}, VOCABULARY.specials.eos)
HOT = Decoding(temperature=1.0, media_temperature=1.0)
DECODINGS = [
    Decoding(media_temperature=0.0),
    HOT,
    Decoding(temperature=1.2, top_k=7, by={"tones": {"top_p": 0.5}, "text": {"min_p": 0.1}}),
    Decoding(temperature=0.8, repetition_penalty=1.5, by={"dots": {"temperature": 2.0, "repetition_penalty": 1}}),
    Decoding(media_temperature=1.0, guidance=3.0),
]


@pytest.fixture(scope="module")
def transformer():
    config = TransformerConfig(width=24, layers=1, heads=2, init_std=0.6, head_bias=True)
    made = Transformer(config, VOCABULARY.rows).eval()
    torch.nn.init.normal_(made.head.bias, generator=torch.Generator().manual_seed(0))
    return made


def hidden_of(count, seed):
    return torch.randn(count, 24, generator=torch.Generator().manual_seed(seed)) * 3


def expected(transformer, answer, hidden, unasked, number):
    """The next token of one answer, of the scores of the whole vocabulary."""
    decoding, grammar = answer.decoding, answer.grammar
    size = VOCABULARY.size
    logits = transformer.logits(hidden, size)
    if grammar.in_span and decoding.guidance not in (0, 1):
        logits = decoding.guidance * logits + (1 - decoding.guidance) * transformer.logits(unasked, size)
    settings = Settings.of(decoding, grammar.modality)
    blocks = {0} if not grammar.in_span else {
        index for index, block in enumerate(VOCABULARY.blocks) if block.name.startswith(f"{grammar.modality}/")
    }  # fmt: skip
    said = np.array(sorted({token for token in answer.tokens if VOCABULARY.block_of[token] in blocks}), np.int64)
    mask = torch.full((size,), -torch.inf)
    mask[grammar_ids := GRAMMAR.allowed(grammar.state())] = 0
    said = said if settings.repetition_penalty != 1 else None
    [token] = sample((logits + mask)[None], [settings], [number], [said])
    assert token in grammar_ids
    return token


def test_answers_in_all_places_get_what_each_gets_alone_over_all_scores(transformer):
    count = 3 * len(DECODINGS)
    answers = [GrowingAnswer(GRAMMAR, Need(), 70, seed, DECODINGS[seed % len(DECODINGS)]) for seed in range(count)]
    places = set()
    for step in range(60):
        hidden, unasked = hidden_of(len(answers), step), hidden_of(len(answers), 1000 + step)
        if step % 9 == 3:  # a span opens wherever it may
            for one, name in zip(answers, ("tones", "dots", "notes") * count, strict=False):
                if VOCABULARY.begin(name) in GRAMMAR.allowed(one.grammar.state()):
                    one.advance(VOCABULARY.begin(name))
        places |= {type(one.grammar.state()).__name__ + one.grammar.modality for one in answers}
        numbers = [np.random.Generator(type(one.random.bit_generator)()) for one in answers]
        for copy, one in zip(numbers, answers, strict=True):
            copy.bit_generator.state = one.random.bit_generator.state
        wanted = [
            expected(transformer, one, hidden[row], unasked[row], numbers[row].random())
            for row, one in enumerate(answers)
        ]
        found = choose(transformer, answers, hidden, unasked)
        assert found == wanted
        for one, token in zip(answers, found, strict=True):
            one.advance(200 if token == GRAMMAR.stop and one.grammar.budget > 9 else token)
        answers = [one for one in answers if not one.done]
        if not answers:
            break
    assert places == {"Between", "Insidetones", "Insidedots", "Insidenotes"}
    assert step > 30


def test_only_what_may_come_is_scored(transformer, monkeypatch):
    """Inside a span the codebook's block and the end, where it may come; nothing where one token is left."""
    scored, plain = [], transformer.logits
    monkeypatch.setattr(
        transformer, "logits", lambda hidden, size, first=0: scored.append((first, size)) or plain(hidden, size, first)
    )
    answer = GrowingAnswer(GRAMMAR, Need(), 60, 0, HOT)
    choose(transformer, [answer], hidden_of(1, 0))
    text, codes = VOCABULARY.blocks[0].ids, VOCABULARY.code_ids("dots", 0)
    [(first, last)] = scored[:1]
    assert (first, last) == (0, scored[0][1])
    assert last - len(text) < 100
    answer.advance(VOCABULARY.begin("dots"))
    for _ in range(3):
        scored.clear()
        [token] = choose(transformer, [answer], hidden_of(1, 1))
        assert scored == [(codes.start, codes.stop)]
        answer.advance(token)
    scored.clear()
    assert choose(transformer, [answer], hidden_of(1, 2)) == [VOCABULARY.end("dots")]
    assert not scored


def test_a_penalty_is_about_what_the_answer_has_said_of_that_modality(transformer):
    """With a large penalty and greedily, no code of a codebook comes twice, and text says no token twice."""
    decoding = Decoding(repetition_penalty=100.0, media_temperature=0.0)
    answer = GrowingAnswer(GRAMMAR, Need(), 400, 0, decoding)
    answer.advance(VOCABULARY.begin("tones"))
    same = torch.zeros(1, 24)  # scores are the bias alone
    while answer.grammar.in_span:
        answer.advance(choose(transformer, [answer], same)[0])
    codes = answer.tokens[1:-1]
    assert len(codes) == len(set(codes)) > 2
    for _ in range(30):
        if not answer.done:
            answer.advance(choose(transformer, [answer], same)[0])
    words = [token for token in answer.tokens if token < TEXTS.size]
    assert len(words) == len(set(words)) > 2
