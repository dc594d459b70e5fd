"""Checks of evaluation tasks: their records, and judges that know right answers from wrong ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mio.core.contract.controls import CONTROL
from mio.core.contract.tasks import HIGHER, Answer, Measure
from mio.core.contract.values import TEXT, Record, Template
from mio.core.errors import DataError, UserError
from mio.core.evaluation.judging import OwnedTask
from mio.core.tokens.templates import CompiledTemplate
from mio.testing.answers import Answers
from mio.testing.outcomes import RECORDS, Check, SkippedCheckError, items_in, media_in, same
from mio.testing.scans import Scans, identity
from mio.testing.subject import Subject

_JUDGED = 12
"""Records of each task whose answers are judged."""

_Said = Mapping[str, Sequence[Any]]
"""By measure, what a judge says of each answer."""


class TaskChecks:
    """The checks of one plugin's tasks."""

    def __init__(self, subject: Subject, scans: Scans) -> None:
        self._subject = subject
        self._scans = scans
        self._made = Answers(subject)
        self._asked: dict[str, tuple[list[Record], list[Answer]]] = {}
        self._said: dict[str, _Said] = {}

    def all(self) -> Iterator[Check]:
        """Name and function of every check."""
        yield "tasks' prompts can be filled", self._prompts
        if self._at_rest:
            yield "tasks that rest can be asked", self._resting
        if self._subject.has("mio_tasks"):
            yield "judges know right answers from wrong ones", self._judges
            yield "an answer is judged by itself", self._by_itself
            yield "what judges say makes figures", self._figures
            yield "tasks' records are not trained on", self._held_out
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
        """Records of a task with the right answers, made once."""
        if owned.task.name not in self._asked:
            records = owned.records(_JUDGED)
            self._asked[owned.task.name] = records, self._made.right(owned, records)
        return self._asked[owned.task.name]

    def _judged(self, owned: OwnedTask, answers: Sequence[Answer], records: Sequence[Record]) -> _Said:
        """What the judge says of answers by each measure, None of one that it cannot judge."""
        verdicts = owned.verdicts(dict(enumerate(answers)), records, {}) if answers else {}
        names = [measure.name for measure in owned.task.measures]
        nothing = dict.fromkeys(names)
        return {name: [verdicts.get(index, nothing)[name] for index in range(len(answers))] for name in names}

    def _of_right(self, owned: OwnedTask) -> _Said:
        """What the judge says of the right answers, asked once: some judges take their time."""
        if owned.task.name not in self._said:
            records, answers = self._answers(owned)
            self._said[owned.task.name] = self._judged(owned, answers, records)
        return self._said[owned.task.name]

    def _right(self, owned: OwnedTask, answers: Sequence[Answer], records: Sequence[Record]) -> _Said:
        """What the judge says of the right answers, or where it wants nothing said, of these as they are not said."""
        said, measure = self._of_right(owned), owned.task.measure
        if measure.overall is not None or any(_is_best(measure, one) for one in said[measure.name]):
            return said
        quiet = self._judged(owned, [replace(answer, silent=True) for answer in answers], records)
        return quiet if any(_is_best(measure, one) for one in quiet[measure.name]) else said

    def _judges(self) -> str:
        told = []
        for owned in self._own:
            records, answers = self._answers(owned)
            right, name = self._right(owned, answers, records), owned.task.measure.name
            assert any(one is not None for one in right[name]), f"{owned}: no right answer can be judged"
            others, of_others = self._made.wrong(owned, answers, records)
            spoken = [record for record, answer in zip(records, answers, strict=True) if answer.parts]
            if owned.task.choices is not None:
                spoken = []  # one of the candidates is always said
            wrong = self._judged(owned, others, of_others)
            empty = self._judged(owned, [Answer(())] * len(spoken), spoken)
            if owned.task.measure.overall is None:  # else what it says of one answer is no mark
                says = [_says(answer) for answer in answers if answer.parts]
                due = [one for one, is_due in zip(empty[name], says, strict=True) if is_due] if spoken else []
                marks = _Marks(owned.task.measure, right[name], wrong[name], empty[name], due)
                told.append(f"{owned.task.name} {marks.check(owned)}")
            for measure in owned.task.measures:
                _check_direction(owned, measure, right[measure.name], [*wrong[measure.name], *empty[measure.name]])
        return "; ".join(told)

    def _figures(self) -> str:
        """The functions of measures, of right answers and of items without a verdict."""
        from mio.core.evaluation.figures import Overall, counted  # takes scipy, which a plugin must not import

        count = 0
        for owned in self._own:
            records, right = self._answers(owned)[0], self._of_right(owned)
            for measure in owned.task.measures:
                counted(owned, measure, [None] * len(records), records)
                values = counted(owned, measure, right[measure.name], records)
                if measure.overall is not None and values:
                    with suppress(DataError):  # of so few it need not be known
                        Overall(owned, measure, values, records).figure()
                count += 1
        return f"{count} measures"

    def _held_out(self) -> str:
        """No record with media is a training record of the plugin's own sources."""
        trained = {
            identity: (name, index)
            for name, splits in self._scans.by_source.items()
            if "train" in splits
            for identity, (index, _) in splits["train"].identities.items()
        }
        if not trained:
            raise SkippedCheckError("the plugin's sources have no records with media to train on")
        count = 0
        for owned in self._own:
            for index, record in enumerate(owned.records(_JUDGED)):
                if items_in(record) and (content := _content(record)):
                    count += 1
                    name, there = trained.get(content, ("", 0))
                    assert not name, (
                        f"{owned}: its record {index} is one of `train` of `{name}` (record {there}): what is "
                        "measured on it is not held out"
                    )
        return f"{count} records with media"

    def _by_itself(self) -> None:
        for owned in self._own:
            records, answers = self._answers(owned)
            name = owned.task.measure.name
            together = self._of_right(owned)[name]
            for index, (answer, record) in enumerate(zip(answers, records, strict=True)):
                alone = self._judged(owned, [answer], [record])[name][0]
                assert same(alone, together[index]), f"{owned}: answer {index} is judged otherwise when it is alone"

    def _is_refused(self, record: Record) -> bool:
        """Whether a record holds an item that the plugin's own tokenizers do not take."""
        own = {declared.name for declared in self._subject.declared}
        return any(self._subject.refused(media) for media in media_in(record) if media.modality in own)

    def _ceilings(self) -> str:
        told = []
        for owned in self._own:
            if owned.task.ceiling is None:
                continue
            records = owned.records(_JUDGED)
            used = {media.modality for record in records for media in media_in(record)}
            if used - {declared.name for _, declared in self._subject.plugins.modalities()}:
                continue
            if not (records := [record for record in records if not self._is_refused(record)]):
                continue
            try:
                figures = owned.ceilings(records, self._subject.codecs(*sorted(used)))
            except DataError as error:
                raise AssertionError(f"{owned}: {error}") from error
            told += [f"{owned.task.name}/{name} {figure:.3g}" for name, figure in figures.items()]
        if not told:
            raise SkippedCheckError("no task of the modalities in use has a ceiling")
        return ", ".join(told)


