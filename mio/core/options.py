"""Options of plugins: a dataclass whose fields say what each may be, filled from what a recipe gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from mio.core.errors import UserError
from mio.core.recipe_files import Checker, build

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
    made: T = build(kind, content)
    return made
