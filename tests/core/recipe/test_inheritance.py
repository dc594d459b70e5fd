"""What a stage takes from the one that it starts from."""

from __future__ import annotations

import random

import pytest
from recipe_files import NONE, problems

from mio.core.recipe.chain import chain, links
from mio.core.recipe.inheritance import inherit
from mio.core.recipe.resolved import fingerprint, load_resolved, to_yaml
from mio.core.recipe.schema import Recipe

PARENT = """
name: one
plugins:
  words: {size: 5, deep: {a: 1, b: 2}}
  sketch: {kind: fine}
model: {width: 64, qk_norm: true, rope_scaling: {kind: linear, factor: 2.0}}
"""


def made(write, child, parent=PARENT):
    """The links of a chain of two recipes."""
    write("one.yaml", parent)
    return links([write("two.yaml", f"start_from: one.yaml\n{child}")], [], NONE)


def test_a_recipe_without_a_model_has_its_parents(write):
    one, two = made(write, "plugins: {words: , sketch: }")
    assert two.recipe.model == one.recipe.model
    assert two.recipe.plugins == one.recipe.plugins
    assert two.taken == (("model",), ("plugins", "words"), ("plugins", "sketch"))
    assert (one.taken, one.start, two.start) == ((), "nothing", "stage `one`")


def test_what_a_recipe_says_wins_key_by_key_and_keeps_its_order(write):
    two = made(write, "plugins: {new: {x: 1}, words: {deep: {b: 3}}}\nmodel: {rope_scaling: {factor: 8}, layers: 2}")[1]
    assert two.recipe.plugins == {"new": {"x": 1}, "words": {"deep": {"b": 3, "a": 1}, "size": 5}}
    assert list(two.recipe.plugins) == ["new", "words"], "sketch is not in use"
    assert two.recipe.model == {
        "rope_scaling": {"factor": 8.0, "kind": "linear"},
        "layers": 2,
        "width": 64,
        "qk_norm": True,
    }
    assert list(two.recipe.model)[:2] == ["rope_scaling", "layers"]
    assert ("plugins", "words", "deep", "a") in two.taken
    assert ("model", "rope_scaling", "kind") in two.taken


def test_a_recipe_without_plugins_has_its_parents(write):
    two = made(write, "plugins: {_replace_: true}")[1]
    assert list(two.recipe.plugins) == ["words", "sketch"]
    assert two.taken == (("model",), ("plugins",))


def test_a_preset_is_a_model_of_its_own_and_an_empty_one_is_none(write):
    assert made(write, "model: {preset: other, layers: 3}")[1].recipe.model == {"preset": "other", "layers": 3}
    assert made(write, 'model: {preset: ""}')[1].recipe.model["width"] == 64
    parent = "name: one\nmodel: {preset: theirs, layers: 3}"
    assert made(write, "model: {norm_eps: 1e-6}", parent)[1].recipe.model == {
        "norm_eps": 1e-6,
        "preset": "theirs",
        "layers": 3,
    }


def test_a_recipe_that_says_all_is_what_it_was(write):
    """The fingerprint of a chain does not depend on how much its stages repeat."""
    short = made(write, "plugins: {words: , sketch: }\nseed: 3")[1].recipe
    sections = "\n".join(PARENT.strip().splitlines()[1:])
    long = made(write, f"{sections}\nseed: 3")[1]
    assert long.taken == ()
    assert fingerprint(long.recipe) == fingerprint(short)


def test_chains_inherit_from_stage_to_stage_and_from_run_folders(write, tmp_path):
    write("runs/base/recipe.yaml", to_yaml(Recipe(name="base", plugins={"words": {"x": 1}}, model={"width": 8})))
    write("one.yaml", "start_from: runs/base\nplugins: {words: {y: 2}}")
    one, two = links([write("two.yaml", "start_from: one.yaml\nmodel: {norm_eps: 1e-6}")], [], NONE)
    assert one.start == str(tmp_path / "runs/base")
    assert one.recipe.plugins == two.recipe.plugins == {"words": {"y": 2, "x": 1}}
    assert two.recipe.model == {"norm_eps": 1e-6, "width": 8}


def test_a_resolved_recipe_stands_for_itself(write, tmp_path):
    stages = [link.recipe for link in made(write, "plugins: {words: {deep: {b: 3}}}\nmodel: {layers: 2}")]
    for stage in stages:
        write(f"runs/{stage.name}/recipe.yaml", to_yaml(stage))
    path = tmp_path / "runs/two/recipe.yaml"
    assert load_resolved(path) == stages[1]
    again = chain([str(path)], [f"runtime.runs={tmp_path}/runs"], NONE)[0]
    assert fingerprint(again) == fingerprint(stages[1])


def options(rng, depth=2):
    keys = rng.sample("abcdef", rng.randrange(5))
    return {key: options(rng, depth - 1) if depth and rng.random() < 0.3 else rng.randrange(3) for key in keys}


@pytest.mark.parametrize("seed", range(40))
def test_filling_in_again_changes_nothing(seed):
    rng = random.Random(seed)
    child, parent = (
        Recipe(plugins={name: options(rng) for name in rng.sample("xyz", rng.randrange(4))}, model=options(rng))
        for _ in range(2)
    )
    once, taken = inherit(child, parent)
    twice, nothing = inherit(once, parent)
    assert twice == once
    assert nothing == []
    assert (child == once) is (taken == [])
    assert set(once.plugins) == set(child.plugins or parent.plugins)


def test_a_reference_names_what_files_say(write):
    write("one.yaml", PARENT)
    two = write("two.yaml", "start_from: one.yaml\nseed: ${model.width}")
    assert "`${model.width}` refers to a key that is missing" in problems(links, [two], [], NONE)[0]
