"""Figures of one task, made of what its judge said of every item."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mio.core.contract.tasks import Measure
from mio.core.contract.values import Record
from mio.core.errors import DataError, PluginError
from mio.core.evaluation.judging import OwnedTask, plugin_error
from mio.core.evaluation.statistics import Interval, jackknife, mean_interval, ratio_interval, replicates
from mio.core.evaluation.verdicts import Verdict, WrongVerdictError, evidence, number, shown, worst_verdict

if TYPE_CHECKING:
    from mio.core.evaluation.copies import Copies  # takes torch, which figures of verdicts do without

_SHOWN = 20
"""Failures of a task that are described."""


class Figure(NamedTuple):
    """Of one measure."""

    value: float | None
    """None where no item could be measured."""
    interval: Interval | None
    """Of 95 %; None where there is too little to say."""


@dataclass
class Figures:
    """Of one task, while its pieces come in."""

    owned: OwnedTask
    records: Sequence[Record]
    shown: int = 0
    """Items whose answers are samples, the first ones."""
    pieces: int = 0
    """That are not in yet."""
    seen: set[int] = field(default_factory=set)
    """Items that are done."""
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    """By item."""
    failed: dict[int, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    ceilings: dict[str, float] = field(default_factory=dict)
    has_ceilings: bool = False
    """Whether these were asked for, told or not."""
    spans: list[tuple[str, str]] = field(default_factory=list)
    """Modality and digest of each generated span, of a task whose copies are counted."""
    copies: Copies | None = None
    samples: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Prompts and answers by item."""
    seconds: float = 0.0
    _figures: dict[str, Figure] = field(default_factory=dict)

    def add(self, result: Mapping[str, Any]) -> None:
        """What a piece of work gave, now or before the evaluation was ended and went on."""
        for line in result.get("items", ()):
            item = line["item"]
            self.seen.add(item)
            if "verdicts" in line:
                self.verdicts[item] = line["verdicts"]
            if "failure" in line:
                self.failed[item] = line["failure"]
            self.spans += [(modality, value) for modality, value in line.get("codes", ())]
            if item < self.shown and "output" in line:
                given = {key: line[key] for key in ("asked", "expected") if key in line}
                self.samples[item] = {"prompt": line["prompt"], "answer": line["output"], **given}
        self.problems += [problem for problem in result["problems"] if problem not in self.problems]
        if "ceilings" in result:
            self.has_ceilings = True
            self.ceilings |= result["ceilings"]
        self.seconds += result["seconds"]

    def figures(self) -> dict[str, Figure]:
        """By measure, when all pieces are in. Raises `PluginError` where a measure breaks the contract."""
        if not self._figures:
            said = [self.verdicts.get(item, {}) for item in range(len(self.records))]
            for measure in self.owned.task.measures:
                values = [one.get(measure.name) for one in said]
                self._figures[measure.name] = measured(self.owned, measure, values, self.records)
        return self._figures

    @property
    def failures(self) -> list[str]:
        items = [f"{self.owned}, item {item}: {self.failed[item]}" for item in sorted(self.failed)[:_SHOWN]]
        return items + self.problems

    def lines(self) -> list[str]:
        """What is printed when the task is done."""
        also = f", {len(self.failed)} failed" if self.failed else ""
        told = ", ".join(self._told(name, figure) for name, figure in self.figures().items())
        return [f"{self.owned.task.name}: {told} of {len(self.records)}{also}", *(
            f"  {failure}" for failure in self.failures[:3]
        )]  # fmt: skip

    def _told(self, name: str, figure: Figure) -> str:
        value = "nothing" if figure.value is None else f"{figure.value:.3f}"
        return value if len(self.owned.task.measures) == 1 else f"{name} {value}"

    def result(self) -> dict[str, Any]:
        """What the report says about the task."""
        found = self.figures()
        result: dict[str, Any] = {name: _rounded(one.value) for name, one in found.items() if one.value is not None}
        result["n"] = len(self.records)
        result["intervals"] = {
            name: [_rounded(bound) for bound in one.interval] for name, one in found.items() if one.interval is not None
        }
        if self.failed:
            result["failed"] = len(self.failed)
        result |= {name: _rounded(value) for name, value in self.ceilings.items()}
        if self.copies is not None:
            result["copied"] = _rounded(self.copies.share(self.spans))
            if self.copies.searched < self.copies.records:
                result["searched"] = [self.copies.searched, self.copies.records]
        result["seconds"] = round(self.seconds, 2)
        return result | ({"failures": self.failures} if self.failures else {})


