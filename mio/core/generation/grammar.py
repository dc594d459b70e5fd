"""Which token may come next, so that every answer can be decoded.

Between spans: text, the opening of a span, a control token where it may come, or the stop token. Inside a span: only
the codes that its layout allows at that place, and its end only where the layout is complete. Of a span whose media a
head makes, the opening alone is chosen (see `making.py`). A token budget is kept, so a span is never cut off by it.
What control tokens do to the answer that they are said in is done here, for batches of answers and for live
conversations alike. Everything follows from the declarations; V is the vocabulary's number of rows.
"""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from mio.core.contract.controls import ENDS, ControlToken
from mio.core.contract.span_table import span_table
from mio.core.contract.values import TEXT, Modality, Template
from mio.core.errors import UserError
from mio.core.generation.places import Places
from mio.core.generation.states import Between, Inserted, Inside, Place, State
from mio.core.tokens.automata import AutomatonGrammar
from mio.core.tokens.controls import ControlReader
from mio.core.tokens.item_encoders import only_read
from mio.core.tokens.layouts import SpanGrammar, layout
from mio.core.tokens.templates import CHAT, CompiledTemplate, to_document
from mio.core.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from mio.core.generation.model import Model


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
    others: int = 0
    """Most spans of each other modality; 0 means any number."""
    order: tuple[str, ...] = ()
    """Of an item with one part each of several modalities: these, of which `modality` is the first. Their spans come in
    this order and nowhere else."""

    @property
    def counted(self) -> tuple[str, ...]:
        """Modalities whose spans are counted."""
        return self.order or (self.modality,)

    def owed(self, spans: int) -> tuple[str, ...]:
        """Modalities of the spans that an answer with so many of them must still have, in order."""
        return self.order[spans:] if self.order else (self.modality,) * (self.least - spans)


def need_of(
    output: str,
    modalities: Mapping[str, Modality],
    only: bool,
    made: Container[str] = (),
    most: int = 0,
    undecodable: Container[str] = (),
) -> Need:
    """What an answer in modality `output` needs, of media of which heads make those that are `made`, and of which it
    holds at most so many of each modality (0: any number). Raises `UserError` for a modality that the recipe does not
    have or that is only read, as those are whose codes are `undecodable`, and where so many are not allowed."""
    if not output:
        return Need(others=most)
    if output not in modalities:
        raise UserError(f"no modality `{output}` in this run; it has {', '.join(sorted(modalities))}")
    declared = modalities[output]
    if only_read(modalities, output, made):
        raise UserError(f"`{output}` is only read, by an encoder: no answer can be of it")
    if lacking := [one for one in (output, *declared.part_names) if one in undecodable]:
        raise UserError(
            f"`{lacking[0]}` is only read: with the recipe's options no plugin supplies a detokenizer for it, so no "
            f"answer can be of {'it' if lacking[0] == output else f'`{output}`'}"
        )
    if declared.parts:
        if most > 1:
            raise UserError(f"an answer in `{output}` is one item: no more of them can be asked for")
        counts, names = declared.part_counts, declared.part_names
        order = names if isinstance(declared.parts, tuple) else ()
        return Need(names[0], counts.minimum, counts.maximum, only, True, most, order)
    if declared.codebooks or output in made:
        return Need(output, 1, most or int(only), only, others=most)
    return Need(only=only, others=most)


class HeadSpan(NamedTuple):
    """A span whose media a head makes."""

    own: int
    """Positions of the head's own, while it makes them."""
    read: int
    """Most positions by which an encoder reads them back."""


