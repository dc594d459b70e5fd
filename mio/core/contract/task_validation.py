"""Validation of evaluation tasks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

from mio.core.contract.tasks import CHARACTER, HIGHER, LOWER, SUM, TOKEN, Choices, Measure, Task
from mio.core.contract.validation import (
    NAME,
    PATH_NAME,
    control_name_problems,
    decoding_problems,
    kind,
    template_fields,
    template_problems,
)
from mio.core.contract.values import Decoding, Template
from mio.core.errors import nearest

RESERVED = ("n", "failed", "intervals", "ceiling", "judge", "copied", "searched", "seconds", "failures")
"""What a report calls other things about a task, which no measure may be called."""


def resting(task: Any, modalities: Iterable[str], controls: Iterable[str] = ()) -> str:
    """Why a recipe with these modalities and control tokens does not have a task: it is of others, or something has to
    be given first; the empty string if it does. An output whose name is like one of these is taken for a mistake."""
    output, known = getattr(task, "output", None), list(modalities)
    if isinstance(output, str) and NAME.fullmatch(output) and output not in known and not nearest(output, known):
        return f"its answers are of `{output}`, which the recipe does not have"
    if not isinstance(task, Task) or _rest_problems(task):
        return ""
    lacking = [name for name in task.needs if name not in known]
    if lacking:
        return f"it asks about `{lacking[0]}`, which the recipe does not have"
    unsaid = [name for name in task.controls if name not in controls]
    return f"it looks for the control token `{unsaid[0]}`, which no plugin here declares" if unsaid else task.missing


def _rest_problems(task: Task) -> list[str]:
    problems = []
    for field, of in (("needs", "modalities"), ("controls", "control tokens")):
        names = getattr(task, field)
        if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
            problems.append(f"`{field}`: {kind(names)} must be a tuple of names of {of}")
    if not isinstance(task.missing, str):
        problems.append(f"`missing`: {kind(task.missing)} must be text")
    return problems


def task_problems(task: Any, modalities: Iterable[str], controls: Iterable[str] = ()) -> list[str]:
    """Everything wrong with one `Task`; `modalities` are the names that its output may have, `controls` the control
    tokens that its template may name."""
    if not isinstance(task, Task):
        return [f"returned {kind(task)} where a `mio.Task` is expected"]
    problems, known = [], list(modalities)
    if not isinstance(task.name, str) or not PATH_NAME.fullmatch(task.name):
        problems.append(f"`name`: {task.name!r} must be letters, digits, `_`, `-`, `.` and `/`")
    problems += [f"`template`: {problem}" for problem in template_problems(task.template)]
    if isinstance(task.template, Template):
        problems += [f"`template`: {problem}" for problem in control_name_problems(task.template, list(controls))]
    problems += [f"`{name}`: must be a function" for name in ("records", "judge") if not callable(getattr(task, name))]
    problems += _rest_problems(task)
    problems += measure_problems(task.measures)
    if task.choices is not None:
        problems += [f"`choices`: {problem}" for problem in _choices_problems(task.choices, task.template)]
    if task.ceiling is not None and not callable(task.ceiling):
        problems.append("`ceiling`: must be a function or None")
    if not isinstance(task.decoding, Decoding):
        problems.append(f"`decoding`: {kind(task.decoding)}, not a `mio.Decoding`")
    else:
        found = decoding_problems(task.decoding)
        found = found or [f"`by.{one}`: no modality of the plugins in use{nearest(one, known)}" for one in
                          task.decoding.by if one not in known]  # fmt: skip
        problems += [f"`decoding`: {problem}" for problem in found]
    if task.output not in known:
        problems.append(
            f"`output`: {task.output!r} is no modality of the plugins in use{nearest(str(task.output), known)}"
        )
    return problems


def measure_problems(measures: Any) -> list[str]:
    """Everything wrong with the measures of a task, each problem starting with the field's name."""
    if not isinstance(measures, tuple | list) or not measures:
        return [f"`measures`: {kind(measures)} must be a tuple of at least one `mio.Measure`"]
    problems, names = [], set()
    for place, measure in enumerate(measures):
        if not isinstance(measure, Measure):
            problems.append(f"`measures[{place}]`: {kind(measure)}, not a `mio.Measure`")
            continue
        problems += [f"`measures[{place}].{problem}" for problem in _measure_problems(measure)]
        if measure.name in names:
            problems.append(f"`measures[{place}].name`: {measure.name!r} is there twice")
        names.add(measure.name)
    return problems


def _measure_problems(measure: Measure) -> list[str]:
    if not isinstance(measure.name, str) or not NAME.fullmatch(measure.name):
        return [f"name`: {measure.name!r} must be lower case letters, digits and `_`, a letter first"]
    if measure.name in RESERVED:
        return [f"name`: `{measure.name}` is something else in a report; take another name"]
    if measure.better not in (HIGHER, LOWER):
        return [f"better`: {measure.better!r} must be `{HIGHER}` or `{LOWER}`"]
    bounds = {"least": measure.least, "most": measure.most}
    for name, value in bounds.items():
        if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(float(value)):
            return [f"{name}`: {value!r} must be a number"]
    if not measure.least < measure.most:
        return [f"least`: {measure.least:g} must be below `most`, {measure.most:g}"]
    for name in ("worst", "overall"):
        if getattr(measure, name) is not None and not callable(getattr(measure, name)):
            return [f"{name}`: must be a function or None"]
    if not measure.has_worst:
        bound = "least" if measure.better == HIGHER else "most"
        return [f"worst`: is missing: `{bound}` is infinite, so it does not say what an item without a verdict counts"]
    return []


def _choices_problems(choices: Any, template: Any) -> list[str]:
    if not isinstance(choices, Choices):
        return [f"{kind(choices)}, not a `mio.Choices`"]
    if not callable(choices.of):
        return ["`of` must be a function"]
    if choices.by not in (SUM, TOKEN, CHARACTER):
        words = ", ".join(f"`{word}`" for word in (SUM, TOKEN, CHARACTER))
        return [f"`by`: {choices.by!r} must be one of {words}{nearest(str(choices.by), (SUM, TOKEN, CHARACTER))}"]
    if not template_problems(template):
        names = template_fields(template.response)
        if choices.field not in names:
            hint = nearest(str(choices.field), names)
            return [f"`field`: the template's response has no field {choices.field!r}{hint}"]
    return []
