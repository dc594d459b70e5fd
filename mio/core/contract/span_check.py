"""What is wrong with the parts, lengths and automaton that a modality declares; of an automaton with the state."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import pairwise

from mio.core.contract.automata import Arc, Automaton, runs_of, state_name
from mio.core.contract.span_table import span_table
from mio.core.contract.values import Frames, Modality
from mio.core.errors import PluginError

LAYOUTS = ("flat", "frame_major")
"""Layouts in which the place of a code says its codebook, whatever the length of the span."""
_REPORTED = 5
"""Problems of one kind that are named one by one."""


def frames_problems(declared: Modality) -> list[str]:
    """What is wrong with a modality's `frames`."""
    frames = declared.frames
    problems = []
    if frames.minimum < 1:
        problems.append(f"`frames.minimum`: {frames.minimum} must be at least 1")
    if frames.maximum < frames.minimum:
        problems.append(f"`frames.maximum`: {frames.maximum} is below the minimum, {frames.minimum}")
    if frames.step < 1:
        problems.append(f"`frames.step`: {frames.step} must be at least 1")
    return problems


def part_problems(declared: Modality) -> list[str]:
    """What is wrong with a modality's `parts`."""
    problems = []
    problems += [
        f"`{name}`: the parts are spans with borders of their own, one after the other; leave `{name}` out"
        for name in ("begin", "end")
        if declared.parts and getattr(declared, name)
    ]
    if declared.name in declared.part_names:
        problems.append("`parts`: names the modality itself")
    if isinstance(declared.parts, tuple) and declared.parts:
        if len(declared.parts) < 2 or len(set(declared.parts)) < len(declared.parts):
            problems.append(f"`parts`: {declared.parts!r} must be two or more different modalities, of which an item "
                            "has one span each; a string is the one modality of any number of parts")  # fmt: skip
        if declared.frames != Frames():
            problems.append("`frames`: an item of several `parts` has one span of each; leave `frames` out")
    elif declared.parts and declared.frames.step != 1:
        problems.append("`frames.step`: numbers of parts go in steps of one")
    return problems


def automaton_problems(declared: Modality) -> list[str]:
    """Everything wrong with a modality's `automaton`, whose other fields are well."""
    automaton = declared.automaton
    assert automaton is not None
    if problems := [*_place_problems(declared), *_type_problems(automaton)]:
        return problems
    problems = [*_state_problems(automaton)]
    if not problems:
        problems = [*_path_problems(automaton), *_code_problems(automaton, declared.codebooks)]
    return problems or [*_length_problems(declared)]


def _place_problems(declared: Modality) -> Iterator[str]:
    if not declared.codebooks:
        yield "`automaton`: needs `codebooks`"
    elif declared.layout not in LAYOUTS:
        fitting = " and ".join(f"`{name}`" for name in LAYOUTS)
        yield f"`automaton`: goes with the layouts {fitting} alone, not `{declared.layout}`"
    for name in declared.views:
        if len(declared.view(name)) != len(declared.codebooks):
            yield f"`views.{name}`: with an `automaton` a view has all {len(declared.codebooks)} codebooks"


def _type_problems(automaton: Automaton) -> Iterator[str]:
    if not isinstance(automaton.arcs, Mapping):
        yield f"`automaton.arcs`: {type(automaton.arcs).__name__} must be a mapping of states to their arcs"
        return
    named = [("start", automaton.start), *(("arcs", arc.to) for arc in _arcs(automaton))]
    if isinstance(automaton.final, Sequence) and not isinstance(automaton.final, str):
        named += [("final", state) for state in automaton.final]
    for name, state in named:
        if not isinstance(state, Hashable):
            yield f"`automaton.{name}`: the state {state!r:.80} must be hashable, as a string, a number or a tuple is"
            return
    if isinstance(automaton.final, str) or not isinstance(automaton.final, Sequence | set | frozenset):
        yield f"`automaton.final`: {automaton.final!r} must be a tuple of states"
    elif not automaton.final:
        yield "`automaton.final`: names no state, a span could never end"
    for state, arcs in automaton.arcs.items():
        if isinstance(arcs, Arc) or not isinstance(arcs, Sequence) or not all(isinstance(arc, Arc) for arc in arcs):
            yield f"`automaton.arcs`, state `{state_name(state)}`: must be a tuple of `mio.Arc`"
            continue
        yield from (
            f"`automaton.arcs`, state `{state_name(state)}`: codes {arc.codes!r:.80} must be a `range` or a tuple of "
            "whole numbers, of at least one"
            for arc in arcs
            if not _is_code_set(arc.codes)
        )


