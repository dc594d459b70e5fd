"""Checks of evaluation tasks: their records, and judges that know right answers from wrong ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

from mio.core.contract.controls import CONTROL, SILENCE, Control
from mio.core.contract.tasks import HIGHER, Answer, Measure
from mio.core.contract.values import TEXT, Media, Record, Template
from mio.core.errors import DataError, UserError
from mio.core.evaluation.judging import OwnedTask
from mio.core.tokens.controls import Labels
from mio.core.tokens.templates import CompiledTemplate
from mio.testing.outcomes import RECORDS, Check, SkippedCheckError, media_in, same
from mio.testing.subject import Subject

_JUDGED = 12
"""Records of each task whose answers are judged."""


class TaskChecks:
    """The checks of one plugin's tasks."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def all(self) -> Iterator[Check]:
        """Name and function of every check."""
        yield "tasks' prompts can be filled", self._prompts
        if self._at_rest:
            yield "tasks that rest can be asked", self._resting
        if self._subject.has("mio_tasks"):
            yield "judges know right answers from wrong ones", self._judges
            yield "an answer is judged by itself", self._by_itself
            yield "ceilings are within their bounds", self._ceilings

    @cached_property
    def _own(self) -> list[OwnedTask]:
        tasks = self._subject.plugins.tasks().values()
        own = [OwnedTask(owner, task) for owner, task in tasks if owner == self._subject.name]
        if not own:
            raise SkippedCheckError("the plugin has no tasks")
        return own

    @cached_property
    def _at_rest(self) -> dict[str, list[str]]:
        """Own tasks that rest, by the reason."""
        by_reason: dict[str, list[str]] = {}
        with suppress(UserError):  # which is told where tasks are asked for
            for name, reason in self._subject.plugins.resting_tasks().items():
                why, _, owner = reason.rpartition(" (plugin ")
                if owner == f"`{self._subject.name}`)":
                    by_reason.setdefault(why, []).append(f"`{name}`")
        return by_reason

    def _resting(self) -> None:
        told = (f"{', '.join(names)}: {reason}" for reason, names in self._at_rest.items())
        raise SkippedCheckError("; ".join(told))

    def _prompts(self) -> str:
        for owned in self._own:
            records = owned.records(RECORDS)
            template = CompiledTemplate(owned.task.template, owned.task.name)
            for record in records:
                template.prompt(record), template.response(record)
            again = owned.records(RECORDS)
            assert len(again) == len(records), f"`{owned.task.name}`: {len(again)} records at the second time"
            assert all(map(same, records, again)), f"`{owned.task.name}`: records differ"
            more = len(owned.task.records(1))
            assert more == 1, f"`{owned.task.name}`: asked for 1 record, got {more}"
        return f"{len(self._own)} tasks"

    def _answers(self, owned: OwnedTask) -> tuple[list[Record], list[Answer]]:
        """Records of a task with the right answers."""
        records = owned.records(_JUDGED)
        template = CompiledTemplate(owned.task.template, owned.task.name)
        labels = Labels(self._subject.plugins.control_tokens(), self._subject.plugins.label_rules())
        answers = []
        for record in records:
            _, response = template.filled(record, labels, asked=True)
            answers.append(self._answer(owned, record, response))
        return records, answers

    def _answer(self, owned: OwnedTask, record: Record, response: Sequence[Any]) -> Answer:
        parts: list[tuple[str, Any]] = []
        for value in response:
            if isinstance(value, Control):
                parts.append((CONTROL, value.name))
            elif isinstance(value, str):
                parts.append((TEXT, str(value)))
            elif isinstance(value, Media):
                parts.append((value.modality, self._subject.codecs().originals([value])[0]))
        said = [content for kind, content in parts if kind == CONTROL]
        silent = {token.name for _, token in self._subject.plugins.control_tokens() if token.action == SILENCE}
        return Answer(tuple(parts), (), bool(silent & set(said)), *self._chosen(owned, record, response))

    @staticmethod
    def _chosen(owned: OwnedTask, record: Record, response: Sequence[Any]) -> tuple[tuple[float, ...], int | None]:
        """Scores, and the number of the right candidate, of a task with choices."""
        choices = owned.task.choices
        if choices is None:
            return (), None
        candidates = list(choices.of(record))
        right = [index for index, one in enumerate(candidates) if same(one, record.get(choices.field))]
        right = right or [index for index, one in enumerate(candidates) if any(same(one, part) for part in response)]
        scores = tuple(float(index in right[:1]) for index in range(len(candidates)))
        return scores, right[0] if right else None

    def _judged(self, owned: OwnedTask, answers: Sequence[Answer], records: Sequence[Record]) -> list[Any]:
        """What the judge says of answers by the first measure, None of one that it cannot judge."""
        verdicts = owned.verdicts(dict(enumerate(answers)), records, {})
        name = owned.task.measure.name
        return [verdicts[index][name] if index in verdicts else None for index in range(len(answers))]

    def _judges(self) -> str:
        told = []
        for owned in self._own:
            records, answers = self._answers(owned)
            right = self._judged(owned, answers, records)
            assert any(verdict is not None for verdict in right), f"{owned}: no right answer can be judged"
            measure = owned.task.measure
            if measure.overall is not None:
                continue  # what it says of one answer is no mark
            pairs = [
                (answers[(index + shift) % len(answers)], records[index])
                for shift in (1, len(answers) // 2)
                for index in range(len(answers))
                if not same(answers[(index + shift) % len(answers)].parts, answers[index].parts)
            ]
            pairs += [(Answer(()), record) for record, answer in zip(records, answers, strict=True) if answer.parts]
            wrong = self._judged(owned, [answer for answer, _ in pairs], [record for _, record in pairs])
            full = sum(verdict is not None and _is_full(measure, verdict) for verdict in right)
            if not full:  # of a task whose right answer is to say nothing
                silent = self._judged(owned, [replace(answer, silent=True) for answer in answers], records)
                full = sum(verdict is not None and _is_full(measure, verdict) for verdict in silent)
            given = sum(verdict is not None and _is_full(measure, verdict) for verdict in wrong)
            assert not wrong or given < len(wrong), f"{owned}: full marks for every wrong answer, an empty one too"
            asked = bool(CompiledTemplate(Template(direction="", response=owned.task.template.response)).fields)
            if (owned.task.output == TEXT and asked) or full:
                assert full, (
                    f"{owned}: no right answer has full marks, of {len(right)}; control tokens of another plugin that "
                    "it looks for belong in `controls`"
                )
                assert full / len(right) >= given / max(1, len(wrong)), (
                    f"{owned}: full marks for {full} of {len(right)} right answers, and for {given} of {len(wrong)} "
                    "wrong ones"
                )
            told.append(f"{owned.task.name} {full} of {len(right)} right, {given} of {len(wrong)} wrong")
        return "full marks: " + "; ".join(told) if told else ""

    def _by_itself(self) -> None:
        for owned in self._own:
            records, answers = self._answers(owned)
            together = self._judged(owned, answers, records)
            for index, (answer, record) in enumerate(zip(answers, records, strict=True)):
                alone = self._judged(owned, [answer], [record])[0]
                assert same(alone, together[index]), f"{owned}: answer {index} is judged otherwise when it is alone"

    def _ceilings(self) -> str:
        told = []
        for owned in self._own:
            if owned.task.ceiling is None:
                continue
            records = owned.records(_JUDGED)
            used = {media.modality for record in records for media in media_in(record)}
            if used - {declared.name for _, declared in self._subject.plugins.modalities()}:
                continue
            try:
                figures = owned.ceilings(records, self._subject.codecs(*sorted(used)))
            except DataError as error:
                raise AssertionError(f"{owned}: {error}") from error
            told += [f"{owned.task.name}/{name} {figure:.3g}" for name, figure in figures.items()]
        if not told:
            raise SkippedCheckError("no task of the modalities in use has a ceiling")
        return ", ".join(told)


def _is_full(measure: Measure, verdict: Any) -> bool:
    """Whether a verdict is as good as one can be."""
    if isinstance(verdict, list):  # a of b
        return bool(verdict[0] == verdict[1] if measure.better == HIGHER else verdict[0] == 0)
    return bool(verdict == (measure.most if measure.better == HIGHER else measure.least))
