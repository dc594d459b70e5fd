"""What judges say of answers, checked. They are functions of plugins and may return anything."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import islice
from numbers import Real
from typing import Any

import numpy as np

from mio.core.contract.validation import kind
from mio.core.contract.values import Answer, Record, Task
from mio.core.errors import DataError, MioError, PluginError
from mio.core.tokens.codecs import Codecs

_SHOWN = 100


def owned(plugin: str, task: Task) -> str:
    """Names a task in messages."""
    return f"task `{task.name}` of plugin `{plugin}`"


def task_records(plugin: str, task: Task, count: int) -> list[Record]:
    """The held-out records of a task. Raises `PluginError` if there are none, or what it gives is no records."""
    try:
        given = task.records(count)
    except Exception as error:
        raise named(f"{owned(plugin, task)}: `records`", error) from error
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise PluginError(f"{owned(plugin, task)}: `records` gave {kind(given)}, not a list of records")
    records = list(islice(given, count))
    for place, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise PluginError(f"{owned(plugin, task)}: record {place} is {kind(record)}, not a mapping of fields")
    if not records:
        raise PluginError(f"{owned(plugin, task)}: it has no held-out records")
    return records


def verdicts(
    plugin: str, task: Task, answers: Mapping[int, Answer], records: Sequence[Record], failed: dict[int, str]
) -> dict[int, float]:
    """How right each answer is, from 0 to 1, by the place of its record.

    An answer that the judge raises `DataError` for has no verdict, and the reason in `failed`.

    Raises:
        PluginError: the judge returned anything but one truth value or number from 0 to 1 per answer.
    """
    places = list(answers)
    try:
        given = task.judge([answers[place] for place in places], [records[place] for place in places])
        values = _listed(given, len(places) + 1)
    except DataError as error:
        if len(places) == 1:
            failed[places[0]] = f"the judge cannot tell: {error}"
            return {}
    except Exception as error:
        raise named(f"{owned(plugin, task)}: its judge", error) from error
    else:
        problem = _problem(given, values, places)
        if problem:
            raise PluginError(
                f"{owned(plugin, task)}: its judge returned {problem}, not one truth value or number from 0 to 1 for "
                f"each of {len(places)} answers"
            )
        shares = ((place, _share(value)) for place, value in zip(places, values or (), strict=True))
        return {place: share for place, share in shares if share is not None}
    found: dict[int, float] = {}  # one by one, to find out whom it cannot judge
    for place in places:
        found |= verdicts(plugin, task, {place: answers[place]}, records, failed)
    return found


def ceilings(plugin: str, task: Task, records: Sequence[Record], codecs: Codecs) -> dict[str, float]:
    """`ceiling`, what the judge says of the right answers after the codec, and `judge`, of them as they are.

    Raises:
        DataError: the media of a record cannot be read or decoded, or the judge cannot tell.
        PluginError: `ceiling` returned anything but a number from 0 to 1.
    """
    assert task.ceiling is not None
    found = {}
    for name, through in (("ceiling", codecs.round_trip), ("judge", codecs.originals)):
        try:
            given = task.ceiling(records, through)
        except DataError:
            raise
        except Exception as error:
            raise named(f"{owned(plugin, task)}: its `ceiling`", error) from error
        value = _share(given)
        if value is None:
            raise PluginError(f"{owned(plugin, task)}: `ceiling` gave {_shown(given)}, not a number from 0 to 1")
        found[name] = value
    return found


def named(what: str, error: Exception) -> Exception:
    """An error that a function of a plugin raised, with the function's name and the place in its code."""
    if isinstance(error, MemoryError):
        return error
    if isinstance(error, MioError):
        return PluginError(f"{what}: {error}")
    last = traceback.extract_tb(error.__traceback__)[-1]
    return PluginError(f"{what} raised {type(error).__name__}: {error} ({last.filename}, line {last.lineno})")


def _listed(given: Any, most: int) -> list[Any] | None:
    """The first values of something that has an order; None if it has not."""
    if isinstance(given, str | bytes | Mapping | Set) or not isinstance(given, Iterable):
        return None
    if getattr(given, "ndim", 1) == 0:  # arrays without dimensions say that they can be iterated as well
        return None
    return list(islice(given, most))


def _problem(given: Any, values: list[Any] | None, places: Sequence[int]) -> str:
    """What is wrong with the values that a judge returned; the empty string if nothing is."""
    if values is None:
        return _shown(given)
    if len(values) != len(places):
        return f"more than {len(places)} values" if len(values) > len(places) else f"{len(values)} values"
    wrong = ((place, value) for place, value in zip(places, values, strict=True) if _share(value) is None)
    return next((f"{_shown(value)} for item {place}" for place, value in wrong), "")


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
