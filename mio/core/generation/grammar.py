"""Which token may come next, so that every answer can be decoded.

Between spans: text, the opening of a span, or the stop token. Inside a span: only the codes that its layout allows at
that place, and its end only where the layout is complete. A token budget is kept, so a span is never cut off by it.
Everything follows from the modality declarations; V is the vocabulary's number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from mio.core.contract.values import TEXT, Modality
from mio.core.errors import UserError
from mio.core.runs.run import Run
from mio.core.tokens.layouts import SpanGrammar, layout
from mio.core.tokens.templates import CHAT
from mio.core.tokens.vocabulary import Vocabulary

_State = tuple[str, tuple[int, ...] | tuple[str, ...], bool]


@dataclass(frozen=True)
class Need:
    """Spans that an answer must and may have. `most` 0 means any number."""

    modality: str = ""
    """Modality whose spans are counted; empty: nothing is needed."""
    least: int = 0
    most: int = 0
    only: bool = False
    """Spans of no other modality may be opened."""
    together: bool = False
    """The spans follow each other without anything between them: they are the parts of one item."""


def need_of(output: str, modalities: Mapping[str, Modality], only: bool) -> Need:
    """What an answer in modality `output` needs. Raises `UserError` for a modality that the recipe does not have."""
    if not output:
        return Need()
    if output not in modalities:
        raise UserError(f"no modality `{output}` in this run; it has {', '.join(sorted(modalities))}")
    declared = modalities[output]
    if declared.parts:
        return Need(declared.parts, declared.frames.minimum, declared.frames.maximum, only, together=True)
    if declared.codebooks:
        return Need(output, 1, 1 if only else 0, only)
    return Need(only=only)


class Grammar:
    """The token masks of one vocabulary, made when first needed and shared by all answers."""

    def __init__(self, vocabulary: Vocabulary, modalities: Mapping[str, Modality], stop: int) -> None:
        self.vocabulary = vocabulary
        self.stop = stop
        self.spans = {name: declared for name, declared in modalities.items() if declared.codebooks}
        self.opens = {vocabulary.begin(name): name for name in self.spans}
        self.shortest = {name: 1 + self.span(name).remaining() for name in self.spans}
        """Fewest tokens of a whole span, markers included."""
        self._places = {
            name: {int(vocabulary.block_of[vocabulary.code_ids(name, q).start]): place for place, q in enumerate(view)}
            for name, view in ((name, declared.view("generate")) for name, declared in self.spans.items())
        }
        self._rows: dict[_State, int] = {}
        self._masks: list[Tensor] = []
        self._table: Tensor | None = None

    @classmethod
    def of(cls, run: Run) -> Grammar:
        """Of the answers of a run, which stop as its training documents do."""
        specials = run.vocabulary.specials
        stop = specials.im_end if run.recipe.data.form == CHAT else specials.eos
        return cls(run.vocabulary, run.codecs.modalities, stop)

    def span(self, name: str) -> SpanGrammar:
        """Grammar of a span of modality `name` as it is written."""
        declared = self.spans[name]
        return layout(declared.layout).grammar(len(declared.view("generate")), declared.frames)

    def least(self, need: Need) -> int:
        """Fewest tokens of an answer that has what is needed, the stop token included."""
        return need.least * self.shortest.get(need.modality, 0) + 1

    def index_in_view(self, name: str, token: int) -> int:
        """Place of a code's codebook among those that a span of modality `name` is written with."""
        return self._places[name][int(self.vocabulary.block_of[token])]

    def row(self, state: _State) -> int:
        """Row of `table` for a state: `("", openable modalities, may stop)` or `(modality, codebooks, may end)`."""
        if state not in self._rows:
            self._rows[state] = len(self._masks)
            self._masks.append(self._mask(*state))
            self._table = None
        return self._rows[state]

    def table(self, device: torch.device) -> Tensor:
        """All masks made so far, bool `[states, V]`, true for tokens that may come."""
        if self._table is None or self._table.device != device:
            self._table = torch.stack(self._masks).to(device)
        return self._table

    def _mask(self, modality: str, choices: Sequence[int | str], may_end: bool) -> Tensor:
        vocabulary = self.vocabulary
        mask = torch.zeros(vocabulary.rows, dtype=torch.bool)
        if modality:
            view = self.spans[modality].view("generate")
            for index in choices:
                ids = vocabulary.code_ids(modality, view[int(index)])
                mask[ids.start : ids.stop] = True
            if may_end:
                mask[vocabulary.end(modality)] = True
            return mask
        if TEXT in choices:
            ids = vocabulary.blocks[0].ids
            mask[ids.start : ids.stop] = True
            mask[list(astuple(vocabulary.specials))] = False
        for name in choices:
            if name in self.spans:
                mask[vocabulary.begin(str(name))] = True
        mask[self.stop] = may_end
        return mask


class AnswerGrammar:
    """State of one answer. `budget` is the most tokens that it may have, the stop token included."""

    def __init__(self, grammar: Grammar, need: Need, budget: int) -> None:
        least = grammar.least(need)
        if budget < least:
            raise UserError(
                f"{budget} tokens are too few for the answer: {need.least} span(s) of `{need.modality}` take "
                f"{least}; raise the number of tokens"
            )
        self.done = False
        self.budget = budget
        self._grammar = grammar
        self._need = need
        self._spans = 0
        self._last = ""
        """Modality of the span just before this place; empty after text."""
        self._name = ""
        self._span: SpanGrammar | None = None

    @property
    def in_span(self) -> bool:
        """Whether the next token lies inside a span."""
        return self._span is not None

    def row(self) -> int:
        """Row of the grammar's table that the next token must satisfy."""
        return self._grammar.row(self._in_span_state() if self._span is not None else self._between_state())

    def _owed(self) -> int:
        """Tokens that must still come after the present span, or from here if there is none."""
        missing = max(0, self._need.least - self._spans)
        return missing * self._grammar.shortest.get(self._need.modality, 0) + 1

    def _in_span_state(self) -> _State:
        assert self._span is not None
        codebooks, may_end = self._span.allowed(self.budget - self._owed())
        return self._name, codebooks, may_end

    def _between_state(self) -> _State:
        need, grammar = self._need, self._grammar
        owed = self._owed()
        if need.together and 0 < self._spans < need.least:
            return "", (need.modality,), False
        choices: list[str] = [TEXT] if 1 + owed <= self.budget else []
        for name in grammar.spans:
            wanted = name == need.modality
            if need.only and not wanted:
                continue
            if wanted and need.most and self._spans >= need.most:
                continue
            if wanted and need.together and self._spans and self._last != name:
                continue
            after = owed - (grammar.shortest[name] if wanted and self._spans < need.least else 0)
            if grammar.shortest[name] + after <= self.budget:
                choices.append(name)
        return "", tuple(choices), self._spans >= need.least

    def advance(self, token: int) -> None:
        """Takes the token that was chosen; it must satisfy `row()`."""
        grammar = self._grammar
        self.budget -= 1
        if self._span is not None:
            if token == grammar.vocabulary.end(self._name):
                self._span = None
                self._last = self._name
                return
            self._span.advance(grammar.index_in_view(self._name, token))
        elif token == grammar.stop:
            self.done = True
        elif token in grammar.opens:
            self._name = grammar.opens[token]
            self._span = grammar.span(self._name)
            self._spans += self._name == self._need.modality
        else:
            self._last = ""
