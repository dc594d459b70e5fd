"""Checks of spans: the grammar of decoding takes what is encoded and nothing else, and what it allows can be decoded.

The grammar and its walks are those of decoding itself (`mio.core.generation.grammar`), so that whatever a declaration
says of spans, layouts and automata, holds here. Q codebooks, F frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from mio.core.contract.validation import VIEWS
from mio.core.contract.values import CodeArray, Codes, Modality
from mio.core.errors import DataError
from mio.core.generation.grammar import AnswerGrammar, Grammar, Need
from mio.core.generation.states import State
from mio.core.tokens.layouts import layout
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.spans import SpanPlan
from mio.testing.codecs import check_saved
from mio.testing.outcomes import Check, SkippedCheckError
from mio.testing.subject import Subject

_WALKS = 12
"""Random spans that are decoded."""
_FARTHEST = 60
"""Frames of such a span beyond the fewest that one may have."""
_EXTREMES = {0: 0, 1: -1}
"""Of the first and second of them, the place of every code among those that may come: the lowest, the highest."""
_END = 0.1
"""Probability that a random span ends where it may."""
_MUTATED = 3
"""Items that are mutated."""


class SpanChecks:
    """Checks of the spans of one modality that is written as codes."""

    def __init__(self, subject: Subject, modality: Modality) -> None:
        self._subject = subject
        self._modality = modality
        self._name = modality.name
        self._allowed: dict[State, tuple[list[int], frozenset[int]]] = {}

    def all(self) -> Iterator[Check]:
        """Name and function of every check."""
        yield f"{self._name}: layout is invertible", self._layout
        yield f"{self._name}: the grammar takes every item that is encoded", self._takes
        yield f"{self._name}: the grammar refuses what the declaration forbids", self._refuses
        yield f"{self._name}: random codes decode, and are written as files", self._decodes

    def _layout(self) -> None:
        declared = self._modality
        for view in VIEWS:
            books = len(declared.view(view))
            for frames in {declared.frames.minimum, min(declared.frames.maximum, declared.frames.minimum + 3)}:
                sizes = np.array([declared.codebooks[book] for book in declared.view(view)])
                codes = np.arange(books * frames).reshape(books, frames) % sizes[:, None]
                book, code = layout(declared.layout).flatten(codes)
                back = layout(declared.layout).parse(book, code, books)
                assert np.array_equal(back, codes), f"view `{view}`, {frames} frames: the codes come back changed"

    @cached_property
    def _grammar(self) -> Grammar:
        if self._subject.plugins.head(self._name) is not None:
            raise SkippedCheckError("a head makes its media: no codes are written")
        vocabulary = self._subject.vocabulary
        coded = {one.name: one for _, one in self._subject.plugins.modalities() if one.codebooks}
        return Grammar(vocabulary, coded, vocabulary.specials.eos)

    @cached_property
    def _plan(self) -> SpanPlan:
        return SpanPlan.of(self._subject.vocabulary, self._name, "generate")

    @cached_property
    def _spans(self) -> list[list[int]]:
        """Ids of the spans of encoded items, their marks included."""
        media = self._subject.media(self._name)[: 2 * _MUTATED]
        codes = self._subject.codecs(self._name).tokenizer(self._name).encode([item.data for item in media])
        carried = (
            self._plan.carried(np.asarray(one, np.int64), item.key) for one, item in zip(codes, media, strict=True)
        )
        return [self._plan.span(one).tolist() for one in carried]

    def _choices(self, state: State) -> tuple[list[int], frozenset[int]]:
        if state not in self._allowed:
            ids = self._grammar.allowed(state)
            self._allowed[state] = ids, frozenset(ids)
        return self._allowed[state]

    def _refused_at(self, span: Sequence[int]) -> int | None:
        """The first token of an answer of one span that the grammar of decoding does not allow; None: none."""
        answer = self._answer(len(span) + self._grammar.longest + len(self._grammar.unasked_of(self._name)) + 2)
        for at, token in enumerate((*span, self._grammar.stop)):
            if token not in self._choices(answer.state())[1]:
                return at
            answer.advance(token)
        return None

    def _answer(self, budget: int) -> AnswerGrammar:
        need = Need(self._name, 1, 1, only=True)
        return self._grammar.answer(need, max(budget, self._grammar.least(need)))

    def _takes(self) -> str:
        grammar, spans = self._grammar, self._spans
        for index, span in enumerate(spans):
            at = self._refused_at(span)
            assert at is None, f"item {index}: token {at} of its span may not come there in decoding"
            parsed = parse_tokens(span, grammar.vocabulary, self._subject.text)
            assert not parsed.problems, f"item {index}: {parsed.problems[0]}"
        return f"{len(spans)} items"

    def _refuses(self) -> str:
        _ = self._grammar
        refused, legal = 0, 0
        random = np.random.default_rng(0)
        for index, span in enumerate(self._spans[:_MUTATED]):
            for what, mutated in self._mutations(span, random):
                problem = self._problem(mutated)
                at = self._refused_at(mutated)
                assert (at is None) == (not problem), (
                    f"item {index}, {what}: in data it is {problem or 'whole'}, but decoding "
                    f"{'allows it' if at is None else f'refuses token {at}'}"
                )
                refused, legal = refused + bool(problem), legal + (not problem)
        return f"{refused} mutations refused; {legal} are spans as well"

    def _mutations(self, span: list[int], random: np.random.Generator) -> Iterator[tuple[str, list[int]]]:
        """What an item's span becomes by one mistake."""
        begin, *codes, end = span
        if not codes:
            return
        at = int(random.integers(len(codes)))
        blocks = self._subject.vocabulary
        for stranger in (blocks.specials.eos, begin):
            yield "a token that is no code", [begin, *codes[:at], stranger, *codes[at + 1 :], end]
        every = [code for book in self._modality.view("generate") for code in blocks.code_ids(self._name, book)]
        wrong = every[int(random.integers(len(every)))]
        yield "another code", [begin, *codes[:at], wrong, *codes[at + 1 :], end]
        yield "a code that is dropped", [begin, *codes[:at], *codes[at + 1 :], end]
        yield "a code that is doubled", [begin, *codes[: at + 1], *codes[at:], end]
        if len(codes) > 1:
            at = min(at, len(codes) - 2)
            yield "two codes that are swapped", [begin, *codes[:at], codes[at + 1], codes[at], *codes[at + 2 :], end]
        yield "no codes", [begin, end]
        longest = self._modality.frames.maximum * len(self._modality.view("generate"))
        yield "too many codes", [begin, *(codes * (1 + longest // len(codes)))[: longest + 1], end]

    def _problem(self, span: list[int]) -> str:
        """What is wrong with a span as it stands in data; nothing where it is one."""
        parsed = parse_tokens(span, self._subject.vocabulary, self._subject.text)
        if parsed.problems or len(parsed.parts) != 1:
            return parsed.problems[0] if parsed.problems else "no span of one item"
        [part] = parsed.parts
        assert isinstance(part, Codes)
        try:
            self._plan.carried(part.codes, "", part.codebooks)
        except DataError as error:
            return str(error)
        return ""

    def _decodes(self) -> str:
        """Random walks of the grammar; a `DataError` of the detokenizer is an answer too."""
        _ = self._grammar
        if self._subject.plugins.detokenizer(self._name) is None:
            raise SkippedCheckError("no plugin supplies a detokenizer")
        (place := self._subject.folder / f"{self._name}-random").mkdir()
        random, meaningless, reason = np.random.default_rng(0), 0, ""
        for index in range(_WALKS):
            codes = self._walked(random, _EXTREMES.get(index))
            try:
                self._decode(codes, place / f"random-{index}")
            except DataError as error:
                meaningless, reason = meaningless + 1, f": {error}"
            except AssertionError:
                raise
            except Exception as error:
                raise AssertionError(
                    f"codes [{codes.shape[0]}, {codes.shape[1]}] that the grammar allows raise {type(error).__name__}: "
                    f"{error}; `mio.DataError` says of codes that they mean nothing"
                ) from error
        return f"{_WALKS} spans" + (f", of which {meaningless} mean nothing{reason}" if meaningless else "")

    def _decode(self, codes: CodeArray, stem: Any) -> None:
        detokenizer = self._subject.codecs(self._name).detokenizer(self._name)
        media = detokenizer.decode(codes)
        assert media is not None, "`decode` returned nothing"
        check_saved(detokenizer.save, media, stem)

    def _walked(self, random: np.random.Generator, place: int | None) -> CodeArray:
        """Codes of a span that the grammar allows, `[codebooks that are written, F]`: at each step a random one, or
        that at a place among those that are allowed."""
        grammar, books = self._grammar, len(self._modality.view("generate"))
        budget = grammar.least(Need(self._name, 1, 1)) + int(random.integers(0, _FARTHEST + 1)) * books
        answer, span = self._answer(budget), list[int]()
        begin, end = grammar.vocabulary.begin(self._name), grammar.vocabulary.end(self._name)
        while not answer.done:
            ids, allowed = self._choices(answer.state())
            assert ids, f"after {len(span)} tokens of a span nothing may come: the declaration allows no end"
            if not answer.in_span:
                token = begin if begin in allowed else grammar.stop
            elif end in allowed and (len(ids) == 1 or random.random() < _END):
                token = end
            else:
                codes = [token for token in ids if token != end] if end in allowed else ids
                token = codes[int(random.integers(len(codes))) if place is None else place]
            answer.advance(token)
            span.append(token)
        parsed = parse_tokens(span[:-1], grammar.vocabulary, self._subject.text)
        assert not parsed.problems, f"what the grammar allows is {parsed.problems[0]}"
        [part] = parsed.parts
        return self._subject.codecs(self._name).written(part)  # type: ignore[arg-type]
