"""Merging and references of recipes, by OmegaConf, which sees checked and bounded plain data only.

Texts mean themselves but in `resolve`, whose references `interpolation.reference_problems` has judged: they are
escaped, so that nothing is interpolated while files are merged, and `???` of a later file replaces what stood there.
`unsafe_merge` leaves out copies, half of the time, of what is nobody else's here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mio.core.recipe.interpolation import MISSING
from mio.core.recipe.layers import REPLACE


def merge(*contents: Mapping[str, Any]) -> Any:
    """All in order: mappings key by key unless they say `_replace_: true`, all else replaced."""
    merged: Any = OmegaConf.create({})
    for content in contents:
        OmegaConf.unsafe_merge(merged, _literal(content, merged))
    return OmegaConf.to_container(merged, resolve=True)


def resolve(content: Mapping[str, Any]) -> Any:
    """The content with references replaced by what they refer to, with its type, and `\\${` and `\\???` made plain."""
    return OmegaConf.to_container(OmegaConf.create(dict(content)), resolve=True)


def _literal(value: Any, below: Any = None) -> Any:
    """Texts escaped, markers left out; in `below`, what OmegaConf would merge with this or refuse to is emptied."""
    if isinstance(value, Mapping):
        below = below if isinstance(below, DictConfig) else {}
        if value.get(REPLACE) is True:
            below.clear()
        for name, item in value.items():
            if name in below and isinstance(item, Mapping) is not isinstance(below[name], DictConfig):
                below[name] = None
        return {name: _literal(item, below.get(name)) for name, item in value.items() if name != REPLACE}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    if isinstance(value, str):
        missing = value.lstrip("\\") == MISSING
        return f"\\{value}" if missing else re.sub(r"(?<!\\)(\\*)\$\{", r"\1\1\\${", value)
    return value
