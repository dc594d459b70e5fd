"""The span grammar of an export, read from its `grammar.json`: which token may come next in an answer.

Needs neither mio nor torch. Between spans come text, the opening of a span, a control token where it may come, or the
token that ends the answer; inside a span, codes of the codebooks that its layout allows there. The tokens that an
answer may have are a budget that every span fits into, so that none is cut off.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mio_vllm.automata import Automaton
from mio_vllm.layouts import LAYOUTS, following, needed
from mio_vllm.ranges import Ranges, contains, joined, without

FORMAT, VERSION = "mio-grammar", 2
TEXT = "text"
ENDING = ("silence", "stop")
"""Actions of control tokens that end the answer."""

Ids = tuple[int, ...]


class GrammarError(ValueError):
    """A file that is no grammar, or a request that no answer can meet. The message is for the person who asked."""


@dataclass(frozen=True)
class Span:
    """A modality whose spans can be written: they consist of codes."""

    name: str
    begin: int
    end: int
    layout: str
    codebooks: tuple[range, ...]
    """Ids of the codes of each codebook that a span has, in its order."""
    minimum: int
    maximum: int
    step: int
    """Frames: `minimum`, `minimum + step`, ..., at most `maximum`."""
    automaton: Automaton | None = None
    """Of its codes; they are then written frame by frame."""

    @cached_property
    def shortest(self) -> int:
        """Fewest tokens of a span, begin and end included."""
        if self.automaton is not None:
            return 2 + (self.automaton.needed(0, 0) or 0)
        return 2 + len(self.codebooks) * self.minimum


@dataclass(frozen=True)
class Control:
    """A control token."""

    name: str
    ids: Ids
    text: bool
    """Whether it consists of tokens of text: it then comes at the beginning of an answer alone."""
    anywhere: bool
    action: str
    inserts: Ids
    """Tokens that follow it, whatever the model says."""


@dataclass(frozen=True)
class Need:
    """Spans that an answer has to have, and those that it may have. `most` and `others`: 0 means any number."""

    modality: str = ""
    least: int = 0
    most: int = 0
    only: bool = False
    """Whether spans of no other modality may be opened."""
    together: bool = False
    """Whether the spans follow each other: they are the parts of one item."""
    others: int = 0
    """Most spans of each other modality."""
    order: tuple[str, ...] = ()
    """Of an item with one part each of several modalities: these. Their spans come in this order and nowhere else."""

    @property
    def counted(self) -> tuple[str, ...]:
        """Modalities whose spans are counted."""
        return self.order or (self.modality,)

    def owed(self, spans: int) -> tuple[str, ...]:
        """Modalities of the spans that an answer with so many of them has to have yet, in order."""
        return self.order[spans:] if self.order else (self.modality,) * (self.least - spans)


@dataclass(frozen=True)
class Grammar:
    """What `grammar.json` says of answers."""

    size: int
    """Ids."""
    context: int
    stop: int
    ends: tuple[int, ...]
    """Tokens that end an answer, `stop` and those that no answer has otherwise among them."""
    text: Ranges
    spans: Mapping[str, Span]
    sequences: Mapping[str, Mapping[str, Any]]
    controls: Mapping[str, Control]
    unwritten: Mapping[str, str] = field(default_factory=dict)
    """Modalities of which no answer can be, each with the reason."""

    @classmethod
    def load(cls, path: Path | str) -> Grammar:
        """Raises `GrammarError` where the file is missing, damaged, or of another version."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content.get("format") != FORMAT:
                raise GrammarError(f"{path}: is no span grammar: `format` is not `{FORMAT}`")
            if content.get("version") != VERSION:
                raise GrammarError(
                    f"{path}: is version {content.get('version')} of the format, and this program reads {VERSION}; "
                    "take the program that came with the mio that exported it"
                )
            return cls.of(content)
        except OSError as error:
            raise GrammarError(f"{path}: cannot be read ({error.strerror}); `mio export` writes it") from None
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
            raise GrammarError(f"{path}: is damaged ({error!r}); export the run again") from None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Grammar:
        """Of the content of the file."""
        spans, unwritten = {}, {}
        for name, one in content["spans"].items():
            if one["written"] == "head":
                unwritten[name] = "a head of the model makes it, which only mio has"
            elif one["written"] is None:
                unwritten[name] = "it is only read"
            else:
                if one["layout"] not in LAYOUTS:
                    raise KeyError(one["layout"])
                blocks = [one["codebooks"][number] for number in one["written"]]
                codebooks = tuple(range(each["start"], each["start"] + each["size"]) for each in blocks)
                frames = [one["frames"][key] for key in ("minimum", "maximum", "step")]
                frames[1] -= (frames[1] - frames[0]) % frames[2]
                automaton = Automaton.of(one["automaton"], [len(codebooks) * count for count in frames])
                spans[name] = Span(name, one["begin"], one["end"], one["layout"], codebooks, *frames, automaton)
        sequences = {
            name: one for name, one in content["sequences"].items() if all(part in spans for part in one["of"])
        }
        for name, one in content["sequences"].items():
            for part in one["of"]:
                if part in unwritten:
                    unwritten[name] = f"its parts cannot be written: {unwritten[part]}"
        controls = {
            one["name"]: Control(one["name"], tuple(one["ids"]), one["text"], one["anywhere"], one["action"],
                                 tuple(one["inserts"]))
            for one in content["controls"]
        }  # fmt: skip
        start = content["text"]["start"]
        text = without([(start, start + content["text"]["size"])], content["text"]["excluded"])
        ends = tuple(content["ends"])
        return cls(
            content["size"], content["context"], content["stop"], ends, text, spans, sequences, controls, unwritten
        )

    def need(self, output: str = "", only: bool = True, most: int = 0) -> Need:
        """What an answer needs that is to be of the modality `output`: one item of it, or from one to `most`; with
        `only`, no media of another. Raises `GrammarError` where no answer can be that."""
        if most < 0:
            raise GrammarError(f"at most {most} items of a modality is no number that an answer can have")
        if output in ("", TEXT):
            return Need(only=bool(output) and only, others=most)
        if output in self.sequences:
            if most > 1:
                raise GrammarError(f"an answer in `{output}` is one item: no more of them can be asked for")
            whole = self.sequences[output]
            first, *others = whole["of"]
            order = (first, *others) if others else ()
            times = len(whole["of"])
            return Need(first, times * whole["minimum"], times * whole["maximum"], only, True, most, order)
        if output in self.spans:
            return Need(output, 1, most or int(only), only, others=most)
        if output in self.unwritten:
            raise GrammarError(f"no answer of this model can be of `{output}` here: {self.unwritten[output]}")
        known = ", ".join(sorted({TEXT, *self.spans, *self.sequences}))
        raise GrammarError(f"no modality `{output}` in this model; an answer can be of {known}")

    def least(self, need: Need) -> int:
        """Fewest tokens of an answer that has what is needed, the token that ends it included."""
        return self.room(need.owed(0))

    def room(self, names: Sequence[str]) -> int:
        """Tokens that spans of these modalities take, and the one that ends the answer."""
        return sum(self.spans[name].shortest for name in names) + 1

    @cached_property
    def opens(self) -> Mapping[int, str]:
        """Modality by the token that opens a span of it."""
        return {span.begin: name for name, span in self.spans.items()}

    @cached_property
    def said(self) -> Mapping[Ids, Control]:
        """Control tokens by what they consist of."""
        return {control.ids: control for control in self.controls.values()}

    @cached_property
    def beginnings(self) -> frozenset[Ids]:
        """Beginnings of control tokens that are text, whole ones left out."""
        texts = [control.ids for control in self.controls.values() if control.text]
        return frozenset(ids[:size] for ids in texts for size in range(1, len(ids)))

    def answer(self, need: Need, budget: int) -> Answer:
        """An answer that has not begun. Raises `GrammarError` if what it needs does not fit into the tokens that it may
        have, the one that ends it included."""
        if budget < (least := self.least(need)):
            counted = ", ".join(f"`{name}`" for name in need.counted)
            raise GrammarError(
                f"{budget} tokens are too few for the answer: {need.least} span(s) of {counted} take {least}; raise "
                "`max_tokens`, or shorten the prompt"
            )
        return Answer(self, need, budget)


