"""Held-out figures per task: prompts, answers under the span grammar, judges, ceilings and copies.

Processes share the work in pieces: some items of a task, answered together and judged, or a task's ceiling. No figure
depends on how many processes there are or how pieces are cut. The first process puts the results together, and writes
them down as they come (see `mio.core.evaluation.items`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mio.core.contract.tasks import Answer, Task
from mio.core.contract.values import Record
from mio.core.distributed.forked import forked
from mio.core.distributed.ranks import Ranks, without_process_group
from mio.core.errors import DataError, UserError
from mio.core.evaluation.answering import answer_batch
from mio.core.evaluation.copies import copied_spans, digest
from mio.core.evaluation.figures import Figures
from mio.core.evaluation.items import ItemFile, described, drawn_from, find_items
from mio.core.evaluation.judging import OwnedTask
from mio.core.evaluation.overrides import Said, decoded
from mio.core.evaluation.processes import worthwhile
from mio.core.evaluation.samples import list_samples, parts_of, prompt_of, save_given, save_media
from mio.core.generation.model import Model
from mio.core.generation.replicas import Replicas
from mio.core.generation.sampling import item_seed
from mio.core.recipe.places import EVALUATION, SAMPLES
from mio.core.runs.lock import seal_samples

Report = dict[str, dict[str, Any]]
"""By task: figures, and under `failures` what could not be measured, if anything."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an evaluation is done; what is left out is as the recipe has it."""

    tasks: Sequence[str] = ()
    items: int = 0
    """Held-out items per task."""
    samples: int = 2
    """First answers of each task whose media are kept."""
    processes: int = 0
    """That share the work, where the model's ranks do not; 0: as many as pay off."""
    said: Said = field(default_factory=dict)
    """What of the tasks' decoding is another."""
    out: Path | None = None
    """Folder that gets items and samples; None: the run folder."""
    finished: bool = False
    """Whether figures of a finished evaluation of the same are taken as they are."""


DEFAULT = Options()


def evaluate(
    model: Model,
    options: Options = DEFAULT,
    progress: Callable[[str], None] = lambda line: None,  # noqa: ARG005
) -> Report:
    """Figures of a trained model on held-out items, by task. All ranks that the model has been given to call this; the
    first has the figures, the others get none.

    The figures of the task's measures (`accuracy` where it names none) over `n` items, with `intervals` of 95 %; where
    the task has them, `ceiling` (of the right answers after the codec), `judge` (of the same answers as they are) and
    `copied` (share of spans that equal a training item's, code by code; not of media that a head makes; `searched` says
    how many of all training records were looked at, where that is not all). An item that cannot be asked, decoded or
    judged counts as wrong, or as its measure says: `failed` says how many there are, and `failures` why the first of
    them failed, and why figures are missing. `seconds` are those of all processes.

    What an evaluation that was ended has measured is not measured again.

    Raises:
        PluginError: a task's records, judge or ceiling break the contract; the message names task and plugin. Where
            there are several ranks, the process group ends the others.
        UserError: no such task, another process measures it in the same place, memory does not suffice, or the model's
            scores are not finite.
    """
    config = model.recipe.evaluate
    folder = options.out or model.folder
    tasks = owned_tasks(model, options.tasks or config.tasks)
    tasks = [replace(owned, task=decoded(owned.task, options.said)) for owned in tasks]
    items = options.items or config.items
    with shared(model, options.processes or worthwhile(model, len(tasks) * items)) as own:
        evaluation = Evaluation(
            own, items, options.samples, folder / SAMPLES, folder / EVALUATION, options.finished, progress
        )
        report = evaluation.report(tasks)
        if own.replicas.ranks.first and folder.resolve() == model.folder.resolve():
            seal_samples(model.folder)
    return report


@contextlib.contextmanager
def shared(model: Model, processes: int) -> Iterator[Model]:
    """The model in so many processes, of which all but this one end with the `with`."""
    if processes == 1 or model.replicas.ranks.size > 1:
        yield model
        return
    transformer = model.transformer
    with forked(processes) as ranks:
        yield replace(model, copy=lambda: (transformer, Replicas(ranks)))


def owned_tasks(model: Model, names: Sequence[str]) -> list[OwnedTask]:
    """Tasks by name, all of the model's plugins for no name. Raises `UserError` for an unknown one."""
    available = model.plugins.tasks()
    for name in names:
        if name not in available:
            raise UserError(model.plugins.no_task(name))
    return [OwnedTask(*available[name]) for name in names or available]


