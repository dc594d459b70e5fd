"""Options of plugins: a dataclass whose fields say what each may be, filled from what a recipe gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar, cast, get_args, get_origin

from mio.core.errors import UserError
from mio.core.recipe.files import Checker, hints_of

T = TypeVar("T")


def read_options(kind: type[T], given: Mapping[str, Any], where: str) -> T:
    """The options as a dataclass, with defaults for those that are not given.

    Args:
        kind: a dataclass with one field per option. Types may be `int`, `float`, `str`, `bool`, those or None,
            `Sequence[...]`, `Mapping[str, ...]`, `Any`, and further dataclasses; `mio.number` and `mio.one_of` make
            fields with a range.
        where: what the options belong to, as `plugins.sketch`, for the message.

    Raises:
        UserError: with every option that is unknown, of the wrong type, or out of its range.
    """
    problems: list[str] = []
    content = Checker(lambda _, text: problems.append(text), literal=True).options(kind, given)
    if problems:
        raise UserError("; ".join(f"{where}{'' if text.startswith('has ') else ':'} {text}" for text in problems))
    made: T = _built(kind, content)
    return made


def _built(hint: Any, value: Any) -> Any:
    """By hand and not by OmegaConf, which knows no `Sequence` and no `Mapping`."""
    if is_dataclass(hint):
        hints = hints_of(cast(type, hint))
        return cast(type, hint)(**{name: _built(hints[name][0], item) for name, item in value.items()})
    if get_origin(hint) is dict:
        return {name: _built(get_args(hint)[1], item) for name, item in value.items()}
    if get_origin(hint) is list:
        return [_built(get_args(hint)[0], item) for item in value]
    return value