class Grammar:
    """What may come in each state of an answer, of one vocabulary; shared by all answers."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        modalities: Mapping[str, Modality],
        stop: int,
        unasked: Mapping[str, Sequence[int]] = MappingProxyType({}),
        heads: Mapping[str, HeadSpan] = MappingProxyType({}),
    ) -> None:
        self.vocabulary = vocabulary
        self.stop = stop
        self._unasked = unasked
        self.heads = heads
        """Spans that are made by heads, by modality."""
        self.ends = {name: vocabulary.end(name) for name in heads if modalities[name].end}
        """What closes them, where there is such a token."""
        self.spans = {name: one for name, one in modalities.items() if one.codebooks and name not in heads}
        """Modalities whose spans are of codes."""
        self.tables = {name: table for name, one in self.spans.items() if (table := span_table(one)) is not None}
        """Of the automata of modalities that declare one."""
        self.shortest = {name: self._shortest(name) for name in modalities if name in self.spans or name in heads}
        """Fewest tokens of a whole span, markers included, of each modality that can be written. Of one that a head
        makes, the most."""
        self.opens = {vocabulary.begin(name): name for name in self.shortest}
        self._in_view = {
            name: {int(vocabulary.block_of[vocabulary.code_ids(name, q).start]): place for place, q in enumerate(view)}
            for name, view in ((name, declared.view("generate")) for name, declared in self.spans.items())
        }
        self._starts = {name: [vocabulary.code_ids(name, q).start for q in one.view("generate")]
                        for name, one in self.spans.items()}  # fmt: skip
        openings = (max(count, self.while_made(name)) for name, count in self.shortest.items())
        self.longest = max((0, *openings, *map(len, vocabulary.controls.inserts.values())))
        """Most tokens that must be left, beside one and those that are owed, for anything to come."""
        self._places = Places(vocabulary, self.spans, self.tables, self.opens, stop)

    @classmethod
    def of(cls, model: Model) -> Grammar:
        """Of the answers of a model, which stop as its training documents do."""
        specials = model.vocabulary.specials
        stop = specials.im_end if model.recipe.data.form == CHAT else specials.eos
        codecs = model.codecs
        heads = {name: HeadSpan(one.head.writes, codecs.made_positions(name)) for name, one in codecs.makers.items()}
        decodable = {name: one for name, one in codecs.modalities.items() if name not in codecs.undecodable}
        return cls(model.vocabulary, decodable, stop, _unasked(model), heads)

    @property
    def chosen(self) -> tuple[str, ...]:
        """Modalities whose tokens are chosen: not those that heads make, nor those that are only read."""
        return TEXT, *self.spans

    def unasked_of(self, name: str) -> Sequence[int]:
        """The prompt of a span of modality `name` in which nothing is asked: that of a template without a prompt."""
        return self._unasked.get(name) or (self.vocabulary.specials.bos,)

    def span(self, name: str) -> SpanGrammar | AutomatonGrammar:
        """Grammar of a span of modality `name` as it is written."""
        declared = self.spans[name]
        if name in self.tables:
            return AutomatonGrammar(self.tables[name])
        return layout(declared.layout).grammar(len(declared.view("generate")), declared.frames)

    def _shortest(self, name: str) -> int:
        if name in self.heads:
            return 1 + self.heads[name].read + (name in self.ends)
        return 1 + self.span(name).remaining()

    def while_made(self, name: str) -> int:
        """Tokens that must be left where a span opens, as it takes so many positions until it is made: its opening, a
        head's own and the stop token, which takes none."""
        return 2 + self.heads[name].own if name in self.heads else 0

    def room(self, names: Sequence[str]) -> int:
        """Tokens that have to be left for spans of these modalities, one after the other, and the stop token."""
        before, most = 0, 1
        for name in names:
            most = max(most, before + self.while_made(name))
            before += self.shortest[name]
        return max(most, before + 1)

    def least(self, need: Need) -> int:
        """Fewest tokens of an answer that has what is needed, the stop token included."""
        return self.room(need.owed(0)) if need.least else 1

    def code_in_view(self, name: str, token: int) -> tuple[int, int]:
        """Place of a code's codebook among those that a span of modality `name` is written with, and the code."""
        place = self._in_view[name][int(self.vocabulary.block_of[token])]
        return place, token - self._starts[name][place]

    def answer(self, need: Need, budget: int) -> AnswerGrammar:
        """The state of an answer that begins. Raises `UserError` where the budget cannot hold what is needed."""
        return AnswerGrammar(self, need, budget)

    def place(self, state: State) -> Place:
        """What may come next in a state."""
        return self._places.of(state)

    def allowed(self, state: State) -> list[int]:
        """Ids that may come next in a state, ascending."""
        return self.place(state).ids()