def measured(owned: OwnedTask, measure: Measure, said: Sequence[Any], records: Sequence[Record]) -> Figure:
    """The figure of a measure, of what the judge said of every item; None of one that has no verdict.

    Raises:
        PluginError: the measure's functions break the contract.
    """
    values = counted(owned, measure, said, records)
    if not values:
        return Figure(None, None)
    if measure.overall is not None:
        return _overall(Overall(owned, measure, values, records), len(values))
    if is_ratio(owned, measure, values.values()):
        return _ratio(list(values.values()))
    return _mean(list(values.values()), measure.least, measure.most)


def counted(owned: OwnedTask, measure: Measure, said: Sequence[Any], records: Sequence[Record]) -> dict[int, Any]:
    """What every item counts in a measure, by number; those are left out that count nothing. Raises `PluginError`."""
    where = f"{owned}: `{measure.name}`"
    try:
        values = [worst_verdict(measure, records[item]) if one is None else one for item, one in enumerate(said)]
    except WrongVerdictError as error:
        raise PluginError(f"{where}, `worst` gave {error}") from error
    except Exception as error:
        raise plugin_error(f"{where}, `worst`", error) from error
    return {item: value for item, value in enumerate(values) if value is not None}


def is_ratio(owned: OwnedTask, measure: Measure, values: Iterable[Any]) -> bool:
    """Whether these are pairs. Raises `PluginError` where only some are."""
    kinds = {isinstance(value, list) for value in values}
    if len(kinds) > 1:
        raise PluginError(f"{owned}: `{measure.name}`: the judge gave numbers for some items and pairs for others")
    return True in kinds


def _mean(values: Sequence[float], least: float, most: float) -> Figure:
    return Figure(math.fsum(values) / len(values), mean_interval(values, least, most))


def _ratio(pairs: Sequence[Sequence[float]]) -> Figure:
    numerators, denominators = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    total = sum(denominators)
    return Figure(sum(numerators) / total, ratio_interval(numerators, denominators)) if total else Figure(None, None)


@dataclass
class Overall:
    """The figure of a measure that is made of all items together.

    Args:
        values: what each item counts, by number.
        records: of all items.
    """

    owned: OwnedTask
    measure: Measure
    values: Mapping[int, Any]
    records: Sequence[Record]

    def __post_init__(self) -> None:
        self._items = list(self.values)
        self._evidence = {item: evidence(value) for item, value in self.values.items()}
        self._where = f"{self.owned}: `{self.measure.name}`, `overall`"

    def figure(self) -> float | list[float]:
        """One number, or a number per item. Raises `PluginError`, and `DataError` where it cannot be told."""
        return self._of(range(len(self._items)))

    def without(self, places: Sequence[int]) -> float:
        """The number of some of the items, by their places among these. Raises as `figure`."""
        found = self._of(places)
        if isinstance(found, list):
            raise PluginError(f"{self._where} gave one number of all items and a list of some")
        return found

    def _of(self, places: Sequence[int]) -> float | list[float]:
        assert self.measure.overall is not None
        some = [self._items[place] for place in places]
        try:
            answer = self.measure.overall(
                [self._evidence[item] for item in some], [self.records[item] for item in some]
            )
        except DataError:
            raise
        except Exception as error:
            raise plugin_error(self._where, error) from error
        single = number(answer)
        if single is not None and math.isfinite(single):
            return single
        scores = _scores(answer)
        if scores is None or len(scores) != len(some):
            raise PluginError(
                f"{self._where} gave {shown(answer)}, not a number, or a number for each of {len(some)} items"
            )
        return scores


def _overall(overall: Overall, count: int) -> Figure:
    whole = overall.figure()
    if isinstance(whole, list):
        return Figure(float(np.mean(whole)), mean_interval(whole, -math.inf, math.inf))
    return Figure(whole, jackknife(whole, replicates(count, overall.without)))


def _scores(answer: Any) -> list[float] | None:
    """Numbers of a list or array; None for anything else."""
    if not hasattr(answer, "__len__") or isinstance(answer, str | bytes | Mapping):
        return None
    scores = [number(one) for one in answer]
    return [float(one) for one in scores if one is not None and math.isfinite(one)]


def _rounded(value: float) -> float:
    return round(value, 4)
