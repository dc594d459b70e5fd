"""Answers by log-likelihood: of a task's candidates, the one that the model finds likeliest after the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mio.core.contract.controls import CONTROL, Control
from mio.core.contract.tasks import CHARACTER, TOKEN, Answer, Choices, Task
from mio.core.contract.validation import kind
from mio.core.contract.values import TEXT, Codes, Media, Record
from mio.core.data.items import prepared
from mio.core.data.sources import labels_of
from mio.core.errors import DataError, PluginError
from mio.core.evaluation.judging import plugin_error
from mio.core.generation.continuations import Branches, Continuation
from mio.core.generation.model import Model
from mio.core.generation.sampling import not_finite
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.controls import is_silent
from mio.core.tokens.documents import GENERATE, Document
from mio.core.tokens.templates import CompiledTemplate, to_document
from mio.core.tokens.visitor import Visitor
from mio.core.tokens.writing import Carrier


@dataclass(frozen=True)
class _Asked:
    """A record, with all that answers it may have."""

    candidates: Sequence[Any]
    branches: Branches
    sizes: Sequence[int]
    """By which the log-likelihood of each is divided."""


def choose_batch(model: Model, task: Task, records: Mapping[int, Record], failed: dict[int, str]) -> dict[int, Answer]:
    """Answers to some items of a task with `Choices`, by their numbers. An item that has none is left out, and `failed`
    gets the reason.

    A candidate is scored by the log-likelihood of its own tokens after the prompt and what the template's response has
    before it; not by that of what comes behind it, such as the end of the answer.

    Raises:
        PluginError: the task's `choices` break the contract.
        UserError: memory does not suffice, or the model's scores are not finite.
    """
    asked: dict[int, _Asked] = {}
    asking = _Asking(model, task)
    for item, record in records.items():
        try:
            asked[item] = asking.asked(item, record)
        except DataError as error:
            failed[item] = str(error)
    found = model.log_likelihoods([one.branches for one in asked.values()])
    answers = {}
    for (item, one), likelihoods in zip(asked.items(), found, strict=True):
        sums = [float(own.sum(dtype=np.float64)) for own in likelihoods]
        if not np.isfinite(sums).all():
            raise not_finite()
        scores = tuple(total / size for total, size in zip(sums, one.sizes, strict=True))
        try:
            answers[item] = _answer(model, one.candidates, scores)
        except DataError as error:
            failed[item] = f"the candidate cannot be decoded: {error}"
    return answers


class _Asking:
    """Makes sequences of records and candidates."""

    def __init__(self, model: Model, task: Task) -> None:
        assert task.choices is not None
        self._model, self._task, self._choices = model, task, task.choices
        self._template = CompiledTemplate(task.template, task.name)
        self._labels = labels_of(model.plugins)

    def asked(self, item: int, record: Record) -> _Asked:
        """Raises `DataError` for a record that cannot be asked."""
        candidates = _candidates(self._task, self._choices, item, record)
        continuations, sizes = [], []
        for number, candidate in enumerate(candidates):
            try:
                continuations.append(self._continuation(record, candidate))
                sizes.append(self._size(candidate, continuations[-1]))
            except DataError as error:
                raise DataError(f"candidate {number}: {error}") from error
        # what several hold is prepared once
        arrays = {id(one.media): one for one in prepared(_distinct(continuations), self._model.codecs)}
        ready = [
            each._replace(items=tuple(one._replace(arrays=arrays[id(one.media)].arrays) for one in each.items))
            for each in continuations
        ]
        return _Asked(candidates, Branches.of(ready), sizes)

    def _continuation(self, record: Record, candidate: Any) -> Continuation:
        model, data = self._model, self._model.recipe.data
        for value in candidate if isinstance(candidate, list | tuple) else [candidate]:
            _Likely(model).visit(value)
        record = {**record, self._choices.field: candidate}
        document = to_document(record, self._template, data.form, data.system, labels=self._labels, asked=True)
        places = self._template.response_places(record, self._choices.field)
        if not places:
            raise DataError("it is empty: there is nothing to score")
        labelled = sum(one.view == GENERATE for one in document.segments[document.answer :])
        start = document.answer + labelled - len(self._template.response(record))
        ends = (start + places.start, start + places.stop)
        given, whole = (model.renderer.prompt(Document(document.segments[:end], end)) for end in ends)
        context = data.packing.context
        if len(whole.tokens) - 1 > context:
            raise DataError(
                f"it has {len(whole.tokens)} tokens with its prompt; they do not fit the {context} positions that the "
                "model was trained on; shorten the prompt"
            )
        if len(whole.tokens) == len(given.tokens):
            raise DataError("it has no tokens: there is nothing to score")
        return Continuation(whole.tokens, whole.items, len(given.tokens))

    def _size(self, candidate: Any, continuation: Continuation) -> int:
        if self._choices.by == TOKEN:
            return len(continuation.tokens) - continuation.first
        if self._choices.by != CHARACTER:
            return 1
        values = candidate if isinstance(candidate, list | tuple) else [candidate]
        if not (size := sum(len(value) for value in values if isinstance(value, str))):
            raise DataError("it has no text, whose characters its log-likelihood would be divided by")
        return size


def _distinct(continuations: Sequence[Continuation]) -> list[Any]:
    return list({id(item.media): item for one in continuations for item in one.items}.values())


def _candidates(task: Task, choices: Choices, item: int, record: Record) -> list[Any]:
    """The candidates of a record. Raises `PluginError` where they are none."""
    where = f"task `{task.name}`: its `choices.of`"
    try:
        candidates = choices.of(record)
    except DataError:
        raise
    except Exception as error:
        raise plugin_error(where, error) from error
    if isinstance(candidates, str | bytes) or not isinstance(candidates, Sequence) or not len(candidates):
        what = "no candidate" if isinstance(candidates, Sequence) and not candidates else kind(candidates)
        raise PluginError(f"{where} gave {what} for record {item}, not a list of candidates")
    for number, candidate in enumerate(candidates):
        values = candidate if isinstance(candidate, list | tuple) else [candidate]
        for value in values:
            if not isinstance(value, str | Media | Codes | Control):
                raise PluginError(
                    f"{where} gave {kind(value)} as candidate {number} of record {item}, not text, media or a list of "
                    "both"
                )
    return list(candidates)


class _Likely(Visitor[None]):
    """Refuses what has no likelihood."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def text(self, text: str) -> None:
        pass

    def control(self, control: Control) -> None:
        pass

    def media(self, media: Media) -> None:
        self._check(media.modality)

    def codes(self, codes: Codes) -> None:
        self._check(codes.modality)

    def _check(self, name: str) -> None:
        declared = self._model.codecs.modalities.get(name)
        carrier = self._model.renderer.carrier
        parts = () if declared is None else declared.part_names or (name,)
        if any(carrier(part, GENERATE) is Carrier.HEAD for part in parts):
            raise DataError(f"`{name}` is made by a head, and has no log-likelihood")


