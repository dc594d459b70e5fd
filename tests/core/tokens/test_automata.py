"""Automata against their language: all words that their arcs spell, enumerated here from the declaration alone."""

from __future__ import annotations

import copy
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mio import Arc, Automaton, DataError, Frames, Modality
from mio.core.contract.span_table import NEVER, span_table
from mio.core.contract.validation import modality_problems
from mio.core.tokens.automata import AutomatonGrammar, beginning, check_codes, random_codes


def follow(declared, word):
    """The state that a word leads to, and how much of it the arcs take."""
    state = declared.automaton.start
    for taken, code in enumerate(word):
        targets = [arc.to for arc in declared.automaton.arcs.get(state, ()) if code in arc.codes]
        if not targets:
            return state, taken
        [state] = targets
    return state, len(word)


def is_span(declared, word):
    """Whether a word is a span, by the definition."""
    books, (state, taken) = len(declared.codebooks), follow(declared, word)
    whole = len(word) % books == 0 and len(word) // books in lengths(declared.frames)
    return whole and taken == len(word) and state in declared.automaton.final


def lengths(frames):
    return range(frames.minimum, frames.maximum + 1, frames.step)


def language(declared):
    """All spans, by trying every word."""
    books = declared.codebooks
    words = (
        word
        for count in lengths(declared.frames)
        for word in product(*(range(books[place % len(books)]) for place in range(count * len(books))))
    )
    return {word for word in words if is_span(declared, word)}


def written(grammar, table, budget, word=()):
    """All spans that a grammar writes within a budget."""
    codebooks, may_end, choice = grammar.allowed(budget)
    codes = [code for first, end in table.choices[choice] for code in range(first, end)]
    assert codes or may_end, "nothing may come"
    assert bool(codes) == bool(codebooks)
    assert grammar.remaining() <= budget
    spans = {word} if may_end else set()
    for code in codes:
        after = copy.copy(grammar)
        after.advance(codebooks[0], code)
        spans |= written(after, table, budget - 1, (*word, code))
    return spans


@st.composite
def modalities(draw, longest=3):
    """Small modalities with random automata, of which what cannot be reached or cannot end is cut off."""
    sizes = draw(st.sampled_from([(3,), (2,), (2, 3), (2, 1), (2, 2, 1)]))
    states = [(phase, number) for phase in range(len(sizes)) for number in range(draw(st.integers(1, 3)))]
    arcs = {}
    for state in states:
        after = [other for other in states if other[0] == (state[0] + 1) % len(sizes)]
        targets = draw(st.lists(st.sampled_from([None, *after]), min_size=sizes[state[0]], max_size=sizes[state[0]]))
        arcs[state] = {code: to for code, to in enumerate(targets) if to is not None}
    final = {state for state in states if state[0] == 0 and draw(st.booleans())}
    for _ in states:  # until nothing changes, at the latest
        ending = final | {state for state, own in arcs.items() if any(to in arcs for to in own.values())}
        useful = final.copy()
        for _ in states:
            useful |= {state for state, own in arcs.items() if useful & set(own.values())}
        arcs = {state: {code: to for code, to in own.items() if to in useful} for state, own in arcs.items() if state in
                useful & ending}  # fmt: skip
    reached = {(0, 0)}
    for _ in states:
        reached |= {to for state in reached for to in arcs.get(state, {}).values()}
    assume((0, 0) in arcs and final & reached)
    minimum = draw(st.integers(1, longest))
    frames = Frames(minimum=minimum, maximum=draw(st.integers(minimum, longest + 1)), step=draw(st.integers(1, 2)))
    automaton = Automaton(
        start=(0, 0),
        arcs={state: tuple(Arc((code,), to) for code, to in own.items()) for state, own in arcs.items() if state in
              reached},
        final=tuple(final & reached),
    )  # fmt: skip
    layout = "flat" if len(sizes) == 1 else "frame_major"
    declared = Modality(name="made", codebooks=sizes, begin="<m>", end="</m>", code_token="<m{}>", layout=layout,
                        frames=frames, automaton=automaton)  # fmt: skip
    problems = modality_problems(declared)
    assert bool(problems) != bool(language(declared))
    assert all(problem.startswith("`frames`: no span") for problem in problems)
    assume(not problems)
    return declared