class Answer:
    """An answer that is being written, of at most `budget` further tokens."""

    def __init__(self, grammar: Grammar, need: Need, budget: int) -> None:
        self.budget = budget
        self.done = False
        """Whether nothing but the token that ends an answer may come."""
        self._grammar = grammar
        self._need = need
        self._spans: Counter[str] = Counter()
        self._last = ""
        """Modality of the span just before; empty after text."""
        self._span: Span | None = None
        self._written: Ids = ()
        """Codes of the open span, by codebook."""
        self._state = 0
        """State of the open span's automaton."""
        self._inserted: Ids = ()
        self._begun: Ids | None = ()
        """Text so far that may turn out to be a control token; None once something else was said."""
        self._allowed: Ranges | None = None
        """What may come next, once it was asked for."""

    def fork(self) -> Answer:
        """A copy that goes its own way."""
        other = copy(self)
        other._spans = self._spans.copy()
        return other

    @property
    def in_span(self) -> bool:
        """Whether the next token lies inside a span."""
        return self._span is not None

    def allowed(self) -> Ranges:
        """The ids that may come next."""
        if self._allowed is None:
            self._allowed = self._found()
        return self._allowed

    def _found(self) -> Ranges:
        grammar = self._grammar
        if self.done:
            return ((grammar.stop, grammar.stop + 1),)
        if self._span is not None:
            return joined(self._codes(self._span))
        if self._inserted:
            return ((self._inserted[0], self._inserted[0] + 1),)
        return self._between()

    def advance(self, token: int) -> bool:
        """Takes a token. Where it is not allowed the answer is over, and this is False."""
        allowed, self._allowed = self.allowed(), None
        if not contains(allowed, token):
            self.done = True
            return False
        self.budget -= 1
        if self.done:
            return True
        if self._span is not None:
            self._advance_span(self._span, token)
            return True
        self._inserted = self._inserted[1:]
        control = self._control(token)
        if control is not None:
            self._last = ""
            self.done = control.action in ENDING
            self._inserted += control.inserts
        elif token == self._grammar.stop:
            self.done = True
        elif token in self._grammar.opens:
            self._span = self._grammar.spans[self._grammar.opens[token]]
            self._written, self._state = (0,) * len(self._span.codebooks), 0
            self._spans[self._span.name] += 1
        else:
            self._last = ""
        return True

    def _codes(self, span: Span) -> list[tuple[int, int]]:
        left = self.budget - self._owed(self._counted())
        if span.automaton is not None:
            written = sum(self._written)
            start = span.codebooks[written % len(span.codebooks)].start
            codes, may_end = span.automaton.following(self._state, written, left - 1)
            ranges = [(start + first, start + stop) for first, stop in codes]
            return [*ranges, (span.end, span.end + 1)] if may_end else ranges
        frames = span.minimum, span.maximum, span.step
        codebooks, may_end = following(span.layout, self._written, *frames)
        fitting = [number for number in codebooks if needed(self._written, span.minimum, span.step, number) <= left]
        ranges = [(span.codebooks[number].start, span.codebooks[number].stop) for number in fitting]
        return [*ranges, (span.end, span.end + 1)] if may_end else ranges

    def _advance_span(self, span: Span, token: int) -> None:
        if token == span.end:
            self._span, self._last = None, span.name
            return
        number = next(number for number, ids in enumerate(span.codebooks) if token in ids)
        if span.automaton is not None:
            self._state = span.automaton.after(self._state, token - span.codebooks[number].start)
        self._written = (*self._written[:number], self._written[number] + 1, *self._written[number + 1 :])

    def _counted(self) -> int:
        """Spans so far of those that the answer needs."""
        return sum(self._spans[name] for name in self._need.counted)

    def _owed(self, spans: int) -> int:
        """Tokens that must still come outside of the open span, where the answer has so many of those it needs."""
        return self._grammar.room(self._need.owed(spans))

    def _between(self) -> Ranges:
        need, grammar = self._need, self._grammar
        spans = self._counted()
        owed = self._owed(spans)
        if need.together and 0 < spans < need.least:
            return joined([(begin := grammar.spans[need.owed(spans)[0]].begin, begin + 1)])
        ids = [span.begin for name, span in grammar.spans.items() if self._may_open(name, owed)]
        ids += [control.ids[0] for control in grammar.controls.values() if self._may_begin(control, owed)]
        if spans >= need.least:
            ids.append(grammar.stop)
        text = without(grammar.text, self._barred(owed)) if 1 + owed <= self.budget else ()
        return joined([*text, *((index, index + 1) for index in ids)])

    def _may_open(self, name: str, owed: int) -> bool:
        need = self._need
        wanted = name in need.counted
        spans = self._counted() if wanted else self._spans[name]
        if need.order and wanted and (spans or name != need.modality):
            return False
        most = need.most if wanted else need.others
        if (need.only and not wanted) or (most and spans >= most):
            return False
        if wanted and need.together and spans and self._last != name:
            return False
        after = self._owed(spans + 1) if wanted else owed
        return self._grammar.spans[name].shortest + after <= self.budget

    def _may_begin(self, control: Control, owed: int) -> bool:
        """Whether a control token with an id of its own may come."""
        return not control.text and (control.anywhere or self._begun == ()) and self._may_say(control, owed)

    def _barred(self, owed: int) -> list[int]:
        """Tokens of text that would complete a control token that may not come."""
        texts = (one for one in self._grammar.controls.values() if one.text and one.ids[:-1] == self._begun)
        return [control.ids[-1] for control in texts if not self._may_say(control, owed)]

    def _may_say(self, control: Control, owed: int) -> bool:
        if control.action in ENDING:
            return self._counted() >= self._need.least
        return 1 + len(control.inserts) + owed <= self.budget

    def _control(self, token: int) -> Control | None:
        """The control token that this token completes."""
        said = self._grammar.said
        if (control := said.get((token,))) is not None and not control.text:
            self._begun = () if self._begun == () else None
            return control
        if self._begun is None:
            return None
        begun = (*self._begun, token)
        if (control := said.get(begun)) is not None and control.text:
            self._begun = ()
            return control
        self._begun = begun if begun in self._grammar.beginnings else None
        return None