def _answer(model: Model, candidates: Sequence[Any], scores: tuple[float, ...]) -> Answer:
    """The likeliest candidate, the first of equal ones, as if the model had written it."""
    chosen = max(range(len(scores)), key=scores.__getitem__)
    values = candidates[chosen] if isinstance(candidates[chosen], list | tuple) else [candidates[chosen]]
    written = _Written(model.codecs)
    parts = tuple(written.visit(value) for value in values)
    controls = [content for name, content in parts if name == CONTROL]
    silent = is_silent(controls, model.vocabulary.controls)
    return Answer(parts, tuple(written.spans), silent=silent, scores=scores, chosen=chosen)


class _Written(Visitor[tuple[str, Any]]):
    """A value as a part of an answer."""

    def __init__(self, codecs: Codecs) -> None:
        self._codecs = codecs
        self.spans: list[Codes] = []

    def text(self, text: str) -> tuple[str, Any]:
        return TEXT, text

    def control(self, control: Control) -> tuple[str, Any]:
        return CONTROL, control.name

    def media(self, media: Media) -> tuple[str, Any]:
        self.spans += [
            one if isinstance(one, Codes) else Codes(one.modality, self._codecs.codes(one))
            for one in self._codecs.items(media)
        ]
        return media.modality, self._codecs.round_trip([media])[0]

    def codes(self, codes: Codes) -> tuple[str, Any]:
        self.spans.append(codes)
        return codes.modality, self._codecs.round_trip([codes])[0]
