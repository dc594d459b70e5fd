"""The schema of recipes and its documentation."""

from __future__ import annotations

import re
from pathlib import Path

from mio.core.contract.checker import keys_of
from mio.core.recipe.schema import Recipe

ROOT = Path(__file__).parents[3]


def test_the_documentation_lists_exactly_the_keys_of_the_schema():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    section = text.split("## Keys")[1].split("## Errors")[0]
    documented = re.findall(r"^\| `([^`]+)` \| .* \| ?(.*?) ?\|$", section, re.MULTILINE)
    assert documented == [(key, str(allowed or "")) for key, allowed in keys_of(Recipe)]
