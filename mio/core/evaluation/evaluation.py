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

from rich.table import Table

from mio.core.contract.tasks import Answer, Task
from mio.core.contract.values import Record
from mio.core.distributed.ranks import Ranks, without_process_group
from mio.core.errors import DataError, UserError, nearest
from mio.core.evaluation.answering import answer_batch
from mio.core.evaluation.copies import copied_spans, digest
from mio.core.evaluation.figures import Figures
from mio.core.evaluation.judging import OwnedTask
from mio.core.evaluation.samples import list_samples, save_samples
from mio.core.generation.model import Model
from mio.core.recipe.places import SAMPLES
from mio.core.runs.lock import seal_samples

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

    The figures of the task's measures (`accuracy` where it names none) over `n` items, with `intervals` of 95 %; where
    the task has them, `ceiling` (of the right answers after the codec), `judge` (of the same answers as they are) and
    `copied` (share of spans that equal a training item's, code by code; not of media that a head makes). An item that
    cannot be asked, decoded or judged counts as wrong, or as its measure says: `failed` says how many there are, and
    `failures` why the first of them failed, and why figures are missing. `seconds` are those of all ranks.

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
    for name in names:
        if name not in available:
            raise UserError(model.plugins.no_task(name))
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
    figures_alone: bool = False
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
            owned.task.name: Figures(owned, those, len(cut))
            for owned, those, cut in zip(tasks, records, pieces, strict=True)
        }
        self._work([piece for cut in pieces for piece in cut], figures)
        if not self.figures_alone:
            self._count_copies([one for one in figures.values() if self._has_copies(one.owned.task)])
        return {name: one.result() for name, one in figures.items()} if self.ranks.first else {}

    def _pieces(self, owned: OwnedTask, records: Sequence[Record]) -> list[_Piece]:
        batch = self.model.recipe.evaluate.batch
        starts = range(0, len(records), batch)
        pieces = [_Piece(owned, records, range(start, min(start + batch, len(records)))) for start in starts]
        has_ceiling = owned.task.ceiling is not None and not self.figures_alone
        return pieces + ([_Piece(owned, records, range(0))] if has_ceiling else [])

    def _work(self, pieces: Sequence[_Piece], figures: Mapping[str, Figures]) -> None:
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

    def _tell(self, one: Figures) -> None:
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
        verdicts = owned.verdicts(answers, piece.records, failed) if answers else {}
        result: dict[str, Any] = {"verdicts": [*verdicts.items()], "failed": [*failed.items()], "problems": []}
        if owned.task.copies and not self.figures_alone:
            spans = (codes for item, answer in answers.items() if item in verdicts for codes in answer.codes)
            result["spans"] = [(codes.modality, digest(model.codecs, codes)) for codes in spans]
        shown: dict[int, Answer] = {item: answers[item] for item in verdicts if item < self.samples}
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

    def _count_copies(self, tasks: Sequence[Figures]) -> None:
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
    rows = {task: _cells(figures) for task, figures in report.items()}
    columns = list(dict.fromkeys(name for cells in rows.values() for name in cells))
    table = Table("task", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    for task, cells in rows.items():
        table.add_row(task, *(cells.get(name, "") for name in columns))
    return table


def _cells(figures: Mapping[str, Any]) -> dict[str, str]:
    """What is shown of a task, by column; the interval of a figure stands behind it."""
    intervals = figures.get("intervals", {})
    cells = {name: f"{value:g}" for name, value in figures.items() if isinstance(value, int | float)}
    for name, (low, high) in intervals.items():
        cells[name] += f" ({low:.3f}-{high:.3f})"
    return cells
