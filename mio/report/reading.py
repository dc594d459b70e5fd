"""What a run folder says about its run, whatever state it is in: finished, interrupted, in progress, imported.

Every file may be missing, cut short or damaged. What cannot be read is left out and said in `ReportedRun.notes`.
Nothing in a folder is executed, and no plugin is needed.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

from mio.core.checksums import CHECKSUM
from mio.core.errors import MioError, UserError
from mio.core.files import read_json
from mio.core.recipe.chain import LONGEST_CHAIN
from mio.core.recipe.places import JOURNAL, LOCK, METRICS, RECIPE, SUMMARY, VOCABULARY, is_file, run_of_checkpoint
from mio.core.recipe.resolved import load_resolved
from mio.core.recipe.schema import Recipe
from mio.core.training.metric_files import MetricsTable

FINISHED, UNFINISHED, IMPORTED = "finished", "unfinished", "imported"

Metrics = Mapping[int, Mapping[str, float]]
"""Figures by step and name. A figure may be NaN or infinite."""


@dataclass(frozen=True)
class ReportedRun:
    """One run as far as its folder tells."""

    folder: Path
    recipe: Recipe
    lock: Mapping[str, Any]
    summary: Mapping[str, Any]
    """Empty unless the run is finished."""
    metrics: Metrics
    vocabulary: Mapping[str, Any]
    tokens: Sequence[tuple[int, int]] = ()
    """(step, document tokens trained on until then), ascending."""
    notes: list[str] = field(default_factory=list)
    """What could not be read, a line each."""

    @property
    def name(self) -> str:
        return self.recipe.name or self.folder.resolve().name

    @cached_property
    def state(self) -> str:
        """`finished`, `unfinished` or `imported`."""
        if "imported" in self.summary or ("steps" not in self.summary and self.summary):
            return IMPORTED
        return FINISHED if self.summary else UNFINISHED

    @cached_property
    def steps(self) -> int:
        """Optimizer steps that were trained."""
        if self.summary:
            return int(number(self.summary.get("steps")) or 0)
        return max([*self.metrics, *(step for step, _ in self.tokens)], default=0)

    @cached_property
    def trained_tokens(self) -> int | None:
        """Document tokens that were trained on; None where nobody wrote them down."""
        counted = number(self.summary.get("tokens"))
        if counted is not None:
            return int(counted)
        return self.tokens[-1][1] if self.tokens else None

    @cached_property
    def date(self) -> str:
        """When the newest of its records was written, in UTC; empty where there is none."""
        times = []
        for name in (SUMMARY,) if self.summary else (METRICS, JOURNAL, RECIPE):
            try:
                times.append((self.folder / name).stat().st_mtime)
            except OSError:
                continue
        return f"{datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M} UTC" if times else ""

    def tokens_at(self, step: int) -> float | None:
        """Tokens trained on until a step; between steps that have a line, in proportion."""
        if not self.tokens:
            total, steps = self.trained_tokens, self.steps
            return total * step / steps if total is not None and steps else None
        return self._tokens_by_step.get(step) or self._between(step)

    @cached_property
    def _tokens_by_step(self) -> dict[int, int]:
        return dict(self.tokens)

    def _between(self, step: int) -> float:
        place = bisect_right(self.tokens, step, key=itemgetter(0))
        before = self.tokens[place - 1] if place else (0, 0)
        after = self.tokens[place] if place < len(self.tokens) else before
        share = (step - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0.0
        return before[1] + share * (after[1] - before[1])


def read_run(folder: Path) -> ReportedRun:
    """The run of a folder, or of one of its checkpoints.

    Raises:
        UserError: there is no run folder, or its recipe cannot be read.
    """
    folder = run_of_checkpoint(folder) or folder
    if not is_file(folder / RECIPE):
        raise UserError(f"{folder}: holds no run ({RECIPE} is missing)")
    notes: list[str] = []
    return ReportedRun(
        folder,
        load_resolved(folder / RECIPE),
        _json(folder / LOCK, notes),
        _json(folder / SUMMARY, notes, needed=False),
        _metrics(folder / METRICS, notes),
        _json(folder / VOCABULARY, notes),
        list(_tokens(folder / JOURNAL)),
        notes,
    )


def chain_of(run: ReportedRun) -> list[ReportedRun]:
    """The run and the runs that it builds on, the first one first, as far as their folders are there; `notes` of the
    first one say what is not."""
    stages, seen = [run], {run.folder.resolve()}
    while (start := stages[0].recipe.start_from) and len(stages) < LONGEST_CHAIN:
        folder = Path(os.path.normpath(stages[0].folder / start))
        try:
            folder = run_of_checkpoint(folder) or folder
            if folder.resolve() in seen:
                break
            parent = read_run(folder)
        except (MioError, OSError) as error:
            stages[0].notes.append(f"starts from {start}, which is not shown: {error}")
            break
        seen.add(folder.resolve())
        stages.insert(0, parent)
    return stages


def number(value: Any) -> float | None:
    """A number that is finite; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def mapping(value: Any) -> Mapping[str, Any]:
    """An object of JSON; an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> list[Any]:
    """A list of JSON; an empty one in place of anything else."""
    return value if isinstance(value, list) else []


def numbers_in(entry: Mapping[str, Any], *keys: str) -> dict[str, float | None]:
    """Finite numbers by key; None where there is none."""
    return {key: number(entry.get(key)) for key in keys}


def _json(path: Path, notes: list[str], needed: bool = True) -> dict[str, Any]:
    if not needed and not is_file(path):
        return {}
    try:
        content = read_json(path, "it is left out")
    except MioError as error:
        notes.append(str(error))
        return {}
    content.pop(CHECKSUM, None)
    return content


def _metrics(path: Path, notes: list[str]) -> Metrics:
    try:
        return MetricsTable(path).read()
    except OSError as error:
        notes.append(f"{path}: cannot be read ({error.strerror}); it is left out")
        return {}


def _tokens(path: Path) -> Iterator[tuple[int, int]]:
    """Of each step of the journal, the tokens until then. Stops where a line is not whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return
    text = content[: content.rfind(b"\n") + 1].decode("utf-8", "replace").splitlines()
    total = 0
    try:
        for line in csv.DictReader(text):
            step, tokens = line.get("step") or "", line.get("tokens") or ""
            if not re.fullmatch(r"\d{1,18}", step, re.ASCII) or not re.fullmatch(r"\d{1,18}", tokens, re.ASCII):
                return
            total += int(tokens)
            yield int(step), total
    except csv.Error:
        return


def json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a file with one a line. Lines that hold none are passed over: one may be half written."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    content = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(content, Mapping):
                    yield content
    except OSError:
        return
