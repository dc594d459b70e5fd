"""Judges' verdicts on answers, checked: judges are functions of plugins and may return anything."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from numbers import Real
from typing import Any

import numpy as np

from mio.core.contract.validation import kind
from mio.core.contract.values import Answer, Record, Task
from mio.core.errors import DataError, MioError, PluginError
from mio.core.tokens.codecs import Codecs

_SHOWN = 100


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
    ) -> dict[int, float]:
        """How right each answer is, from 0 to 1, by the number of its record.

        An answer for which the judge raises `DataError` has no verdict; `failed` gets the reason.

        Raises:
            PluginError: the judge returned anything but one truth value or number from 0 to 1 per answer.
        """
        items = list(answers)
        try:
            returned = self.task.judge([answers[item] for item in items], [records[item] for item in items])
            values = _listed(returned, len(items) + 1)
        except DataError as error:
            if len(items) == 1:
                failed[items[0]] = f"the judge cannot tell: {error}"
                return {}
            shares: dict[int, float] = {}  # one by one: which of them can it not judge?
            for item in items:
                shares |= self.verdicts({item: answers[item]}, records, failed)
            return shares
        except Exception as error:
            raise plugin_error(f"{self}: its judge", error) from error
        problem = _problem(returned, values, items)
        if problem:
            raise PluginError(
                f"{self}: its judge returned {problem}, not one truth value or number from 0 to 1 for each of "
                f"{len(items)} answers"
            )
        pairs = ((item, _share(value)) for item, value in zip(items, values or (), strict=True))
        return {item: share for item, share in pairs if share is not None}

    def ceilings(self, records: Sequence[Record], codecs: Codecs) -> dict[str, float]:
        """`ceiling`, the judge's verdict on the right answers after the codec, and `judge`, on them as they are.

        Raises:
            DataError: the media of a record cannot be read or decoded, or the judge cannot tell.
            PluginError: `ceiling` returned anything but a number from 0 to 1.
        """
        assert self.task.ceiling is not None
        shares = {}
        for name, through in (("ceiling", codecs.round_trip), ("judge", codecs.originals)):
            try:
                returned = self.task.ceiling(records, through)
            except DataError:
                raise
            except Exception as error:
                raise plugin_error(f"{self}: its `ceiling`", error) from error
            share = _share(returned)
            if share is None:
                raise PluginError(f"{self}: `ceiling` gave {_shown(returned)}, not a number from 0 to 1")
            shares[name] = share
        return shares


def plugin_error(what: str, error: Exception) -> Exception:
    """The error that a plugin's function raised, with the function's name and the line of its code."""
    if isinstance(error, MemoryError):
        return error
    if isinstance(error, MioError):
        return PluginError(f"{what}: {error}")
    last = traceback.extract_tb(error.__traceback__)[-1]
    return PluginError(f"{what} raised {type(error).__name__}: {error} ({last.filename}, line {last.lineno})")


def _listed(returned: Any, most: int) -> list[Any] | None:
    """The first `most` values of an ordered collection; None for anything else."""
    if isinstance(returned, str | bytes | Mapping | Set) or not isinstance(returned, Iterable):
        return None
    if getattr(returned, "ndim", 1) == 0:  # arrays without dimensions have `__iter__` too
        return None
    return list(islice(returned, most))


def _problem(returned: Any, values: list[Any] | None, items: Sequence[int]) -> str:
    """What is wrong with the values that a judge returned; the empty string if nothing is."""
    if values is None:
        return _shown(returned)
    if len(values) != len(items):
        return f"more than {len(items)} values" if len(values) > len(items) else f"{len(values)} values"
    wrong = ((item, value) for item, value in zip(items, values, strict=True) if _share(value) is None)
    return next((f"{_shown(value)} for item {item}" for item, value in wrong), "")


def _share(value: Any) -> float | None:
    """A truth value or number from 0 to 1, of Python, NumPy or torch; None for anything else."""
    if isinstance(value, np.ma.core.MaskedConstant):
        return None
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if 0 <= number <= 1 else None  # NaN is neither


def _shown(value: Any) -> str:
    """A value on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
