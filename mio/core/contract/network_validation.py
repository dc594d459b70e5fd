"""What the networks that plugins supply lack, in words that their authors understand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mio.core.contract.validation import has, is_int, is_tuple_of, missing_methods
from mio.core.contract.values import Modality


def encoder_problems(encoder: Any) -> list[str]:
    """What an encoder lacks."""
    problems = missing_methods(encoder, ("positions", "prepare", "dummy", "module"))
    problems += _missing_values(encoder, ("fingerprint",))
    shape = getattr(encoder, "maps", None)
    if shape is not None and not (is_tuple_of(shape, lambda size: is_int(size) and size > 0) and len(shape) == 2):
        problems.append("`maps`: must be a pair of whole numbers above 0, cells and channels")
    return problems


def adapter_problems(adapter: Any) -> list[str]:
    """What networks inside layers lack."""
    return missing_methods(adapter, ("layers", "module")) + _missing_values(adapter, ("fingerprint", "reads"))


def head_problems(head: Any, declared: Modality) -> list[str]:
    """What a head of a modality lacks."""
    problems = missing_methods(head, ("positions", "target", "noise", "example", "module", "save"))
    problems += _missing_values(head, ("fingerprint", "context", "maps", "drop", "writes"))
    if problems:
        return problems
    for name in ("context", "writes"):
        if not is_int(getattr(head, name)) or getattr(head, name) < 0:
            problems.append(f"`{name}`: must be a whole number, 0 or more")
    if not isinstance(head.maps, Mapping) or not all(is_int(count) and count > 0 for count in head.maps.values()):
        problems.append("`maps`: must be a mapping of modalities to numbers of items")
    if isinstance(head.drop, bool) or not isinstance(head.drop, int | float) or not 0 <= head.drop < 1:
        problems.append("`drop`: must be a share from 0 to below 1")
    if not declared.begin:
        problems.append(f"`{declared.name}` declares no token `begin`, with which the model says that an item is made")
    return problems


def _missing_values(value: Any, names: Sequence[str]) -> list[str]:
    return [f"`{name}`: missing" for name in names if not has(value, name)]