def _content(record: Record) -> str:
    """Of a record by what is in it; empty for one that cannot be looked into."""
    with suppress(Exception):  # which the check of pickled records reports
        return identity(record)
    return ""


def _says(answer: Answer) -> bool:
    """Whether there is more to an answer than control tokens and white space."""
    return not answer.silent and any(
        kind != CONTROL and (kind != TEXT or content.strip()) for kind, content in answer.parts
    )


@dataclass(frozen=True)
class _Marks:
    """What a judge says of answers by one measure, None of those that it cannot judge."""

    measure: Measure
    right: Sequence[Any]
    wrong: Sequence[Any]
    empty: Sequence[Any]
    due: Sequence[Any]
    """Of the empty ones, those in whose place something is to be said."""

    @property
    def bounded(self) -> bool:
        """Whether there are full marks: of numbers without a bound there are none."""
        bound = self.measure.most if self.measure.better == HIGHER else self.measure.least
        pairs = any(isinstance(one, list) for one in (*self.right, *self.wrong, *self.empty))
        return pairs or math.isfinite(bound)

    def full(self, verdicts: Sequence[Any]) -> int:
        """How many are as good as can be."""
        return sum(_is_best(self.measure, one) for one in verdicts)

    def check(self, owned: OwnedTask) -> str:
        """What there is to tell. Raises `AssertionError` where right answers are not told from wrong ones."""
        asked = bool(CompiledTemplate(Template(direction="", response=owned.task.template.response)).fields)
        due = owned.task.output == TEXT and asked
        return self._check_full(owned, due) if self.bounded else self._check_means(owned, due)

    def _check_full(self, owned: OwnedTask, due: bool) -> str:
        wrong = [*self.wrong, *self.empty]
        full, given = self.full(self.right), self.full(wrong)
        assert not wrong or given < len(wrong), f"{owned}: full marks for every wrong answer, an empty one too"
        assert not self.due or self.full(self.due) < len(self.due), (
            f"{owned}: full marks for every empty answer, also where the right one says something, as that of "
            f"{len(self.due)} records does"
        )
        if due or full:
            assert full, (
                f"{owned}: no right answer has full marks, of {len(self.right)}; control tokens of another plugin that "
                "it looks for belong in `controls`"
            )
            assert full / len(self.right) >= given / max(1, len(wrong)), (
                f"{owned}: full marks for {full} of {len(self.right)} right answers, and for {given} of {len(wrong)} "
                "wrong ones"
            )
        return f"full marks for {full} of {len(self.right)} right, {given} of {len(wrong)} wrong"

    def _check_means(self, owned: OwnedTask, due: bool) -> str:
        right, told = _mean(self.right), []
        for verdicts, what in ((self.wrong, "wrong"), (self.due, "empty")):
            if (mean := _mean(verdicts)) is not None and right is not None:
                better = right > mean if self.measure.better == HIGHER else right < mean
                assert better or not due, (
                    f"{owned}: by `{self.measure.name}`, of which {self.measure.better} is better, right answers have "
                    f"{right:.3g} in the mean, and {what} ones {mean:.3g}"
                )
                told.append(f"{mean:.3g} {what}")
        return ", ".join([f"in the mean {right:.3g} right", *told])


