"""Held-out figures per task: prompts, answers under the span grammar, judges, ceilings and copies.

Ranks share the work in pieces that are the same however many they are: some items of a task, answered together and
judged, or a task's ceiling. So figures do not depend on the number of ranks, and the first rank puts them together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torchmetrics.aggregation import MeanMetric

from mio.core.contract.values import Answer, Record, Task
from mio.core.distributed.ranks import Ranks, without_process_group
from mio.core.errors import DataError, UserError, nearest
from mio.core.evaluation.answering import answer_batch
from mio.core.evaluation.copies import copied_spans, digest
from mio.core.evaluation.judging import OwnedTask
from mio.core.evaluation.samples import list_samples, save_samples
from mio.core.generation.model import Model
from mio.core.recipe.places import SAMPLES
from mio.core.runs.lock import seal_samples

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
    model: Model,
    tasks: Sequence[str] = (),
    items: int = 0,
    progress: Callable[[str], None] = lambda line: None,  # noqa: ARG005
    samples: int = 2,
) -> Report:
    """Figures of a trained model on held-out items, by task. All ranks that the model has been given to call this; the
    first has the figures, the others get none.

    `accuracy` over `n` items; where the task has them, `ceiling` (the judge's verdict on the right answers after the
    codec), `judge` (on the same answers as they are) and `copied` (share of spans that equal a training item's, code by
    code; not of media that a head makes). An item that cannot be asked, decoded or judged counts as wrong: `failed`
    says how many there are, and `failures` why the first of them failed, and why figures are missing. `seconds` are
    those of all ranks.

    `items` and `tasks` default to the recipe's. The first `samples` answers of each task are written to the run folder.

    Raises:
        PluginError: a task's records, judge or ceiling break the contract; the message names task and plugin. Where
            there are several ranks, the process group ends the others.
        UserError: no such task, memory does not suffice, or the model's scores are not finite.
    """
    config = model.recipe.evaluate
    evaluation = Evaluation(model, items or config.items, samples, model.folder / SAMPLES, progress)
    report = evaluation.report(owned_tasks(model, tasks or config.tasks))
    if model.replicas.ranks.first:
        seal_samples(model.folder)
    return report


def owned_tasks(model: Model, names: Sequence[str]) -> list[OwnedTask]:
    """Tasks by name, all of the model's plugins for no name. Raises `UserError` for an unknown one."""
    available = model.plugins.tasks()
    chosen = select_tasks({name: task for name, (_, task) in available.items()}, names)
    return [OwnedTask(available[task.name][0], task) for task in chosen]


@dataclass(frozen=True)
class _Piece:
    """Items of a task to answer and judge, or its ceiling."""

    owned: OwnedTask
    records: Sequence[Record]
    """All of the task."""
    items: range
    """Empty: the ceiling."""


@dataclass
class _Figures:
    """Of one task, while its pieces come in."""

    owned: OwnedTask
    count: int
    pieces: int
    """That are not in yet."""
    right: dict[int, float] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    ceilings: dict[str, float] = field(default_factory=dict)
    spans: list[tuple[str, str]] = field(default_factory=list)
    """Modality and digest of each generated span, of a task whose copies are counted."""
    copied: float | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, result: dict[str, Any]) -> None:
        self.pieces -= 1
        self.right |= dict(result.get("right", ()))
        self.failed |= dict(result.get("failed", ()))
        self.problems += result["problems"]
        self.ceilings |= result.get("ceilings", {})
        self.spans += [(modality, value) for modality, value in result.get("spans", ())]
        self.samples += result.get("samples", ())
        self.seconds += result["seconds"]

    @property
    def accuracy(self) -> float:
        mean = MeanMetric(sync_on_compute=False)
        mean.update(torch.tensor([self.right.get(item, 0.0) for item in range(self.count)]))
        return round(float(mean.compute()), 4)

    @property
    def failures(self) -> list[str]:
        items = [f"{self.owned}, item {item}: {self.failed[item]}" for item in sorted(self.failed)[:_SHOWN]]
        return items + self.problems

    def lines(self) -> list[str]:
        """What is printed when the task is done."""
        also = f", {len(self.failed)} failed" if self.failed else ""
        return [f"{self.owned.task.name}: {self.accuracy:.3f} of {self.count}{also}", *(
            f"  {failure}" for failure in self.failures[:3]
        )]  # fmt: skip

    def result(self) -> dict[str, Any]:
        figures: dict[str, Any] = {"accuracy": self.accuracy, "n": self.count}
        if self.failed:
            figures["failed"] = len(self.failed)
        figures |= {name: round(value, 4) for name, value in self.ceilings.items()}
        if self.copied is not None:
            figures["copied"] = round(self.copied, 4)
        figures["seconds"] = round(self.seconds, 2)
        return figures | ({"failures": self.failures} if self.failures else {})