def _arcs(automaton: Automaton) -> Iterator[Arc]:
    for arcs in automaton.arcs.values():
        yield from (arc for arc in arcs if isinstance(arc, Arc)) if isinstance(arcs, Sequence) else ()


def _is_code_set(codes: object) -> bool:
    if isinstance(codes, range):
        return len(codes) > 0
    return isinstance(codes, tuple) and bool(codes) and all(type(code) is int for code in codes)


def _state_problems(automaton: Automaton) -> Iterator[str]:
    """States that are named and not there."""
    known = {*automaton.arcs, *automaton.final}
    if automaton.start not in known:
        yield f"`automaton.start`: there is no state `{state_name(automaton.start)}`"
    unknown = {arc.to: state for state, arcs in automaton.arcs.items() for arc in arcs if arc.to not in known}
    yield from _few(
        [f"`automaton.arcs`, state `{state_name(state)}`: leads to `{state_name(to)}`, which is no state: it has no "
         "arcs and no span ends there" for to, state in unknown.items()]
    )  # fmt: skip


def _path_problems(automaton: Automaton) -> Iterator[str]:
    """States out of reach, and those that lead to no end."""
    lost = {*automaton.arcs, *automaton.final} - set(automaton.states)
    yield from _few([f"`automaton`, state `{state_name(state)}`: no span comes to it from the start"
                     for state in _in_order(automaton, lost)])  # fmt: skip
    before: list[list[int]] = [[] for _ in automaton.states]
    for number, runs in enumerate(automaton.runs):
        for run in runs:
            before[run.to].append(number)
    ending = [number for number, end in enumerate(automaton.ends) if end]
    well = set(ending)
    for number in ending:
        new = set(before[number]) - well
        well |= new
        ending += new
    yield from _few([f"`automaton`, state `{state_name(state)}`: no span that comes to it can end"
                     for number, state in enumerate(automaton.states) if number not in well])  # fmt: skip


def _code_problems(automaton: Automaton, codebooks: tuple[int, ...]) -> Iterator[str]:
    """Codes of two arcs of one state, those outside their codebook, and states of two codebooks."""
    problems = []
    for state, runs in zip(automaton.states, automaton.runs, strict=True):
        own = sorted(run for arc in automaton.arcs.get(state, ()) for run in set(runs_of(arc.codes)))
        again = next((second[0] for first, second in pairwise(own) if second[0] < first[1]), None)
        twice = next((second.first for first, second in pairwise(runs) if second.first < first.end), None)
        if again is not None:
            problems.append(f"`automaton.arcs`, state `{state_name(state)}`: code {again} is on two of its arcs")
        elif twice is not None:
            problems.append(f"`automaton.arcs`, state `{state_name(state)}`: code {twice} is on an arc twice")
    phases: dict[int, int] = {0: 0}
    waiting = [0]
    for number in waiting:
        phase, state = phases[number], state_name(automaton.states[number])
        after = (phase + 1) % len(codebooks)
        size = codebooks[phase]
        for first, end, to in automaton.runs[number]:
            if first < 0 or end > size:
                wrong = first if first < 0 or first >= size else size
                problems.append(
                    f"`automaton.arcs`, state `{state}`: code {wrong} is outside codebook {phase} of {size} codes"
                )
            if to not in phases:
                phases[to] = after
                waiting.append(to)
            elif phases[to] != after:
                problems.append(
                    f"`automaton`, state `{state_name(automaton.states[to])}`: its codes are of codebook {phases[to]} "
                    f"and, behind `{state}`, of codebook {after}; take a state for each"
                )
        if automaton.ends[number] and phase:
            problems.append(
                f"`automaton.final`, state `{state}`: a span that ends there has {phase} of the {len(codebooks)} codes "
                "of its last frame"
            )
    return _few(problems)


def _length_problems(declared: Modality) -> Iterator[str]:
    """Frames that no span has."""
    try:
        table = span_table(declared)
    except PluginError as error:
        yield str(error)
        return
    if table is not None and not table.possible:
        frames, least = declared.frames, table.least(0, 0) // table.codebooks
        of_any_length = f"; the shortest has {least} frames" if least < frames.minimum else ""
        yield f"`frames`: no span of the `automaton` has {frames} frames{of_any_length}"


def _in_order(automaton: Automaton, states: set[Hashable]) -> list[Hashable]:
    """As they are declared."""
    return [state for state in dict.fromkeys([*automaton.arcs, *automaton.final]) if state in states]


def _few(problems: Sequence[str]) -> Iterator[str]:
    yield from problems[:_REPORTED]
    if len(problems) > _REPORTED:
        yield f"`automaton`: and {len(problems) - _REPORTED} more of this kind"