def _mean(verdicts: Sequence[Any]) -> float | None:
    """Of those that could be judged."""
    judged = [one for one in verdicts if one is not None]
    return sum(judged) / len(judged) if judged else None


def _check_direction(owned: OwnedTask, measure: Measure, right: Sequence[Any], wrong: Sequence[Any]) -> None:
    """Raises `AssertionError` for a measure by which all right answers are as bad as can be, and wrong ones are not."""
    judged = [one for one in right if one is not None]
    if measure.overall is None and judged and all(_is_worst(measure, one) for one in judged):
        better = sum(one is not None and not _is_worst(measure, one) for one in wrong)
        assert not better, (
            f"{owned}: by `{measure.name}`, of which {measure.better} is better, every right answer has the worst mark "
            f"that there is, and {better} of {len(wrong)} wrong ones have better ones: turn `better` round, or what "
            "the judge says"
        )


def _is_best(measure: Measure, verdict: Any) -> bool:
    """Whether a verdict is as good as one can be, which none is not."""
    if isinstance(verdict, list):  # a of b
        return bool(verdict[1] and (verdict[0] == verdict[1] if measure.better == HIGHER else verdict[0] == 0))
    return bool(verdict == (measure.most if measure.better == HIGHER else measure.least))


def _is_worst(measure: Measure, verdict: Any) -> bool:
    """Whether a verdict is as bad as one can be."""
    if isinstance(verdict, list):  # a of b
        return bool(verdict[1] and (verdict[0] == 0 if measure.better == HIGHER else verdict[0] >= verdict[1]))
    return bool(verdict == (measure.least if measure.better == HIGHER else measure.most))