@dataclass
class Evaluation:
    """What all tasks of an evaluation share."""

    model: Model
    items: int
    """Per task."""
    samples: int
    """Answers of each task that are kept."""
    folder: Path
    """Where these go."""
    progress: Callable[[str], None] = lambda line: None  # noqa: ARG005
    accuracy_alone: bool = False
    """Whether ceilings and copies are left out, which do not change or take long."""
    beat: Callable[[str], None] = lambda task: None  # noqa: ARG005
    """Called with the name of a task before each of this rank's pieces of it."""
    kept: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What `TASK.json` says about the samples, by task; on the first rank."""

    @property
    def ranks(self) -> Ranks:
        return self.model.replicas.ranks

    def report(self, tasks: Sequence[OwnedTask]) -> Report:
        """Figures of the tasks, on the first rank. A collective call."""
        _ = self.model.transformer  # gathered by the process group
        with without_process_group():
            return self._report(tasks)

    def _report(self, tasks: Sequence[OwnedTask]) -> Report:
        records = [owned.records(self.items) for owned in tasks]
        pieces = [self._pieces(owned, those) for owned, those in zip(tasks, records, strict=True)]
        figures = {
            owned.task.name: _Figures(owned, len(those), len(cut))
            for owned, those, cut in zip(tasks, records, pieces, strict=True)
        }
        self._work([piece for cut in pieces for piece in cut], figures)
        if not self.accuracy_alone:
            self._count_copies([one for one in figures.values() if self._has_copies(one.owned.task)])
        return {name: one.result() for name, one in figures.items()} if self.ranks.first else {}

    def _pieces(self, owned: OwnedTask, records: Sequence[Record]) -> list[_Piece]:
        batch = self.model.recipe.evaluate.batch
        starts = range(0, len(records), batch)
        pieces = [_Piece(owned, records, range(start, min(start + batch, len(records)))) for start in starts]
        has_ceiling = owned.task.ceiling is not None and not self.accuracy_alone
        return pieces + ([_Piece(owned, records, range(0))] if has_ceiling else [])

    def _work(self, pieces: Sequence[_Piece], figures: Mapping[str, _Figures]) -> None:
        """Does this rank's share; on the first rank, gathers what all have done."""
        work = self.ranks.share_out(len(pieces))

        def gather() -> None:
            for piece, result in zip(pieces[work.told :], work.results(), strict=False):
                one = figures[piece.owned.task.name]
                one.add(result)
                if not one.pieces:
                    self._tell(one)

        if self.model.replicas.leads:
            for number in work.pieces():
                self.beat(pieces[number].owned.task.name)
                work.finish(number, self._timed(pieces[number]))
                if self.ranks.first:
                    gather()
            self.model.dismiss()
        else:
            self.model.assist()
        self.ranks.barrier()
        if self.ranks.first:
            gather()

    def _tell(self, one: _Figures) -> None:
        self.kept[one.owned.task.name] = one.samples
        try:
            if self.samples:
                list_samples(one.owned, self.folder, one.samples)
        except OSError as error:  # the run may be somebody else's
            problem = _no_samples(one.owned, self.folder, error)
            one.problems += [problem] if problem not in one.problems else []
        for line in one.lines():
            self.progress(line)

    def _timed(self, piece: _Piece) -> dict[str, Any]:
        start = time.perf_counter()
        result = self._answered(piece) if piece.items else self._ceilings(piece)
        return {**result, "seconds": time.perf_counter() - start}

    def _answered(self, piece: _Piece) -> dict[str, Any]:
        owned, model = piece.owned, self.model
        records = {item: piece.records[item] for item in piece.items}
        failed: dict[int, str] = {}
        answers = answer_batch(model, owned.task, records, failed)
        right = owned.verdicts(answers, piece.records, failed) if answers else {}
        result: dict[str, Any] = {"right": [*right.items()], "failed": [*failed.items()], "problems": []}
        if owned.task.copies and not self.accuracy_alone:
            spans = (codes for item, answer in answers.items() if item in right for codes in answer.codes)
            result["spans"] = [(codes.modality, digest(model.codecs, codes)) for codes in spans]
        shown: dict[int, Answer] = {item: answers[item] for item in right if item < self.samples}
        try:
            result["samples"], result["problems"] = save_samples(model, owned, self.folder, records, shown)
        except OSError as error:
            result["problems"] = [_no_samples(owned, self.folder, error)]
        return result

    def _ceilings(self, piece: _Piece) -> dict[str, Any]:
        try:
            return {"ceilings": piece.owned.ceilings(piece.records, self.model.codecs), "problems": []}
        except DataError as error:
            return {"problems": [f"{piece.owned}, no `ceiling`: {error}"]}

    def _has_copies(self, task: Task) -> bool:
        """Whether copies are counted, and what is written is codes: what a head makes has none to compare."""
        parts = self.model.codecs.modalities[task.output].parts
        return task.copies and (parts or task.output) not in self.model.codecs.makers

    def _count_copies(self, tasks: Sequence[_Figures]) -> None:
        wanted: dict[str, list[str]] = {}
        for modality, value in dict.fromkeys(span for one in tasks for span in one.spans):
            wanted.setdefault(modality, []).append(value)
        wanted = self.ranks.broadcast(wanted)
        if not tasks:
            return
        start = time.perf_counter()
        try:
            copied = copied_spans(self.model, {name: set(values) for name, values in wanted.items()}, self.ranks)
        except DataError as error:
            for one in tasks:
                one.problems.append(f"{one.owned}, no `copied`: {error}")
            return
        for one in tasks:
            one.copied = sum(value in copied[modality] for modality, value in one.spans) / max(1, len(one.spans))
            one.seconds += (time.perf_counter() - start) / len(tasks)


def _no_samples(owned: OwnedTask, folder: Path, error: OSError) -> str:
    return f"{owned}, no samples: {error.filename or folder}: {error.strerror or error}"


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
