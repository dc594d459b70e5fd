"""YAML as recipes have it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_files import problems

from mio.core.recipe.yaml_text import dump_yaml, parse_yaml


def test_yaml_is_read_by_the_core_schema_of_1_2():
    text = "[3e-5, 1e3, .5, 12:20, on, no, true, 017, 0x1f, 0o17, 0b1, 1_000, ~, 2020-01-01, .inf, !!str 5, ! 5]"
    made = [3e-5, 1000.0, 0.5, "12:20", "on", "no", True, 17, 31, 15, "0b1", "1_000", None, "2020-01-01"]
    assert parse_yaml(f"a: {text}", "f")[0] == {"a": [*made, float("inf"), "5", "5"]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: [", "f:2: not valid YAML"),
        ("a: 1\na: 2", "f:2: key `a` is given twice"),
        ("x:\n  a: 1\n  b: 2\n  a: 3", "f:4: key `a` is given twice"),
        ("a: !!python/object/apply:os.getcwd []", "f:1: not valid YAML: could not determine a constructor"),
        ("a: &x [*x]", "f:1: the alias refers to what it is part of"),
        ("a: *unknown", "f:1: not valid YAML: found undefined alias"),
    ],
)
def test_bad_yaml_is_refused_with_its_line(text, problem):
    assert problems(parse_yaml, text, "f")[0].startswith(problem)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab:on0e-. ~é", max_size=6),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abon1", min_size=1), inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_yaml_writes_is_read_back(value):
    assert parse_yaml(dump_yaml({"value": value}), "f")[0] == {"value": value}
