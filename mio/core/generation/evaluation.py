"""Held-out figures per task: prompts, answers under the span grammar, judges, ceilings and copies."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torchmetrics import MeanMetric

from mio.core.contract.values import TEXT, Answer, CodeArray, Media, Record, Task
from mio.core.data.shards.store import TokenStore, tokenizer_fingerprints
from mio.core.data.sources import open_sources
from mio.core.errors import DataError, MioError, PluginError, UserError, nearest
from mio.core.files import write_json
from mio.core.generation.answer import decode_answer
from mio.core.generation.engine import answer_room, generate_tokens
from mio.core.generation.grammar import Grammar, need_of
from mio.core.generation.judging import ceilings, owned, task_records, verdicts
from mio.core.generation.sampling import SEEDS
from mio.core.recipe.places import SAMPLES
from mio.core.runs.lock import seal_samples
from mio.core.runs.run import Run
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.templates import CompiledTemplate, to_document

RECORDS = 20_000
"""Records of each source that are looked through for copied items."""
_TOLD = 20
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

    `accuracy` over `n` items; where the task has them, `ceiling` (what the judge says of the right answers after the
    codec), `judge` (what it says of them as they are) and `copied` (spans equal to a training item's, code by code). An
    item that cannot be asked, decoded or judged counts as wrong: `failed` says how many there are, and `failures` what
    was wrong with the first of them, and with figures that are missing.

    `items` and `tasks` default to the recipe's. The first `samples` media of each task are written to the run folder.

    Raises:
        PluginError: a task's records, judge or ceiling are none; the message names task and plugin.
        UserError: no such task, or the model's scores are not finite.
    """
    config = run.recipe.evaluate
    report: Report = {}
    known_codes: dict[str, set[bytes]] = {}
    available = run.plugins.tasks()
    chosen = select_tasks({name: task for name, (_, task) in available.items()}, tasks or config.tasks)
    for task in chosen:
        plugin = available[task.name][0]
        report[task.name] = _measure(run, plugin, task, items or config.items, known_codes, progress, samples)
    seal_samples(run.folder)
    return report


def _measure(
    run: Run,
    plugin: str,
    task: Task,
    items: int,
    known_codes: dict[str, set[bytes]],
    progress: Callable[[str], None],
    samples: int,
) -> dict[str, Any]:
    start = time.perf_counter()
    records = task_records(plugin, task, items)
    failed: dict[int, str] = {}
    answers = answer_records(run, task, records, failed)
    answered = {place: answer for place, answer in enumerate(answers) if place not in failed}
    right = verdicts(plugin, task, answered, records, failed) if answered else {}
    accuracy = MeanMetric()
    accuracy.update(torch.tensor([right.get(place, 0.0) for place in range(len(records))]))
    figures: dict[str, Any] = {"accuracy": round(float(accuracy.compute()), 4), "n": len(records)}
    failures = [f"{owned(plugin, task)}, item {place}: {failed[place]}" for place in sorted(failed)[:_TOLD]]
    if failed:
        figures["failed"] = len(failed)
    if task.ceiling is not None:
        try:
            figures |= {name: round(value, 4) for name, value in ceilings(plugin, task, records, run.codecs).items()}
        except DataError as error:
            failures.append(f"{owned(plugin, task)}, no `ceiling`: {error}")
    if task.copies:
        try:
            figures["copied"] = round(copy_rate(run, [*answered.values()], known_codes), 4)
        except DataError as error:
            failures.append(f"{owned(plugin, task)}, no `copied`: {error}")
    figures["seconds"] = round(time.perf_counter() - start, 2)
    shown = [place for place in range(min(samples, len(records))) if place not in failed]
    try:
        failures += save_samples(run, plugin, task, [records[i] for i in shown], [answers[i] for i in shown])
    except OSError as error:  # the run may be somebody else's
        failures.append(f"{owned(plugin, task)}, no samples: {error.filename or run.folder}: {error.strerror or error}")
    progress(f"{task.name}: {figures['accuracy']:.3f} of {len(records)}{f', {len(failed)} failed' if failed else ''}")
    for failure in failures[:3]:
        progress(f"  {failure}")
    return figures | ({"failures": failures} if failures else {})


