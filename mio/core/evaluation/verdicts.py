"""What a judge says of an item, checked, and as JSON holds it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from mio.core.contract.tasks import Measure, Task

Verdict = dict[str, Any]
"""By measure: a number, a pair `[a, b]` of numbers, or what a measure with `overall` is made of; JSON holds all."""

_ARRAY = "float32"
"""Key of an array's content in JSON, base64 of its bytes, little-endian."""


class WrongVerdictError(ValueError):
    """What a judge said of an item cannot be taken; the message shows it."""


def read_verdict(task: Task, said: Any) -> Verdict:
    """What the judge of a task said of one item. Raises `WrongVerdictError`."""
    if len(task.measures) == 1:
        return {task.measure.name: _value(task.measure, said)}
    names = [measure.name for measure in task.measures]
    if not isinstance(said, Mapping):
        raise WrongVerdictError(shown(said))
    wrong = [f"lacks `{name}`" for name in names if name not in said]
    wrong += [f"has {shown(name)}, which is no measure" for name in said if name not in names]
    if wrong:
        raise WrongVerdictError(f"{shown(said)}, which {' and '.join(wrong)}")
    verdict = {}
    for measure in task.measures:
        try:
            verdict[measure.name] = _value(measure, said[measure.name])
        except WrongVerdictError as error:
            raise WrongVerdictError(f"`{measure.name}`: {error}") from None
    return verdict


def expected(task: Task) -> str:
    """What a judge has to say of each item, for messages."""
    if len(task.measures) == 1:
        return f"one {_expected(task.measure)}"
    return " and ".join(f"`{measure.name}`, one {_expected(measure)}," for measure in task.measures)


def worst_verdict(measure: Measure, record: Mapping[str, Any]) -> Any:
    """What an item counts in a figure that could not be asked, decoded or judged; None: nothing. Raises
    `WrongVerdictError` where the measure's `worst` says what no judge may."""
    value = measure.at_worst(record)
    return None if value is None else _value(measure, value)


def evidence(value: Any) -> Any:
    """What a measure's `overall` is given of a verdict: as the judge said it."""
    if isinstance(value, dict) and set(value) == {_ARRAY, "shape"}:
        content = np.frombuffer(base64.b64decode(value[_ARRAY]), "<f4")
        return content.reshape(value["shape"]).copy()
    return value


def number(value: Any) -> float | None:
    """A truth value or number of Python, NumPy or torch; None for anything else."""
    if isinstance(value, np.ma.core.MaskedConstant):
        return None
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def shown(value: Any) -> str:
    """A value on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


_SHOWN = 100


def _expected(measure: Measure) -> str:
    if measure.overall is not None:
        return "value that JSON can hold or array of numbers"
    if (measure.least, measure.most) == (0, 1):
        return "truth value or number from 0 to 1"
    return f"number from {measure.least:g} to {measure.most:g} or pair of numbers"


def _value(measure: Measure, said: Any) -> Any:
    if measure.overall is not None:
        return _evidence(said)
    found = number(said)
    if found is not None:
        if not measure.least <= found <= measure.most or not math.isfinite(found):  # NaN is neither
            raise WrongVerdictError(shown(said))
        return found
    pair = [number(one) for one in said] if isinstance(said, tuple | list) and len(said) == 2 else []
    if not pair or any(one is None or not math.isfinite(one) or one < 0 for one in pair):
        raise WrongVerdictError(shown(said))
    return pair


def _evidence(said: Any) -> Any:
    if hasattr(said, "detach"):  # of torch
        said = said.detach().cpu().float().numpy()
    if isinstance(said, np.ndarray | np.generic):
        try:
            content = np.ascontiguousarray(said, "<f4")
        except (TypeError, ValueError):
            raise WrongVerdictError(shown(said)) from None
        return {_ARRAY: base64.b64encode(content.tobytes()).decode(), "shape": list(np.shape(said))}
    try:
        return json.loads(json.dumps(said, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise WrongVerdictError(shown(said)) from None
