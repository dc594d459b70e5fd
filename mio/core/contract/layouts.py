"""What a plugin supplies to have `mio import` read a published model that holds more than a language model.

D width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Read = Callable[[str], "Tensor"]
"""A tensor of the folder by its name there, on the CPU. Raises `UserError` for one that is not there."""


@dataclass(frozen=True)
class CodeRows:
    """What a model has for the codes of a modality in place of tokens of its text tokenizer: rows `[codes, D]` in the
    order of the codebooks, any float type."""

    embedding: Tensor
    head: Tensor


@dataclass(frozen=True, kw_only=True)
class ModelLayout:
    """How a family of models lies in a folder. Every tensor has one of `names` or of `beside`; one that has neither is
    an error that names it."""

    config: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    """The `config.json` of the language model, of a family that mio reads (docs/exchange.md), from the folder's. Raises
    `UserError` for what the family does not have here."""
    names: Mapping[str, str]
    """How the names of the language model's tensors begin, and how they begin in the layout of its own family."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """How the names of all other tensors begin, and what becomes of those, in words for people: `mio import` says it.
    The empty string fits all, and `*` stands for anything. Of several beginnings that fit, here and in `names`, the
    longest counts."""
    made: Mapping[str, Callable[[Read], Tensor]] = field(default_factory=dict)
    """Tensors of the language model that are made of several of the folder's, which stand in `beside`: by name in the
    layout of its own family, where `lm_head.bias` is a bias of the head."""
    code_rows: Callable[[Mapping[str, Any], Read], Mapping[str, CodeRows]] | None = None
    """Rows of codes by modality, from the folder's `config.json` and its tensors. Those of a modality that the recipe
    does not declare are left out, and named."""