@settings(max_examples=120, deadline=None)
@given(modalities())
def test_within_every_budget_exactly_the_spans_that_fit_are_written(declared):
    table, words = span_table(declared), language(declared)
    shortest = min(map(len, words))
    assert AutomatonGrammar(table).remaining() == shortest + 1
    for budget in range(shortest + 1, max(map(len, words)) + 3):
        fitting = {word for word in words if len(word) + 1 <= budget}
        assert written(AutomatonGrammar(table), table, budget) == fitting
    assert written(AutomatonGrammar(table), table, 10**6) == words


@settings(max_examples=60, deadline=None)
@given(modalities(), st.data())
def test_codes_are_refused_at_the_first_that_no_arc_has(declared, data):
    table, books = span_table(declared), len(declared.codebooks)
    frames = data.draw(st.sampled_from(list(lengths(declared.frames))))
    word = tuple(data.draw(st.integers(0, declared.codebooks[place % books] - 1)) for place in range(frames * books))
    codes = np.array(word).reshape(frames, books).T
    if is_span(declared, word):
        check_codes(table, codes)
        return
    state, taken = follow(declared, word)
    label = " ".join(map(str, state))
    where = f"code {word[taken]}.* at frame {taken // books}" if taken < len(word) else f"ends after {frames} frames"
    with pytest.raises(DataError, match=f"{where}: in state `{label}` come "):
        check_codes(table, codes)


@settings(max_examples=60, deadline=None)
@given(modalities(), st.integers(0, 99), st.integers(1, 5))
def test_random_codes_are_spans(declared, seed, most):
    codes = random_codes(declared, np.random.default_rng(seed), most)
    word = tuple(codes.T.ravel().tolist())
    assert is_span(declared, word)
    prefixes = [word[: count * len(codes)] for count in range(1, codes.shape[1] + 1)]
    for count in range(1, codes.shape[1] + 1):
        whole = [len(one) // len(codes) for one in prefixes[:count] if is_span(declared, one)]
        first = next(len(one) // len(codes) for one in prefixes if is_span(declared, one))
        assert beginning(declared, codes, count) == max(whole, default=first)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 3), st.integers(0, 400))
def test_lengths_recur_for_ever(loops, step, length):
    """A state with loops of several lengths: the lengths of its spans are the sums of these, by dynamic programming."""
    arcs = {0: tuple(Arc((loop,), (loop, 1) if size > 1 else 0) for loop, size in enumerate(loops))}
    for loop, size in enumerate(loops):
        arcs |= {(loop, at): (Arc((0,), (loop, at + 1) if at + 1 < size else 0),) for at in range(1, size)}
    declared = Modality(name="made", codebooks=(4,), begin="<m>", end="</m>", code_token="<m{}>",
                        automaton=Automaton(start=0, arcs=arcs, final=(0,)),
                        frames=Frames(minimum=step, maximum=900, step=step))  # fmt: skip
    sums = {0}
    for total in range(1, 1000):
        sums |= {total} if any(total - size in sums for size in loops) else set()
    possible = sorted(total for total in sums if total % step == 0 and total >= length)
    table = span_table(declared)
    assert table.least(0, length) == possible[0]
    assert table.least(0, 901) in (NEVER, next(one for one in possible if one > 900))


def test_what_is_expected_is_said_in_full():
    declared = Modality(
        name="notes", codebooks=(160,), begin="<n>", end="</n>", code_token="<n{}>",
        frames=Frames(minimum=2, maximum=8, step=2),
        automaton=Automaton(start="pitch", final=("pitch",), arcs={
            "pitch": (Arc((*range(5), 7, *range(9, 128)), "length"),), "length": (Arc(range(128, 160), "pitch"),)}),
    )  # fmt: skip
    table = span_table(declared)
    with pytest.raises(DataError) as refused:
        check_codes(table, np.array([[3, 130, 5, 130]]))
    assert str(refused.value) == "code 5 at frame 2: in state `pitch` come codes 0 to 4, 7, 9 to 127 or the end"
    grammar = AutomatonGrammar(table)
    grammar.advance(0, 3)
    with pytest.raises(
        ValueError, match="code 3 of codebook 0 may not follow after 1 codes of this span, in state `le"
    ):
        grammar.advance(0, 3)