@dataclass(frozen=True)
class _Piece:
    """Items of a task to answer and judge, or its ceiling."""

    owned: OwnedTask
    records: Sequence[Record]
    """All of the task."""
    items: Sequence[int]
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
    kept_in: Path | None = None
    """Where items and the index of training codes go; None: they are not kept, and ceilings and copies, which do not
    change or take long, are left out."""
    finished: bool = False
    """Whether figures of a finished evaluation of the same are taken."""
    progress: Callable[[str], None] = lambda line: None  # noqa: ARG005
    beat: Callable[[str], None] = lambda task: None  # noqa: ARG005
    """Called with the name of a task before each of this rank's pieces of it."""
    kept: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What `TASK.json` says about the samples, by task; on the first rank."""
    _files: dict[str, ItemFile] = field(default_factory=dict)
    _had: Report = field(default_factory=dict)
    """Of tasks whose finished figures are taken."""

    @property
    def ranks(self) -> Ranks:
        return self.model.replicas.ranks

    def report(self, tasks: Sequence[OwnedTask]) -> Report:
        """Figures of the tasks, on the first rank. A collective call."""
        _ = self.model.transformer  # gathered by the process group
        try:
            with without_process_group():
                return self._report(tasks)
        finally:
            for file in self._files.values():
                file.close()

    def _report(self, tasks: Sequence[OwnedTask]) -> Report:
        figures = {owned.task.name: Figures(owned, owned.records(self.items), self.samples) for owned in tasks}
        left = self.ranks.broadcast(self._begin(figures) if self.ranks.first else {})
        measured = {name: figures[name] for name in left}
        pieces = [piece for name, one in measured.items() for piece in self._pieces(one, *left[name])]
        self._work(pieces, measured)
        if self.kept_in is not None:
            self._count_copies([one for one in measured.values() if self._has_copies(one.owned.task)])
        if not self.ranks.first:
            return {}
        return {owned.task.name: self._result(measured.get(owned.task.name), owned.task.name) for owned in tasks}

    def _begin(self, figures: Mapping[str, Figures]) -> dict[str, tuple[list[int], bool]]:
        """What is left to do of each task: items, and whether its ceiling is to be told. On the first rank."""
        left = {}
        for name, one in figures.items():
            if self.kept_in is not None:
                file = ItemFile(self.kept_in, name, described(self.model, one.owned, one.records))
                if self.finished and (items := find_items(file)) is not None:
                    self._had[name] = items.figures
                    continue
                self._resume(file, one)
            unseen = [item for item in range(len(one.records)) if item not in one.seen]
            has_ceiling = one.owned.task.ceiling is not None and self.kept_in is not None
            left[name] = (unseen, has_ceiling and not one.has_ceilings)
        if there := sum(len(one.seen) for one in figures.values()):
            every = sum(len(one.records) for one in figures.values())
            self.progress(f"going on with an evaluation that was ended: {there:,} of {every:,} items are there")
        return left

    def _resume(self, file: ItemFile, one: Figures) -> None:
        """Takes what is there of an evaluation that was ended."""
        try:
            for result in file.begin():
                one.add(result)
        except OSError as error:  # the run may be somebody else's
            one.problems.append(_not_kept(one.owned, "items", file.partial, error))
            file.close()
        else:
            self._files[file.task] = file

    def _pieces(self, one: Figures, items: Sequence[int], has_ceiling: bool) -> list[_Piece]:
        batch = self.model.recipe.evaluate.batch
        cut = [items[start : start + batch] for start in range(0, len(items), batch)]
        pieces = [_Piece(one.owned, one.records, own) for own in [*cut, *([[]] if has_ceiling else [])]]
        one.pieces = len(pieces)
        return pieces

    def _work(self, pieces: Sequence[_Piece], figures: Mapping[str, Figures]) -> None:
        """Does this rank's share; on the first rank, gathers what all have done."""
        work = self.ranks.share_out(len(pieces))

        def gather() -> None:
            for number, result in work.results():
                one = figures[pieces[number].owned.task.name]
                self._keep(one, result)
                one.add(result)
                one.pieces -= 1
                if not one.pieces:
                    self._tell(one)

        if self.ranks.first:
            for one in figures.values():
                if not one.pieces:  # it was ended after its last item
                    self._tell(one)
        if self.model.replicas.leads:
            for number in work.pieces():
                self.ranks.check()
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

    def _keep(self, one: Figures, result: Mapping[str, Any]) -> None:
        """Writes down what a piece gave."""
        file = self._files.get(one.owned.task.name)
        if file is None:
            return
        try:
            file.add(result)
        except OSError as error:
            one.problems.append(_not_kept(one.owned, "items", file.partial, error))
            self._files.pop(one.owned.task.name).close()

    def _tell(self, one: Figures) -> None:
        name = one.owned.task.name
        self.kept[name] = [one.samples[item] for item in sorted(one.samples)]
        try:
            if self.samples:
                list_samples(one.owned, self.folder, self.kept[name])
        except OSError as error:  # the run may be somebody else's
            problem = _not_kept(one.owned, "samples", self.folder, error)
            one.problems += [problem] if problem not in one.problems else []
        for line in one.lines():
            self.progress(line)

    def _result(self, one: Figures | None, name: str) -> dict[str, Any]:
        """What the report says about a task, whose items are then finished. On the first rank."""
        if one is None:
            return self._had[name]
        result = one.result()
        if (file := self._files.get(name)) is not None:
            try:
                file.finish(result)
            except OSError as error:
                one.problems.append(_not_kept(one.owned, "items", file.finished, error))
                return one.result()
        return result

    def _timed(self, piece: _Piece) -> dict[str, Any]:
        start = time.perf_counter()
        result = self._answered(piece) if piece.items else self._ceilings(piece)
        return {**result, "seconds": time.perf_counter() - start}

    def _answered(self, piece: _Piece) -> dict[str, Any]:
        owned, model, failed = piece.owned, self.model, dict[int, str]()
        answers = answer_batch(model, owned.task, {item: piece.records[item] for item in piece.items}, failed)
        verdicts = owned.verdicts(answers, piece.records, failed) if answers else {}
        counts_copies = self.kept_in is not None and self._has_copies(owned.task)
        lines, problems = [], list[str]()
        for item in piece.items:
            line: dict[str, Any] = {"item": item, "seed": item_seed(drawn_from(model.recipe), owned.task.name, item)}
            with contextlib.suppress(DataError):  # it is why the item has failed
                line["prompt"] = prompt_of(owned.task, piece.records[item])
            if item in answers:
                line |= self._output(owned, item, piece.records[item], answers[item], problems)
            if item in verdicts:
                line["verdicts"] = verdicts[item]
                if counts_copies:
                    codes = answers[item].codes
                    line["codes"] = [(one.modality, digest(model.codecs, one)) for one in codes]
            if item in failed:
                line["failure"] = failed[item]
            lines.append(line)
        return {"items": lines, "problems": problems}

    def _output(
        self, owned: OwnedTask, item: int, record: Record, answer: Answer, problems: list[str]
    ) -> dict[str, Any]:
        """What an item's line says of its answer. Media of the first items are written to files, and so is what they
        were asked."""
        output, given = parts_of(answer), dict[str, Any]()
        if item < self.samples:
            try:
                output = save_media(self.model, owned, self.folder, item, answer)
                given = save_given(self.model, owned, self.folder, item, record, problems)
            except DataError as error:
                problems.append(f"{owned}, sample {item}: {error}")
            except OSError as error:
                problem = _not_kept(owned, "samples", self.folder, error)
                problems += [problem] if problem not in problems else []
        chosen = {"chosen": answer.chosen, "scores": list(answer.scores)} if answer.chosen is not None else {}
        return {"output": output, **chosen, **given}

    def _ceilings(self, piece: _Piece) -> dict[str, Any]:
        try:
            return {"ceilings": piece.owned.ceilings(piece.records, self.model.codecs), "problems": []}
        except DataError as error:
            return {"ceilings": {}, "problems": [f"{piece.owned}, no `ceiling`: {error}"]}

    def _has_copies(self, task: Task) -> bool:
        """Whether copies are counted, and what is written is codes: what a head makes has none to compare."""
        parts = self.model.codecs.modalities[task.output].part_names or (task.output,)
        return task.copies and not any(part in self.model.codecs.makers for part in parts)

    def _count_copies(self, tasks: Sequence[Figures]) -> None:
        wanted: dict[str, list[str]] = {}
        for modality, value in dict.fromkeys(span for one in tasks for span in one.spans):
            wanted.setdefault(modality, []).append(value)
        wanted = self.ranks.broadcast(wanted)
        if not tasks:
            return
        start = time.perf_counter()
        try:
            copies = copied_spans(self.model, wanted, self.ranks, self.kept_in)
        except DataError as error:
            for one in tasks:
                one.problems.append(f"{one.owned}, no `copied`: {error}")
            return
        for one in tasks:
            one.copies = copies
            one.seconds += (time.perf_counter() - start) / len(tasks)


def _not_kept(owned: OwnedTask, what: str, place: Path, error: OSError) -> str:
    return f"{owned}, no {what}: {error.filename or place}: {error.strerror or error}"
