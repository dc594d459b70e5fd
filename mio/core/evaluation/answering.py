"""A model's answers to the prompts of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mio.core.contract.tasks import Answer, Task
from mio.core.contract.values import Record
from mio.core.data.items import prepared
from mio.core.errors import DataError, MioError, UserError
from mio.core.evaluation.choices import choose_batch
from mio.core.evaluation.items import drawn_from
from mio.core.generation.answer import read_answer
from mio.core.generation.engine import answer_room
from mio.core.generation.grammar import Need
from mio.core.generation.model import Model, need_from
from mio.core.generation.sampling import item_seed
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendered import Prompt
from mio.core.tokens.templates import CompiledTemplate, to_document


def answer_records(
    model: Model, task: Task, records: Sequence[Record], failed: dict[int, str] | None = None
) -> list[Answer]:
    """The model's answers to a task's prompts, in order.

    Args:
        failed: gets the reason, by number, why a record has no answer; its answer is empty then. Without it the first
            reason is raised as a `DataError`.
    """
    reasons: dict[int, str] = {}
    answers: dict[int, Answer] = {}
    for start in range(0, len(records), model.recipe.evaluate.batch):
        items = range(start, min(start + model.recipe.evaluate.batch, len(records)))
        answers |= answer_batch(model, task, {item: records[item] for item in items}, reasons)
    if failed is None and reasons:
        first = min(reasons)
        raise DataError(f"task `{task.name}`, item {first}: {reasons[first]}")
    if failed is not None:
        failed |= reasons
    return [answers.get(item, Answer(())) for item in range(len(records))]


def need_of_task(task: Task, codecs: Codecs) -> Need:
    """What an answer to a task needs. Raises `UserError` with the task's name where there can be none."""
    try:
        return need_from(codecs, task.output, False, task.decoding)
    except UserError as error:
        raise UserError(f"task `{task.name}`: {error}") from error


def answer_batch(model: Model, task: Task, records: Mapping[int, Record], failed: dict[int, str]) -> dict[int, Answer]:
    """Answers to some items of a task, decoded or compared together, by their numbers. An item that has none is left
    out, and `failed` gets the reason."""
    if task.choices is not None:
        return choose_batch(model, task, records, failed)
    need = need_of_task(task, model.codecs)
    prompts = _prompts(model, task, records, model.grammar.least(need), failed)
    if not prompts:
        return {}
    items = sorted(prompts, key=lambda item: len(prompts[item].tokens))
    seeds = [item_seed(drawn_from(model.recipe), task.name, item) for item in items]
    try:
        generated = model.answers([prompts[item] for item in items], task.decoding, need, seeds)
    except UserError as error:
        raise UserError(f"task `{task.name}`: {error}") from error
    answers = {}
    for item, given in zip(items, generated, strict=True):
        try:
            answers[item] = read_answer(given, model.vocabulary, model.codecs, task.output, task.decoding.stop)
        except Exception as error:  # whatever its codes are, one answer does not end the evaluation
            if isinstance(error, MemoryError) or (isinstance(error, MioError) and not isinstance(error, DataError)):
                raise
            kind = "" if isinstance(error, DataError) else f"{type(error).__name__}: "
            failed[item] = f"the answer cannot be decoded: {kind}{error}"
    return {item: answers[item] for item in sorted(answers)}


def _prompts(
    model: Model, task: Task, records: Mapping[int, Record], shortest: int, failed: dict[int, str]
) -> dict[int, Prompt]:
    """Prompts by number of their record. `failed` gets those that cannot be made, or leave no room for the `shortest`
    answer."""
    data = model.recipe.data
    template = CompiledTemplate(task.template, task.name)
    prompts = {}
    for item, record in records.items():
        try:
            prompt = model.renderer.prompt(to_document(record, template, data.form, data.system, asked=True))
            answer_room(len(prompt.tokens), data.packing.context, shortest)
            prompts[item] = prompt._replace(items=prepared(prompt.items, model.codecs))
        except DataError as error:
            failed[item] = str(error)
    return prompts