def _unasked(model: Model) -> dict[str, Sequence[int]]:
    """Prompt of each modality with codes in which nothing is asked, as the recipe's form has it."""
    data, template = model.recipe.data, CompiledTemplate(Template(direction="unasked", response=""))
    declared, made = model.codecs.modalities, model.codecs.makers
    spans = [name for name, one in declared.items() if one.codebooks and name not in made]
    documents = {name: to_document({}, template, data.form, data.system, name, asked=True) for name in spans}
    return {name: model.renderer.prompt(document).tokens.tolist() for name, document in documents.items()}


class AnswerGrammar:
    """State of one answer. `budget` is the number of tokens that it may still have, the stop token included."""

    def __init__(self, grammar: Grammar, need: Need, budget: int) -> None:
        least = grammar.least(need)
        if budget < least:
            told = ", ".join(f"`{name}`" for name in need.counted)
            raise UserError(
                f"{budget} tokens are too few for the answer: {need.least} span(s) of {told} take "
                f"{least}; raise the number of tokens"
            )
        self.done = False
        self.budget = budget
        self.controls: list[str] = []
        """Control tokens that were said."""
        self._reader = ControlReader(grammar.vocabulary.controls)
        self._inserted: deque[int] = deque()
        """Tokens that come next, whatever the model thinks of them."""
        self._grammar = grammar
        self._need = need
        self._counts: Counter[str] = Counter()
        """Spans so far, by modality."""
        self.opened = ""
        """Modality of the span whose media a head has to make before the answer goes on."""
        self._closing = ""
        """Modality of the span that a head has made and that the next token closes."""
        self._last = ""
        """Modality of the span just before; empty after text."""
        self._name = ""
        self._span: SpanGrammar | AutomatonGrammar | None = None
        self._known: Any = None
        """What `_between_spans` was made for; None: it is to be made."""
        self._owing = -1
        """What `_owed` says; -1: it is to be found out."""
        self._roomy = 0
        """Tokens that have to be left for it to stay the same."""
        self._between_spans: State = Between((), may_stop=False)

    def copy(self) -> AnswerGrammar:
        """Another one in the same state, between spans."""
        assert self._span is None
        other = copy.copy(self)
        other.controls, other._inserted, other._counts = self.controls[:], self._inserted.copy(), self._counts.copy()
        other._reader = copy.copy(self._reader)
        return other

    @property
    def in_span(self) -> bool:
        """Whether the next token lies inside a span."""
        return self._span is not None

    @property
    def modality(self) -> str:
        """Modality of the span that the next token lies inside of; empty between spans."""
        return "" if self._span is None else self._name

    def state(self) -> State:
        """Where the next token lies."""
        if self._span is not None:
            return Inside(self._name, *self._span.allowed(self.budget - self._owed()))
        if self._closing:
            return Inserted(self._grammar.ends[self._closing])
        if self._inserted:
            return Inserted(self._inserted[0])
        # as long as there is room for anything, only these decide
        key = self._reader.read, self._last
        if key != self._known or self.budget < self._roomy:
            self._known, self._between_spans = key, self._between()
        return self._between_spans

    def _owed(self) -> int:
        """Tokens that must still come after the present span, or from here if there is none."""
        if self._owing < 0:
            self._owing = self._owed_with(self._spans())
        return self._owing

    def _spans(self) -> int:
        """Spans so far of those that are needed."""
        return sum(self._counts[name] for name in self._need.counted)

    def _owed_with(self, spans: int) -> int:
        """The same where the answer has so many of the spans that are needed."""
        return self._grammar.room(self._need.owed(spans))

    def _between(self) -> Between:
        need, grammar = self._need, self._grammar
        owed, spans = self._owed(), self._spans()
        self._roomy = owed + grammar.longest + 1
        if need.together and 0 < spans < need.least:
            return Between(need.owed(spans)[:1], may_stop=False)
        openable = [TEXT] if 1 + owed <= self.budget else []
        openable += [name for name in grammar.shortest if self._may_open(name, owed)]
        may_stop = spans >= need.least
        if not grammar.vocabulary.controls:
            return Between(tuple(openable), may_stop)
        return Between(tuple(openable), may_stop, *self._controls(owed))

    def _may_open(self, name: str, owed: int) -> bool:
        need, grammar = self._need, self._grammar
        wanted = name in need.counted
        spans = self._spans() if wanted else self._counts[name]
        if need.order and wanted and (spans or name != need.modality):
            return False
        most = need.most if wanted else need.others
        if (need.only and not wanted) or (most and spans >= most):
            return False
        if wanted and need.together and spans and self._last != name:
            return False
        after = self._owed_with(spans + 1) if wanted else owed
        return max(grammar.shortest[name] + after, grammar.while_made(name)) <= self.budget

    def _controls(self, owed: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Control tokens with an id that may come next, and tokens that would complete one of text that may not."""
        controls, reader = self._grammar.vocabulary.controls, self._reader
        allowed = tuple(
            name
            for name in controls.by_id.values()
            if (reader.begins or controls.tokens[name].anywhere) and self._may_say(name, owed)
        )
        ending = ((ids[-1], name) for ids, name in controls.texts.items() if ids[:-1] == reader.read)
        return allowed, tuple(last for last, name in ending if not self._may_say(name, owed))

    def _may_say(self, name: str, owed: int) -> bool:
        """Whether a control token may be said with its next token: what is needed must be there before the answer ends,
        and what is inserted must fit."""
        controls = self._grammar.vocabulary.controls
        if controls.tokens[name].action in ENDS:
            return self._spans() >= self._need.least
        return 1 + len(controls.inserts.get(name, ())) + owed <= self.budget

    def advance(self, token: int) -> ControlToken | None:
        """Takes the token that was chosen, which must be allowed in `state()`. Returns the control token that
        it completes, if it does; what that does to this answer is done."""
        grammar = self._grammar
        self.budget -= 1
        if self._closing:
            self._last, self._closing = self._closing, ""
            return None
        if self._span is not None:
            if token == grammar.vocabulary.end(self._name):
                self._span = None
                self._last = self._name
                return None
            self._span.advance(*grammar.code_in_view(self._name, token))
            return None
        if self._inserted:
            self._inserted.popleft()
        said = self._reader.take(token)
        if said:
            return self._obey(said)
        if token == grammar.stop:
            self.done = True
        elif token in grammar.opens:
            self._name = name = grammar.opens[token]
            self._counts[name] += 1
            self._known, self._owing = None, -1
            if name in grammar.heads:
                self.opened = name
            else:
                self._span = grammar.span(name)
        else:
            self._last = ""
        return None

    def made(self, positions: int) -> None:
        """Takes the positions by which what a head has made is read back: the span is closed next, or is over."""
        name, self.opened = self.opened, ""
        self.budget -= positions
        if name in self._grammar.ends:
            self._closing = name
        else:
            self._last = name

    def _obey(self, name: str) -> ControlToken:
        """Does to this answer what the action of a control token says."""
        control = self._grammar.vocabulary.controls.tokens[name]
        self.controls.append(name)
        self._last = ""
        self.done = control.action in ENDS
        self._inserted.extend(self._grammar.vocabulary.controls.inserts.get(name, ()))
        return control
