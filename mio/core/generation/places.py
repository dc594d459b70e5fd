"""The part of the vocabulary that may come in each state of an answer, made once per state. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple

from mio.core.contract.span_table import Codes, SpanTable
from mio.core.contract.values import TEXT, Modality
from mio.core.generation.states import Inserted, Inside, Place, State, Window
from mio.core.tokens.documents import GENERATE
from mio.core.tokens.vocabulary import Vocabulary

_KEPT = 1024
"""Places that are kept."""


class Places:
    """Places by state, of one vocabulary; shared by all answers.

    Args:
        spans: modalities whose spans are of codes, by name.
        tables: of the automata of those that declare one.
        opens: tokens that open a span.
        stop: the token that ends an answer.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        spans: Mapping[str, Modality],
        tables: Mapping[str, SpanTable],
        opens: Iterable[int],
        stop: int,
    ) -> None:
        self._vocabulary = vocabulary
        self._spans = spans
        self._tables = tables
        self._stop = stop
        self._marks = {stop, *opens, *vocabulary.controls.by_id}
        self.kept: dict[State, Place] = {}
        self._windows: dict[bool, Window] = {}
        """Between spans, by whether text may come."""
        self._of_codes: dict[tuple[str | int, ...], Window] = {}
        """Of modalities with an automaton, by codebook and whether the end may come."""

    def of(self, state: State) -> Place:
        """What may come next in a state."""
        place = self.kept.get(state)
        if place is None:
            if len(self.kept) >= _KEPT:  # control tokens of plain text may bar ever other ids
                self.kept.clear()
            place = self.kept[state] = self._made(state)
        return place

    def _made(self, state: State) -> Place:
        vocabulary = self._vocabulary
        if isinstance(state, Inside):
            if state.choice >= 0:
                return self._of_choice(state)
            view = self._spans[state.modality].view(GENERATE)
            blocks = [vocabulary.code_ids(state.modality, view[place]) for place in state.codebooks]
            return Place(Window(blocks, [vocabulary.end(state.modality)] if state.may_end else ()))
        if isinstance(state, Inserted):
            return Place(Window((), [state.token]))
        text = TEXT in state.openable
        may_come = {vocabulary.begin(name) for name in state.openable if name != TEXT}
        may_come |= {vocabulary.controls.ids[name][0] for name in state.controls}
        may_come |= {self._stop} if state.may_stop else set()
        return Place(self._between(text), [*(self._marks - may_come), *(state.barred if text else ())])

    def _of_choice(self, state: Inside) -> Place:
        """Some codes of a codebook. All choices of them share a window, so that answers in different states of an
        automaton are scored together."""
        name, end = state.modality, self._vocabulary.end(state.modality)
        ends = [end] if state.may_end else []
        if not state.codebooks:
            return Place(Window((), ends))
        key: tuple[str | int, ...] = (name, *state.codebooks, state.may_end)
        ids = self._vocabulary.code_ids(name, state.codebooks[0])
        if key not in self._of_codes:
            self._of_codes[key] = Window([ids], ends)
        codes = self._tables[name].choices[state.choice]
        return Place(self._of_codes[key], [token for run in _others(codes, ids) for token in run])

    def _between(self, text: bool) -> Window:
        """Between spans: text, and what opens a span, says something about the conversation, or ends the answer."""
        if text not in self._windows:
            block = self._vocabulary.blocks[0].ids
            never = set(astuple(self._vocabulary.specials)) - self._marks if text else ()
            beside = [one for one in self._marks if not (text and one in block)]
            self._windows[text] = Window([block] if text else [], beside, never)
        return self._windows[text]


def _others(codes: Codes, ids: range) -> Iterator[range]:
    """Ids of a codebook but for those of some codes, as runs."""
    start = 0
    for first, end in codes:
        yield ids[start:first]
        start = end
    yield ids[start:]
