"""Right and wrong answers to the records of a task, as an evaluation gives them to its judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from mio.core.contract.controls import CONTROL, SILENCE, Control
from mio.core.contract.tasks import Answer
from mio.core.contract.values import TEXT, Codes, Media, Record
from mio.core.errors import DataError
from mio.core.evaluation.judging import OwnedTask
from mio.core.tokens.controls import Labels
from mio.core.tokens.templates import CompiledTemplate
from mio.testing.outcomes import SkippedCheckError, same
from mio.testing.subject import Subject

_WRONG = 2
"""Wrong answers to each record."""


class Answers:
    """Answers that a model of these plugins may give."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def right(self, owned: OwnedTask, records: Sequence[Record]) -> list[Answer]:
        """What the template's response says of each record; of a task with choices, the candidate that is in it."""
        template = CompiledTemplate(owned.task.template, owned.task.name)
        labels = Labels(self._subject.plugins.control_tokens(), self._subject.plugins.label_rules())
        answers = []
        for record in records:
            _, response = template.filled(record, labels, asked=True)
            candidates = self._candidates(owned, record)
            number = _right_one(owned, candidates, record, response)
            answers.append(self._answer(response) if number is None else self._choice(candidates, number))
        return answers

    def wrong(
        self, owned: OwnedTask, right: Sequence[Answer], records: Sequence[Record]
    ) -> tuple[list[Answer], list[Record]]:
        """Right answers of other records, or other candidates, with the records that they are given to."""
        if owned.task.choices is None:
            return _exchanged(right, records)
        pairs = []
        for answer, record in zip(right, records, strict=True):
            candidates = self._candidates(owned, record)
            others = [one for one in range(len(candidates)) if one != answer.chosen]
            pairs += [(self._choice(candidates, one), record) for one in others[:_WRONG]]
        return [answer for answer, _ in pairs], [record for _, record in pairs]

    @staticmethod
    def _candidates(owned: OwnedTask, record: Record) -> list[Any]:
        return [] if owned.task.choices is None else list(owned.task.choices.of(record))

    def _choice(self, candidates: Sequence[Any], chosen: int) -> Answer:
        values = candidates[chosen] if isinstance(candidates[chosen], list | tuple) else [candidates[chosen]]
        scores = tuple(float(number == chosen) for number in range(len(candidates)))
        return replace(self._answer(values), scores=scores, chosen=chosen)

    def _answer(self, values: Sequence[Any]) -> Answer:
        parts = [part for value in values for part in self._part(value)]
        said = {content for kind, content in parts if kind == CONTROL}
        silent = {token.name for _, token in self._subject.plugins.control_tokens() if token.action == SILENCE}
        codes = [code for value in values for code in self._codes(value)]
        return Answer(tuple(parts), tuple(codes), bool(silent & said))

    def _part(self, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Control):
            yield CONTROL, value.name
        elif isinstance(value, str):
            yield TEXT, str(value)
        elif isinstance(value, Media):
            yield value.modality, self._subject.codecs().originals([value])[0]
        elif isinstance(value, Codes):
            yield value.modality, self._subject.codecs(value.modality).round_trip([value])[0]

    def _codes(self, value: Any) -> list[Codes]:
        """Of media that have codes, as far as they can be had here."""
        if isinstance(value, Codes):
            return [value]
        declared = {one.name: one for _, one in self._subject.plugins.modalities()}
        if not isinstance(value, Media) or (not (one := declared[value.modality]).codebooks and not one.parts):
            return []
        with suppress(SkippedCheckError, DataError):
            codecs = self._subject.codecs(value.modality)
            return [
                item if isinstance(item, Codes) else Codes(item.modality, codecs.codes(item))
                for item in codecs.items(value)
            ]
        return []


def _right_one(owned: OwnedTask, candidates: Sequence[Any], record: Record, response: Sequence[Any]) -> int | None:
    """The number of the candidate that is right, as far as the record or the response tells."""
    choices = owned.task.choices
    if choices is None:
        return None
    right = [index for index, one in enumerate(candidates) if same(one, record.get(choices.field))]
    right = right or [index for index, one in enumerate(candidates) if any(same(one, part) for part in response)]
    return right[0] if right else None


def _exchanged(answers: Sequence[Answer], records: Sequence[Record]) -> tuple[list[Answer], list[Record]]:
    pairs = [
        (answers[(index + shift) % len(answers)], records[index])
        for shift in (1, len(answers) // 2)
        for index in range(len(answers))
        if not same(answers[(index + shift) % len(answers)].parts, answers[index].parts)
    ]
    return [answer for answer, _ in pairs], [record for _, record in pairs]
