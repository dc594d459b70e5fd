"""Resolved recipes: written, read, identified, compared."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict

from hypothesis import given, settings
from hypothesis import strategies as st

from mio.core.recipe.resolved import diff, fingerprint, load_resolved, stored_fingerprint, to_yaml
from mio.core.recipe.schema import Recipe


@settings(max_examples=40, deadline=None)
@given(st.text("${}:\\é\n '\"#-x", max_size=12), st.floats(0, 1e3), st.integers(0, 99))
def test_a_resolved_recipe_is_read_back_as_it_was(tmp_path_factory, text, number, whole):
    made = Recipe(name="r", seed=whole, plugins={"x": {"text": text, "list": [number, None, True], "m": {}}})
    made.train.optimizer.lr = number
    path = tmp_path_factory.mktemp("resolved") / "recipe.yaml"
    path.write_text(to_yaml(made), encoding="utf-8")
    assert load_resolved(path) == made


def leaves(value, key=()):
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*key, name))
    else:
        yield key, value


def test_the_fingerprint_covers_everything_that_decides_the_training():
    for key, value in leaves(asdict(Recipe())):
        changed = Recipe()
        section = changed
        for name in key[:-1]:
            section = getattr(section, name)
        setattr(section, key[-1], [1.0] if isinstance(value, list) else f"{value}x" if isinstance(value, str) else 77)
        same = fingerprint(changed) == fingerprint(Recipe())
        assert same == (key[0] in ("runtime", "generate", "license", "requires")), key


def test_a_run_from_before_a_section_was_there_opens_as_it_is(tmp_path):
    """And one whose decoding was changed by hand has the fingerprint that its lock has."""
    made, path = Recipe(name="old", plugins={"a": {}}), tmp_path / "recipe.yaml"
    text = to_yaml(made)
    assert "generate: {}\n" in text
    path.write_text(text.replace("generate: {}\n", ""))
    assert load_resolved(path) == made
    before = stored_fingerprint(path)
    path.write_text(text.replace("generate: {}\n", "generate: {text: {beams: 3}}\n"))
    assert load_resolved(path).generate == {"text": {"beams": 3}}
    assert stored_fingerprint(path) == before == fingerprint(made)
    assert diff(load_resolved(path), made) == []
    assert diff(load_resolved(path), made, runtime=True) == ["- generate.text.beams: 3", "+ generate: {}"]


def test_the_order_of_plugins_is_part_of_the_fingerprint():
    assert fingerprint(Recipe(plugins={"a": {}, "b": {}})) != fingerprint(Recipe(plugins={"b": {}, "a": {}}))


def test_the_fingerprint_is_the_same_in_another_process():
    code = (
        "from mio.core.recipe.resolved import fingerprint; from mio.core.recipe.schema import Recipe; "
        "print(fingerprint(Recipe()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == fingerprint(Recipe())


def test_a_difference_is_told_key_by_key():
    first, second = Recipe(plugins={"x": {"a": 1}}), Recipe(plugins={"x": {"b": 2}}, seed=1)
    second.runtime.workers = 4
    assert diff(first, second) == ["seed: 0 -> 1", "- plugins.x.a: 1", "+ plugins.x.b: 2"]
    assert "runtime.workers: 0 -> 4" in diff(first, second, runtime=True)
    assert diff(first, first) == []
