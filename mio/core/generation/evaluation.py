"""Held-out figures per task: prompts, answers under the span grammar, judges, ceilings and copies."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torchmetrics.aggregation import MeanMetric

from mio.core.contract.values import TEXT, Answer, CodeArray, Media, Record, Task
from mio.core.data.shards.store import TokenStore, tokenizer_fingerprints
from mio.core.data.sources import open_sources
from mio.core.errors import DataError, MioError, PluginError, UserError, nearest
from mio.core.files import write_json
from mio.core.generation.answer import decode_answer
from mio.core.generation.engine import answer_room, generate_tokens
from mio.core.generation.grammar import Grammar, need_of
from mio.core.generation.judging import OwnedTask
from mio.core.generation.sampling import SEEDS
from mio.core.recipe.places import SAMPLES
from mio.core.runs.lock import seal_samples
from mio.core.runs.run import Run
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.rendering import TokenArray
from mio.core.tokens.templates import CompiledTemplate, to_document

RECORDS = 20_000
"""Records of each source that are searched for copied items."""
_SHOWN = 20
"""Failures of a task that are described."""

Report = dict[str, dict[str, Any]]
"""By task: figures, and under `failures` what could not be measured, if anything."""


def select_tasks(available: Mapping[str, Task], names: Sequence[str]) -> list[Task]:
    """Tasks by name, all of them for no name. Raises `UserError` for an unknown one."""
    for name in names:
        if name not in available:
            raise UserError(f"no task `{name}`{nearest(name, available)}; this run has {', '.join(sorted(available))}")
    return [available[name] for name in names] if names else list(available.values())


def evaluate(
    run: Run,
    tasks: Sequence[str] = (),
    items: int = 0,
    progress: Callable[[str], None] = lambda line: None,  # noqa: ARG005
    samples: int = 2,
) -> Report:
    """Figures of a finished run on held-out items, by task.

    `accuracy` over `n` items; where the task has them, `ceiling` (the judge's verdict on the right answers after the
    codec), `judge` (on the same answers as they are) and `copied` (share of spans that equal a training item's, code by
    code). An item that cannot be asked, decoded or judged counts as wrong: `failed` says how many there are, and
    `failures` why the first of them failed, and why figures are missing.

    `items` and `tasks` default to the recipe's. The first `samples` answers of each task are written to the run folder.

    Raises:
        PluginError: a task's records, judge or ceiling break the contract; the message names task and plugin.
        UserError: no such task, or the model's scores are not finite.
    """
    config = run.recipe.evaluate
    available = run.plugins.tasks()
    chosen = select_tasks({name: task for name, (_, task) in available.items()}, tasks or config.tasks)
    evaluation = _Evaluation(run, items or config.items, samples, progress)
    report = {task.name: evaluation.figures(OwnedTask(available[task.name][0], task)) for task in chosen}
    seal_samples(run.folder)
    return report


@dataclass
class _Evaluation:
    """What all tasks of an evaluation share."""

    run: Run
    items: int
    samples: int
    progress: Callable[[str], None]
    training: dict[str, set[bytes]] = field(default_factory=dict)
    """Codes of training items by modality, collected when first needed."""

    def figures(self, owned: OwnedTask) -> dict[str, Any]:
        """Figures of one task, with `failures` if there are any."""
        start = time.perf_counter()
        task, run = owned.task, self.run
        records = owned.records(self.items)
        failed: dict[int, str] = {}
        answers = answer_records(run, task, records, failed)
        answered = {item: answer for item, answer in enumerate(answers) if item not in failed}
        right = owned.verdicts(answered, records, failed) if answered else {}
        accuracy = MeanMetric()
        accuracy.update(torch.tensor([right.get(item, 0.0) for item in range(len(records))]))
        figures: dict[str, Any] = {"accuracy": round(float(accuracy.compute()), 4), "n": len(records)}
        failures = [f"{owned}, item {item}: {failed[item]}" for item in sorted(failed)[:_SHOWN]]
        if failed:
            figures["failed"] = len(failed)
        if task.ceiling is not None:
            try:
                figures |= {name: round(value, 4) for name, value in owned.ceilings(records, run.codecs).items()}
            except DataError as error:
                failures.append(f"{owned}, no `ceiling`: {error}")
        if task.copies:
            try:
                figures["copied"] = round(copy_rate(run, [*answered.values()], self.training), 4)
            except DataError as error:
                failures.append(f"{owned}, no `copied`: {error}")
        figures["seconds"] = round(time.perf_counter() - start, 2)
        shown = [item for item in range(min(self.samples, len(records))) if item not in failed]
        try:
            failures += save_samples(run, owned, [records[item] for item in shown], [answers[item] for item in shown])
        except OSError as error:  # the run may be somebody else's
            failures.append(f"{owned}, no samples: {error.filename or run.folder}: {error.strerror or error}")
        also = f", {len(failed)} failed" if failed else ""
        self.progress(f"{task.name}: {figures['accuracy']:.3f} of {len(records)}{also}")
        for failure in failures[:3]:
            self.progress(f"  {failure}")
        return figures | ({"failures": failures} if failures else {})


def answer_records(
    run: Run, task: Task, records: Sequence[Record], failed: dict[int, str] | None = None
) -> list[Answer]:
    """The model's answers to a task's prompts, in order.

    Args:
        failed: gets the reason, by number, why a record has no answer; its answer is empty then. Without it the first
            reason is raised as a `DataError`.
    """
    grammar = Grammar.of(run)
    need = need_of(task.output, run.codecs.modalities, only=False)
    reasons: dict[int, str] = {}
    prompts = _prompts(run, task, records, grammar.least(need), reasons)
    answers = {item: Answer(()) for item in range(len(records))}
    order = sorted(prompts, key=lambda item: len(prompts[item]))  # prompts of like length need little padding
    for start in range(0, len(order), run.recipe.evaluate.batch):
        items = order[start : start + run.recipe.evaluate.batch]
        batch, seed = [prompts[item] for item in items], (run.recipe.seed + start) % SEEDS
        context = run.recipe.data.packing.context
        try:
            generated = generate_tokens(run.transformer, grammar, batch, task.decoding, need, seed, context)
        except UserError as error:
            raise UserError(f"task `{task.name}`: {error}") from error
        for item, tokens in zip(items, generated, strict=True):
            parsed = parse_tokens(tokens, run.vocabulary, run.codecs.text)
            try:
                answers[item] = decode_answer(run.codecs, parsed.parts, task.output)
            except Exception as error:  # whatever its codes are, one answer does not end the evaluation
                if isinstance(error, MemoryError) or (isinstance(error, MioError) and not isinstance(error, DataError)):
                    raise
                kind = "" if isinstance(error, DataError) else f"{type(error).__name__}: "
                reasons[item] = f"the answer cannot be decoded: {kind}{error}"
    if failed is None and reasons:
        first = min(reasons)
        raise DataError(f"task `{task.name}`, item {first}: {reasons[first]}")
    if failed is not None:
        failed |= reasons
    return [answers[item] for item in range(len(records))]


def _prompts(
    run: Run, task: Task, records: Sequence[Record], shortest: int, reasons: dict[int, str]
) -> dict[int, TokenArray]:
    """Prompts by number of their record. `reasons` gets those that cannot be made, or leave no room for the `shortest`
    answer."""
    data = run.recipe.data
    template = CompiledTemplate(task.template, task.name)
    prompts = {}
    for item, record in enumerate(records):
        try:
            prompt = run.renderer.prompt(to_document(record, template, data.form, data.system))
            answer_room(len(prompt), data.packing.context, shortest)
            prompts[item] = prompt
        except DataError as error:
            reasons[item] = str(error)
    return prompts


def copy_rate(run: Run, answers: Sequence[Answer], training: dict[str, set[bytes]]) -> float:
    """Share of generated spans that equal a training item's codes one by one. `training` keeps `training_codes` by
    modality from call to call."""
    spans = [codes for answer in answers for codes in answer.codes]
    for name in {codes.modality for codes in spans} - training.keys():
        training[name] = training_codes(run, name)
    copied = [_values(run.codecs.written(codes)) in training[codes.modality] for codes in spans]
    return sum(copied) / max(1, len(copied))


def training_codes(run: Run, modality: str) -> set[bytes]:
    """Codes of every item of a modality in the run's training data, from shards where training read these. Items that
    cannot be read are left out, as training left them out."""
    every = replace(run.recipe, mixture=replace(run.recipe.mixture, ratios=dict.fromkeys(run.recipe.data.groups, 1.0)))
    tokens = TokenStore(
        Path(run.recipe.runtime.tokens), tokenizer_fingerprints(run.plugins, run.codecs), run.codecs.text.fingerprint
    )
    codes: set[bytes] = set()
    seen: set[str] = set()
    for source in open_sources(every, run.plugins, tokens):
        for index in range(min(len(source.records), RECORDS)):
            try:
                for item in run.codecs.items(source.records[index]):
                    if item.modality == modality and not (isinstance(item, Media) and item.key in seen):
                        codes.add(_values(run.codecs.written(item)))
                        if isinstance(item, Media):
                            seen.add(item.key)
            except PluginError:
                raise
            except Exception as error:
                if isinstance(error, UserError) and not isinstance(error, DataError):  # a damaged shard
                    raise DataError(str(error)) from error
                continue  # training has counted it
    return codes


def _values(codes: CodeArray) -> bytes:
    """The same bytes for the same codes, whatever integers and order in memory a tokenizer gives them in."""
    return np.ascontiguousarray(codes, dtype="<i8").tobytes()


def save_samples(run: Run, owned: OwnedTask, records: Sequence[Record], answers: Sequence[Answer]) -> list[str]:
    """Writes answers to the run's folder of samples: media as files, and `TASK.json` with prompts and texts. Returns
    the failures."""
    task = owned.task
    folder = run.folder / SAMPLES / Path(task.name).parent  # names may have slashes
    folder.mkdir(parents=True, exist_ok=True)
    name = Path(task.name).name
    template = CompiledTemplate(task.template, task.name)
    samples, failures = [], []
    for index, (record, answer) in enumerate(zip(records, answers, strict=True)):
        try:
            parts = []
            for place, (modality, content) in enumerate(answer.parts):
                if modality == TEXT:
                    parts.append({"type": modality, "text": content})
                else:
                    path = run.codecs.detokenizer(modality).save(content, folder / f"{name}-{index}-{place}")
                    parts.append({"type": modality, "path": path.name})
            prompt = [
                value if isinstance(value, str) else f"{{{value.modality}:{getattr(value, 'key', 'codes')}}}"
                for value in template.prompt(record)
            ]
            samples.append({"prompt": "".join(prompt), "answer": parts})
        except DataError as error:
            failures.append(f"{owned}, sample {index}: {error}")
    write_json(folder / f"{name}.json", samples)
    return failures


def results_table(report: Report) -> Table:
    """The figures as a table to print, one row per task."""
    numbers = {
        task: {name: value for name, value in figures.items() if name != "failures"} for task, figures in report.items()
    }
    columns = list(dict.fromkeys(name for figures in numbers.values() for name in figures))
    table = Table("task", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    for task, figures in numbers.items():
        table.add_row(task, *(f"{figures[name]:g}" if name in figures else "" for name in columns))
    return table
