"""The schema of recipes and its documentation."""

from __future__ import annotations

import re
from pathlib import Path

from mio.core.contract.checker import keys_of
from mio.core.contract.ranges import number_text
from mio.core.recipe.schema import Recipe

ROOT = Path(__file__).parents[3]


def shown(default):
    """A default as the documentation has it; nothing where there is none, or where it is empty."""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int | float):
        return number_text(default)
    if isinstance(default, list):
        return f"`[{', '.join(map(str, default))}]`" if default else ""
    return f"`{default}`" if isinstance(default, str) and default else ""


def test_the_documentation_lists_exactly_the_keys_of_the_schema():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    section = text.split("## Keys")[1].split("## Errors")[0]
    documented = re.findall(r"^\| `([^`]+)` \| .* \| ?([^|]*?) ?\| ?([^|]*?) ?\|$", section, re.MULTILINE)
    assert documented == [(key, shown(default), str(allowed or "")) for key, default, allowed in keys_of(Recipe)]
