"""What is refused of an automaton's declaration, and what an accepted one says about itself."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from mio import Arc, Automaton, Frames, Modality
from mio.core.contract.validation import modality_problems

NOTES = Modality(
    name="notes",
    codebooks=(160,),
    begin="<n>",
    end="</n>",
    code_token="<n{}>",
    frames=Frames(minimum=2, maximum=512, step=2),
    automaton=Automaton(
        start="pitch",
        arcs={"pitch": (Arc(range(128), "length"),), "length": (Arc(range(128, 160), "pitch"),)},
        final=("pitch",),
    ),
)
PAIRS = replace(
    NOTES,
    codebooks=(4, 8),
    layout="frame_major",
    frames=Frames(),
    automaton=Automaton(
        start="a", arcs={"a": (Arc((0, 3), "b"), Arc((1,), "c")), "b": (Arc(range(8), "a"),), "c": (Arc((7,), "a"),)},
        final=("a",),
    ),
)  # fmt: skip


def with_arcs(declared, final=None, start=None, other=None, **arcs):
    """The declaration with other arcs, final states or another start."""
    old = declared.automaton
    arcs = {**old.arcs, **(other or {}), **arcs}
    return replace(declared, automaton=Automaton(start=start or old.start, arcs=arcs, final=final or old.final))


@pytest.mark.parametrize("declared", [NOTES, PAIRS])
def test_what_is_right_is_accepted(declared):
    assert modality_problems(declared) == []


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (replace(NOTES, automaton=("pitch",)), "`automaton`: ('pitch',) must be a `mio.Automaton`"),
        (replace(NOTES, layout="delayed"), "goes with the layouts `flat` and `frame_major` alone, not `delayed`"),
        (replace(NOTES, codebooks=(), code_token=""), "`automaton`: needs `codebooks`"),
        (
            replace(PAIRS, views={"understand": (0,)}),
            "`views.understand`: with an `automaton` a view has all 2 codebooks",
        ),
        (
            replace(NOTES, automaton=Automaton(start="x", arcs=[], final="x")),
            "`automaton.arcs`: list must be a mapping",
        ),
        (with_arcs(NOTES, final="pitch"), "`automaton.final`: 'pitch' must be a tuple of states"),
        (replace(NOTES, automaton=Automaton(start="a", arcs={"a": ()}, final=())), "`automaton.final`: names no state"),
        (with_arcs(NOTES, pitch=Arc(range(3), "length")), "state `pitch`: must be a tuple of `mio.Arc`"),
        (with_arcs(NOTES, pitch=(Arc(range(0), "length"),)), "state `pitch`: codes range(0, 0) must be"),
        (with_arcs(NOTES, pitch=(Arc((1.0,), "length"),)), "state `pitch`: codes (1.0,) must be a `range` or a tuple"),
        (with_arcs(NOTES, start=["bar"]), "`automaton.start`: the state ['bar'] must be hashable"),
        (with_arcs(NOTES, final=(["bar"],)), "`automaton.final`: the state ['bar'] must be hashable"),
        (with_arcs(NOTES, pitch=(Arc(range(3), ["bar"]),)), "`automaton.arcs`: the state ['bar'] must be hashable"),
        (with_arcs(NOTES, pitch=(Arc((3, 5, 3), "length"),)), "state `pitch`: code 3 is on an arc twice"),
        (with_arcs(NOTES, start="bar"), "`automaton.start`: there is no state `bar`"),
        (with_arcs(NOTES, pitch=(Arc(range(9), "len"),)), "state `pitch`: leads to `len`, which is no state"),
        (with_arcs(NOTES, bar=(Arc(range(9), "pitch"),)), "state `bar`: no span comes to it from the start"),
        (
            with_arcs(NOTES, pitch=(Arc((0,), "bar"), Arc((1,), "length")), bar=(Arc((3,), "bar"),)),
            "state `bar`: no span that comes to it can end",
        ),
        (
            with_arcs(NOTES, pitch=(Arc(range(128), "length"), Arc((5, 127), "pitch"))),
            "state `pitch`: code 5 is on two of its arcs",
        ),
        (
            with_arcs(NOTES, pitch=(Arc(range(128), "length"), Arc((127, 5), "length"))),
            "state `pitch`: code 5 is on two of its arcs",
        ),
        (
            with_arcs(NOTES, length=(Arc(range(128, 161), "pitch"),)),
            "state `length`: code 160 is outside codebook 0 of 160",
        ),
        (
            with_arcs(NOTES, length=(Arc(range(-1, 1), "pitch"),)),
            "state `length`: code -1 is outside codebook 0 of 160",
        ),
        (with_arcs(PAIRS, a=(Arc((0, 4), "b"), Arc((1,), "c"))), "state `a`: code 4 is outside codebook 0 of 4 codes"),
        (
            with_arcs(PAIRS, c=(Arc((7,), "b"),)),
            "state `b`: its codes are of codebook 1 and, behind `c`, of codebook 0",
        ),
        (
            with_arcs(PAIRS, final=("a", "b")),
            "state `b`: a span that ends there has 1 of the 2 codes of its last frame",
        ),
        (with_arcs(NOTES, other={("bar", 3): (Arc((0,), "pitch"),)}), "state `bar 3`: no span comes to it"),
        (replace(NOTES, frames=Frames(step=0)), "`frames.step`: 0 must be at least 1"),
        (replace(NOTES, frames=Frames(step=1.5)), "a `mio.Frames` of whole numbers"),
    ],
)
def test_each_fault_is_named_with_its_state(declared, message):
    problems = modality_problems(declared)
    assert any(message in problem for problem in problems), problems


def test_lengths_go_in_steps():
    frames = Frames(minimum=9, maximum=40, step=9)
    assert [count for count in range(60) if count in frames] == [9, 18, 27, 36]
    assert frames.longest == 36
    assert str(frames) == "9 to 36 in steps of 9"


def test_a_fingerprint_follows_from_the_spans_and_not_from_labels():
    renamed = Automaton(
        start=0,
        arcs={1: (Arc(range(140, 160), 0), Arc(range(128, 140), 0)), 0: (Arc(tuple(range(128)), 1),)},
        final=[0],
    )
    assert renamed.fingerprint == NOTES.automaton.fingerprint
    assert with_arcs(NOTES, pitch=(Arc(range(127), "length"),)).automaton.fingerprint != renamed.fingerprint
    assert with_arcs(NOTES, final=("pitch", "length")).automaton.fingerprint != renamed.fingerprint


def test_an_automaton_is_a_value():
    NOTES.automaton.fingerprint  # noqa: B018 - computes what must not be pickled
    copy = pickle.loads(pickle.dumps(NOTES))
    assert copy == NOTES
    assert hash(copy.automaton) == hash(NOTES.automaton)
    assert "runs" not in vars(copy.automaton)
