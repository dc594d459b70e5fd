"""Answers of modalities with automata: every walk ends within its budget in spans that the declaration allows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mio_world import TEXT, FakeText

from mio import Arc, Automaton, Codes, Frames, Modality
from mio.core.contract.validation import modality_problems
from mio.core.generation.grammar import AnswerGrammar, Grammar, Need, need_of
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.vocabulary import Vocabulary

NOTES = Modality(
    name="notes",
    codebooks=(40,),
    begin="<n>",
    end="</n>",
    code_token="<n{}>",
    frames=Frames(minimum=2, maximum=14, step=3),
    automaton=Automaton(
        start="pitch",
        arcs={
            "pitch": (Arc(range(20), "length"), Arc((39,), "pitch")),  # a pitch has a length, a rest has none
            "length": (Arc(range(20, 30), "pitch"),),
        },
        final=("pitch",),
    ),
)
CHORDS = Modality(
    name="chords",
    codebooks=(6, 9),
    begin="<c>",
    end="</c>",
    code_token="<c{}>",
    layout="frame_major",
    frames=Frames(minimum=1, maximum=5),
    automaton=Automaton(  # the second code is above the first, and the next frame begins at it or above
        start=("low", 0),
        arcs={
            **{("low", low): tuple(Arc((code,), ("high", code)) for code in range(low, 6)) for low in range(6)},
            **{
                ("high", low): tuple(Arc((code,), ("low", min(5, code))) for code in range(low + 1, 9))
                for low in range(6)
            },
        },
        final=tuple(("low", low) for low in range(1, 6)),
    ),
)  # fmt: skip
DECLARED = {one.name: one for one in (TEXT, NOTES, CHORDS)}
TEXTS = FakeText(size=356)
VOCABULARY = Vocabulary.build(TEXTS, [("made", one) for one in DECLARED.values()])
GRAMMAR = Grammar(VOCABULARY, DECLARED, VOCABULARY.specials.im_end)


def is_notes(codes):
    """By another description: pitches with their lengths, and rests."""
    word, at = codes[0].tolist(), 0
    while at < len(word):
        if word[at] == 39:
            at += 1
        elif at + 1 < len(word) and word[at] < 20 <= word[at + 1] < 30:
            at += 2
        else:
            return False
    return len(word) in (2, 5, 8, 11, 14)


def is_chords(codes):
    low, high = codes
    return bool((high > low).all() and (low[1:] >= np.minimum(high[:-1], 5)).all()) and codes.shape[1] <= 5


IS = {"notes": is_notes, "chords": is_chords}


def test_the_declarations_are_valid():
    assert [modality_problems(one) for one in DECLARED.values()] == [[], [], []]


def walk(need, budget, seed):
    answer, draw, tokens = AnswerGrammar(GRAMMAR, need, budget), np.random.default_rng(seed), []
    while not answer.done:
        choices = np.array(GRAMMAR.allowed(answer.state()))
        assert len(choices), "nothing may come next"
        blocks = VOCABULARY.block_of[choices]
        tokens.append(int(draw.choice(choices[blocks == draw.choice(np.unique(blocks))])))
        answer.advance(tokens[-1])
    assert len(tokens) <= budget
    return tokens[:-1]


needs = st.sampled_from([Need(), *(need_of(name, DECLARED, True) for name in DECLARED), Need("notes", 2, 3),
                         Need("chords", 3, 0, together=True)])  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(needs, st.integers(25, 90), st.integers(0, 10**6))
def test_every_random_answer_holds_spans_that_the_automata_accept(need, budget, seed):
    parsed = parse_tokens(walk(need, budget, seed), VOCABULARY, TEXTS)
    assert (parsed.problems, parsed.unfinished) == ((), "")
    spans = [part for part in parsed.parts if isinstance(part, Codes)]
    assert all(IS[span.modality](span.codes) for span in spans)
    assert sum(span.modality == need.modality for span in spans) >= need.least


@pytest.mark.parametrize("name", ["notes", "chords"])
def test_a_changed_code_is_a_problem_or_another_span(name):
    """A mutation parses exactly where the description by hand accepts it."""
    draw, refused, accepted = np.random.default_rng(0), 0, 0
    for seed in range(60):
        tokens = walk(need_of(name, DECLARED, True), 60, seed)
        start, end = tokens.index(VOCABULARY.begin(name)), tokens.index(VOCABULARY.end(name))
        at = int(draw.integers(start + 1, end))
        block = VOCABULARY.blocks[VOCABULARY.block_of[tokens[at]]]
        mutated = [*tokens[start:at], int(draw.choice(block.ids)), *tokens[at + 1 : end + 1]]
        books = len(DECLARED[name].codebooks)
        starts = [VOCABULARY.code_ids(name, place % books).start for place in range(len(mutated) - 2)]
        grid = (np.array(mutated[1:-1]) - starts).reshape(-1, books).T
        parsed = parse_tokens(mutated, VOCABULARY, TEXTS)
        assert (not parsed.problems) == IS[name](grid)
        refused += bool(parsed.problems)
        accepted += not parsed.problems
        assert all("in state `" in problem for problem in parsed.problems)
    assert refused
    assert accepted


def test_the_smallest_budget_is_just_enough():
    for name, least in (("notes", 5), ("chords", 5)):
        tokens = walk(need_of(name, DECLARED, True), least, 0)
        assert len(tokens) + 1 == least
