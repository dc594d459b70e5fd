"""Judges' verdicts on answers, checked: judges are functions of plugins and may return anything."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mio.core.contract.tasks import Answer, Task
from mio.core.contract.validation import kind
from mio.core.contract.values import Record
from mio.core.errors import DataError, MioError, PluginError
from mio.core.evaluation.verdicts import Verdict, WrongVerdictError, expected, number, read_verdict, shown
from mio.core.tokens.codecs import Codecs

_OWN = str(Path(__file__).parents[1])
"""The core, whose lines say nothing about a plugin's mistake."""


@dataclass(frozen=True)
class OwnedTask:
    """A task and the plugin that it comes from. As a string it is the task's name for messages."""

    plugin: str
    task: Task

    def __str__(self) -> str:
        return f"task `{self.task.name}` of plugin `{self.plugin}`"

    def records(self, count: int) -> list[Record]:
        """The held-out records. Raises `PluginError` if there are none, or if they are not records."""
        try:
            answer = self.task.records(count)
        except Exception as error:
            raise plugin_error(f"{self}: `records`", error) from error
        if isinstance(answer, str | bytes | Mapping) or not isinstance(answer, Iterable):
            raise PluginError(f"{self}: `records` gave {kind(answer)}, not a list of records")
        records = list(islice(answer, count))
        for item, record in enumerate(records):
            if not isinstance(record, Mapping):
                raise PluginError(f"{self}: record {item} is {kind(record)}, not a mapping of fields")
        if not records:
            raise PluginError(f"{self}: it has no held-out records")
        return records

    def verdicts(
        self, answers: Mapping[int, Answer], records: Sequence[Record], failed: dict[int, str]
    ) -> dict[int, Verdict]:
        """What each answer is worth, by the number of its record.

        An answer for which the judge raises `DataError` has no verdict; `failed` gets the reason.

        Raises:
            PluginError: the judge returned anything but one value for each answer that the task's measures take.
        """
        items = list(answers)
        try:
            returned = self.task.judge([answers[item] for item in items], [records[item] for item in items])
            values = _listed(returned, len(items) + 1)
        except DataError as error:
            if len(items) == 1:
                failed[items[0]] = f"the judge cannot tell: {error}"
                return {}
            verdicts: dict[int, Verdict] = {}  # one by one: which of them can it not judge?
            for item in items:
                verdicts |= self.verdicts({item: answers[item]}, records, failed)
            return verdicts
        except Exception as error:
            raise plugin_error(f"{self}: its judge", error) from error
        try:
            return self._read(returned, values, items)
        except WrongVerdictError as error:
            raise PluginError(
                f"{self}: its judge returned {error}, not {expected(self.task)} for each of {len(items)} answers"
            ) from error

    def _read(self, returned: Any, values: list[Any] | None, items: Sequence[int]) -> dict[int, Verdict]:
        if values is None:
            raise WrongVerdictError(shown(returned))
        if len(values) != len(items):
            count = f"more than {len(items)}" if len(values) > len(items) else len(values)
            raise WrongVerdictError(f"{count} values")
        verdicts = {}
        for item, value in zip(items, values, strict=True):
            try:
                verdicts[item] = read_verdict(self.task, value)
            except WrongVerdictError as error:
                raise WrongVerdictError(f"{error} for item {item}") from None
        return verdicts

    def ceilings(self, records: Sequence[Record], codecs: Codecs) -> dict[str, float]:
        """`ceiling`, the figure of the right answers after the codec, and `judge`, of them as they are; of measures but
        the first with their names behind: `ceiling/NAME`.

        Raises:
            DataError: the media of a record cannot be read or decoded, or the judge cannot tell.
            PluginError: `ceiling` returned anything but figures.
        """
        assert self.task.ceiling is not None
        figures = {}
        for name, through in (("ceiling", codecs.round_trip), ("judge", codecs.originals)):
            try:
                returned = self.task.ceiling(records, through)
            except DataError:
                raise
            except Exception as error:
                raise plugin_error(f"{self}: its `ceiling`", error) from error
            for measure, value in self._ceilings(returned).items():
                figures[name if measure == self.task.measure.name else f"{name}/{measure}"] = value
        return figures

    def _ceilings(self, returned: Any) -> dict[str, float]:
        """By measure."""
        measures = {measure.name: measure for measure in self.task.measures}
        given = returned if isinstance(returned, Mapping) else {self.task.measure.name: returned}
        figures = {}
        for name, value in given.items():
            if name not in measures:
                raise PluginError(f"{self}: `ceiling` gave a figure of `{name}`, which is no measure of the task")
            measure, figure = measures[name], number(value)
            bounds = (-math.inf, math.inf) if measure.overall else (measure.least, measure.most)
            if figure is None or not bounds[0] <= figure <= bounds[1]:
                wanted = "a number" if measure.overall else f"a number from {measure.least:g} to {measure.most:g}"
                raise PluginError(f"{self}: `ceiling` gave {shown(value)}, not {wanted}")
            figures[name] = figure
        return figures


def plugin_error(what: str, error: Exception) -> Exception:
    """The error that a plugin's function raised, with the function's name and the line of its code."""
    if isinstance(error, MemoryError):
        return error
    if isinstance(error, MioError):
        return PluginError(f"{what}: {error}")
    frames = traceback.extract_tb(error.__traceback__)
    # what it called of mio's own would not help its author
    last = next((frame for frame in reversed(frames) if not frame.filename.startswith(_OWN)), frames[-1])
    return PluginError(f"{what} raised {type(error).__name__}: {error} ({last.filename}, line {last.lineno})")


def _listed(returned: Any, most: int) -> list[Any] | None:
    """The first `most` values of an ordered collection; None for anything else."""
    if isinstance(returned, str | bytes | Mapping | Set) or not isinstance(returned, Iterable):
        return None
    if getattr(returned, "ndim", 1) == 0:  # arrays without dimensions have `__iter__` too
        return None
    return list(islice(returned, most))
