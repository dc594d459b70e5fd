import itertools
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mio import Frames
from mio.core.errors import DataError, PluginError
from mio.core.tokens.layouts import LAYOUTS, layout

MULTI = ["codebook_major", "frame_major", "delayed"]


def reference_order(name: str, codebooks: int, frames: int) -> list[tuple[int, int]]:
    """(codebook, frame) of each position, straight from the definition."""
    if name in ("flat", "codebook_major"):
        return [(q, f) for q in range(codebooks) for f in range(frames)]
    if name == "frame_major":
        return [(q, f) for f in range(frames) for q in range(codebooks)]
    steps = range(frames + codebooks - 1)
    return [(q, t - q) for t in steps for q in range(codebooks) if 0 <= t - q < frames]


@st.composite
def grids(draw):
    name = draw(st.sampled_from(sorted(LAYOUTS)))
    codebooks = 1 if name == "flat" else draw(st.integers(1, 6))
    frames = draw(st.integers(1, 12))
    codes = draw(st.lists(st.integers(0, 9999), min_size=codebooks * frames, max_size=codebooks * frames))
    return name, np.array(codes).reshape(codebooks, frames)


@given(grids())
def test_flatten_follows_the_definition_and_parse_inverts_it(case):
    name, codes = case
    codebook, code = layout(name).flatten(codes)
    expected = reference_order(name, *codes.shape)
    assert list(zip(codebook.tolist(), code.tolist(), strict=True)) == [(q, codes[q, f]) for q, f in expected]
    assert (layout(name).parse(codebook, code, len(codes)) == codes).all()


def test_delay_pattern_of_three_codebooks():
    # Copet et al. 2023, figure 1 (delay pattern): the padding codes of the first and last steps left out
    codebook, code = layout("delayed").flatten(np.array([[11, 12, 13], [21, 22, 23], [31, 32, 33]]))
    assert code.tolist() == [11, 12, 21, 13, 22, 31, 23, 32, 33]
    assert codebook.tolist() == [0, 0, 1, 0, 1, 2, 1, 2, 2]


@given(grids(), st.data())
def test_a_changed_codebook_sequence_does_not_parse(case, data):
    name, codes = case
    codebook, code = layout(name).flatten(codes)
    at = data.draw(st.integers(0, len(codebook) - 1))
    wrong = codebook.copy()
    wrong[at] = (wrong[at] + data.draw(st.integers(1, 7))) % 8
    with pytest.raises(DataError, match=f"code {at} of the span is of codebook {wrong[at]}"):
        layout(name).parse(wrong, code, len(codes))


@pytest.mark.parametrize("name", MULTI)
def test_an_incomplete_grid_does_not_parse(name):
    codebook, code = layout(name).flatten(np.arange(12).reshape(4, 3))
    with pytest.raises(DataError, match="11 codes are not a whole number of frames of 4 codebooks"):
        layout(name).parse(codebook[:-1], code[:-1], 4)


def test_unknown_and_unfitting_layouts():
    with pytest.raises(PluginError, match="no layout `spiral`; choose one of flat"):
        layout("spiral")
    with pytest.raises(PluginError, match="`flat` carries one codebook, not 2"):
        layout("flat").flatten(np.zeros((2, 3), dtype=np.int64))
    with pytest.raises(PluginError, match="`flat` carries one codebook"):
        layout("flat").grammar(2, Frames())


def permitted(grammar, prefix=()):
    """All sequences that a grammar permits, and the fewest tokens to the end that `remaining` must be."""
    codebooks, may_end = grammar.allowed()
    shortest = 1 if may_end else np.inf
    sequences = {prefix} if may_end else set()
    for codebook in codebooks:
        after = deepcopy(grammar)
        after.advance(codebook)
        more, rest = permitted(after, (*prefix, codebook))
        sequences |= more
        shortest = min(shortest, 1 + rest)
    assert grammar.remaining() == shortest
    return sequences, shortest


SHAPES = [
    (name, codebooks, Frames(minimum=minimum, maximum=maximum, step=step))
    for name in LAYOUTS
    for codebooks in ([1] if name == "flat" else [1, 2, 3, 4])
    for minimum, maximum in itertools.combinations_with_replacement([1, 2, 3, 4], 2)
    for step in (1, 2, 3)
    if step == 1 or step <= maximum - minimum
]


@pytest.mark.parametrize(("name", "codebooks", "frames"), SHAPES)
def test_the_grammar_permits_exactly_the_flattened_grids(name, codebooks, frames):
    sequences, _ = permitted(layout(name).grammar(codebooks, frames))
    counts = range(frames.minimum, frames.maximum + 1, frames.step)
    assert sequences == {tuple(q for q, _ in reference_order(name, codebooks, count)) for count in counts}


@st.composite
def grammars(draw):
    name = draw(st.sampled_from(sorted(LAYOUTS)))
    codebooks = 1 if name == "flat" else draw(st.integers(1, 8))
    minimum = draw(st.integers(1, 20))
    maximum = draw(st.integers(minimum, 40))
    return name, codebooks, Frames(minimum=minimum, maximum=maximum, step=draw(st.integers(1, 5)))


@given(grammars(), st.randoms(use_true_random=False), st.integers(0, 40))
def test_a_walk_within_its_budget_always_ends_in_a_grid(case, random, spare):
    name, codebooks, frames = case
    grammar = layout(name).grammar(codebooks, frames)
    budget = grammar.remaining() + spare
    written = []
    while True:
        choices, may_end = grammar.allowed(budget)
        assert grammar.remaining() <= budget
        assert choices or may_end
        if may_end and (not choices or random.random() < 0.05):
            break
        written.append(random.choice(choices))
        grammar.advance(written[-1])
        budget -= 1
    assert budget >= 1  # the end token
    codes = layout(name).parse(np.array(written), np.arange(len(written)), codebooks)
    assert codes.shape[1] in range(frames.minimum, frames.maximum + 1, frames.step)


@given(grammars(), st.data())
def test_every_grid_within_the_frames_is_permitted(case, data):
    name, codebooks, frames = case
    count = data.draw(st.sampled_from(range(frames.minimum, frames.maximum + 1, frames.step)))
    grammar = layout(name).grammar(codebooks, frames)
    for codebook, _ in reference_order(name, codebooks, count):
        assert codebook in grammar.allowed()[0]
        grammar.advance(codebook)
    assert grammar.allowed()[1]
    assert grammar.remaining() == 1


def test_the_grammar_refuses_what_it_does_not_allow():
    grammar = layout("codebook_major").grammar(2, Frames(minimum=2, maximum=3))
    with pytest.raises(ValueError, match="a code of codebook 1 may not follow after 0 codes"):
        grammar.advance(1)