def answer_records(
    run: Run, task: Task, records: Sequence[Record], failed: dict[int, str] | None = None
) -> list[Answer]:
    """The model's answers to a task's prompts, in order.

    Args:
        failed: where the reason is put, by place, for which there is no answer to a record, but an empty one; without
            it the first one is raised, a `DataError`.
    """
    data = run.recipe.data
    template = CompiledTemplate(task.template, task.name)
    grammar = Grammar.of(run)
    need = need_of(task.output, run.codecs.modalities, only=False)
    context = data.packing.context
    prompts: dict[int, Any] = {}
    reasons: dict[int, str] = {}
    for place, record in enumerate(records):
        try:
            prompt = run.renderer.prompt(to_document(record, template, data.form, data.system))
            answer_room(len(prompt), context, grammar.least(need))
            prompts[place] = prompt
        except DataError as error:
            reasons[place] = str(error)
    answers = {place: Answer(()) for place in range(len(records))}
    order = sorted(prompts, key=lambda place: len(prompts[place]))  # like lengths together waste no padding
    for start in range(0, len(order), run.recipe.evaluate.batch):
        chosen = order[start : start + run.recipe.evaluate.batch]
        batch = [prompts[place] for place in chosen]
        try:
            made = generate_tokens(
                run.transformer, grammar, batch, task.decoding, need, (run.recipe.seed + start) % SEEDS, context
            )
        except UserError as error:
            raise UserError(f"task `{task.name}`: {error}") from error
        for place, tokens in zip(chosen, made, strict=True):
            parsed = parse_tokens(tokens, run.vocabulary, run.codecs.text)
            try:
                answers[place] = decode_answer(run.codecs, parsed.parts, task.output)
            except Exception as error:  # whatever its codes are, one answer does not end the evaluation
                if isinstance(error, MemoryError) or (isinstance(error, MioError) and not isinstance(error, DataError)):
                    raise
                said = f"{error}" if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
                reasons[place] = f"the answer cannot be decoded: {said}"
    if failed is None and reasons:
        first = min(reasons)
        raise DataError(f"task `{task.name}`, item {first}: {reasons[first]}")
    if failed is not None:
        failed |= reasons
    return [answers[place] for place in range(len(records))]


def copy_rate(run: Run, answers: Sequence[Answer], known: dict[str, set[bytes]]) -> float:
    """Share of generated spans that equal a training item's codes one by one. `known` is filled once per modality."""
    spans = [codes for answer in answers for codes in answer.codes]
    for name in {codes.modality for codes in spans} - known.keys():
        known[name] = training_codes(run, name)
    copied = [_values(run.codecs.written(codes)) in known[codes.modality] for codes in spans]
    return sum(copied) / max(1, len(copied))


def training_codes(run: Run, modality: str) -> set[bytes]:
    """Codes of every item of a modality that the run's training data show, from shards where training read these.
    Items that cannot be read are left out, as they were not trained on."""
    every = replace(run.recipe, mixture=replace(run.recipe.mixture, ratios=dict.fromkeys(run.recipe.data.groups, 1.0)))
    tokens = TokenStore(
        Path(run.recipe.runtime.tokens), tokenizer_fingerprints(run.plugins, run.codecs), run.codecs.text.fingerprint
    )
    found: set[bytes] = set()
    seen: set[str] = set()
    for source in open_sources(every, run.plugins, tokens):
        for index in range(min(len(source.records), RECORDS)):
            try:
                for item in run.codecs.items(source.records[index]):
                    if item.modality == modality and not (isinstance(item, Media) and item.key in seen):
                        found.add(_values(run.codecs.written(item)))
                        if isinstance(item, Media):
                            seen.add(item.key)
            except PluginError:
                raise
            except Exception as error:
                if isinstance(error, UserError) and not isinstance(error, DataError):  # a damaged shard
                    raise DataError(str(error)) from error
                continue  # counted when the run was trained
    return found


def _values(codes: CodeArray) -> bytes:
    """The same bytes for the same codes, whatever integers and order in memory a tokenizer gives them in."""
    return np.ascontiguousarray(codes, dtype="<i8").tobytes()


def save_samples(run: Run, plugin: str, task: Task, records: Sequence[Record], answers: Sequence[Answer]) -> list[str]:
    """Writes some answers to the run's folder of samples: media as files, and `TASK.json` with prompts and texts.
    Returns what could not be written, by reason."""
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
            failures.append(f"{owned(plugin, task)}, sample {index}: {error}")
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
