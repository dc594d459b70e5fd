"""Held-out figures per task: prompts, answers under the span grammar, judges, ceilings and copies."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from rich.table import Table
from torchmetrics import MeanMetric

from mio.core.data.sources import open_sources
from mio.core.errors import UserError
from mio.core.files import write_text
from mio.core.generation.answer import decode_answer
from mio.core.generation.engine import generate_tokens
from mio.core.generation.grammar import need_of
from mio.core.locking import seal_samples
from mio.core.modality import TEXT, Answer, Codes, Media, Record, Task
from mio.core.parsing import parse_tokens
from mio.core.run import SAMPLES, Run
from mio.core.suggest import nearest
from mio.core.templates import CompiledTemplate, to_document

RECORDS = 20_000
"""Records of each source that are looked through for copied items."""

Report = dict[str, dict[str, float]]


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
    codec), `judge` (what it says of them as they are) and `copied` (spans equal to a training item's, code by code).

    `items` and `tasks` default to the recipe's. The first `samples` media of each task are written to the run folder.
    """
    config = run.recipe.evaluate
    report: Report = {}
    known_codes: dict[str, set[bytes]] = {}
    available = {name: task for name, (_, task) in run.plugins.tasks().items()}
    for task in select_tasks(available, tasks or config.tasks):
        start = time.perf_counter()
        records = task.records(items or config.items)
        answers = answer_records(run, task, records)
        right = MeanMetric()
        right.update(torch.tensor([float(value) for value in task.judge(answers, records)]))
        figures = {"accuracy": round(float(right.compute()), 4), "n": len(records)}
        if task.ceiling is not None:
            figures["ceiling"] = round(task.ceiling(records, run.codecs.round_trip), 4)
            figures["judge"] = round(task.ceiling(records, run.codecs.originals), 4)
        if task.copies:
            figures["copied"] = round(copy_rate(run, answers, known_codes), 4)
        figures["seconds"] = round(time.perf_counter() - start, 2)
        report[task.name] = figures
        save_samples(run, task, records[:samples], answers[:samples])
        progress(f"{task.name}: {figures['accuracy']:.3f} of {len(records)}")
    seal_samples(run.folder)
    return report


def answer_records(run: Run, task: Task, records: Sequence[Record]) -> list[Answer]:
    """The model's answers to a task's prompts, in order."""
    data = run.recipe.data
    template = CompiledTemplate(task.template, task.name)
    prompts = [run.renderer.prompt(to_document(record, template, data.form, data.system)) for record in records]
    need = need_of(task.output, run.codecs.modalities, only=False)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # like lengths together waste no padding
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), run.recipe.evaluate.batch):
        chosen = order[start : start + run.recipe.evaluate.batch]
        batch = [prompts[i] for i in chosen]
        made = generate_tokens(run.transformer, run.grammar, batch, task.decoding, need, run.recipe.seed + start)
        for index, tokens in zip(chosen, made, strict=True):
            parsed = parse_tokens(tokens, run.vocabulary, run.codecs.text)
            answers[index] = decode_answer(run.codecs, parsed.parts, task.output)
    return [answers[index] for index in range(len(records))]


def copy_rate(run: Run, answers: Sequence[Answer], known: dict[str, set[bytes]]) -> float:
    """Share of generated spans that equal a training item's codes one by one. `known` is filled once per modality."""
    spans = [codes for answer in answers for codes in answer.codes]
    for name in {codes.modality for codes in spans} - known.keys():
        known[name] = training_codes(run, name)
    copied = [codes.codes.tobytes() in known[codes.modality] for codes in spans]
    return sum(copied) / max(1, len(copied))


def training_codes(run: Run, modality: str) -> set[bytes]:
    """Codes of every item of a modality that the run's training data show."""
    every = replace(run.recipe, mixture=replace(run.recipe.mixture, ratios=dict.fromkeys(run.recipe.data.groups, 1.0)))
    items: dict[str, Media | Codes] = {}
    for source in open_sources(every, run.plugins):
        for index in range(min(len(source.records), RECORDS)):
            for item in run.codecs.items(source.records[index]):
                if item.modality == modality:
                    items[item.key if isinstance(item, Media) else f"{source.label}:{index}"] = item
    view = list(run.codecs.modalities[modality].view("generate"))
    return {run.codecs.codes(item)[view].tobytes() for item in items.values()}


def save_samples(run: Run, task: Task, records: Sequence[Record], answers: Sequence[Answer]) -> None:
    """Writes some answers to the run's folder of samples: media as files, and `TASK.json` with prompts and texts."""
    folder = run.folder / SAMPLES
    folder.mkdir(exist_ok=True)
    template = CompiledTemplate(task.template, task.name)
    samples = []
    for index, (record, answer) in enumerate(zip(records, answers, strict=True)):
        parts = []
        for place, (name, content) in enumerate(answer.parts):
            if name == TEXT:
                parts.append({"type": name, "text": content})
            else:
                path = run.codecs.detokenizer(name).save(content, folder / f"{task.name}-{index}-{place}")
                parts.append({"type": name, "path": path.name})
        prompt = [
            value if isinstance(value, str) else f"{{{value.modality}:{getattr(value, 'key', 'codes')}}}"
            for value in template.prompt(record)
        ]
        samples.append({"prompt": "".join(prompt), "answer": parts})
    write_text(folder / f"{task.name}.json", json.dumps(samples, indent=1, ensure_ascii=False))


def results_table(report: Report) -> Table:
    """The figures as a table to print, one row per task."""
    columns = list(dict.fromkeys(name for figures in report.values() for name in figures))
    table = Table("task", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    for task, figures in report.items():
        table.add_row(task, *(f"{figures[name]:g}" if name in figures else "" for name in columns))
    return table
