"""The language of recipes: files and overrides, merged, with every problem and its place."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_files import NONE, problems

from mio import UserError
from mio.core.recipe.compose import compose
from mio.core.recipe.merging import merge
from mio.core.recipe.schema import Recipe


def test_files_merge_left_to_right_and_overrides_come_last(write):
    write("base/a.yaml", "seed: 1\ntrain: {steps: 1, rows: 1, optimizer: {betas: [0.1, 0.2]}}\nplugins: {x: {a: 1}}")
    first = write("first.yaml", "include: [base/a.yaml]\ntrain: {rows: 2}\nplugins: {y:}")
    second = write("second.yaml", "train: {optimizer: {lr: 1}}\nplugins: {x: {b: [1, {c: 2}]}}")
    made = compose([first, second], ["train.optimizer.betas=[0.5,0.6]", "plugins.x.deep.key=text", "seed=7"], NONE)
    assert (made.name, made.seed, made.train.steps, made.train.rows) == ("first", 7, 1, 2)
    assert made.train.optimizer.betas == [0.5, 0.6]
    assert made.train.optimizer.lr == 1.0
    assert made.plugins == {"x": {"a": 1, "b": [1, {"c": 2}], "deep": {"key": "text"}}, "y": {}}
    assert list(made.plugins) == ["x", "y"]
    assert made.train.optimizer.eps == Recipe().train.optimizer.eps


def test_replace_drops_what_stood_there(write):
    first = write("a.yaml", "plugins: {x: {a: 1}, y: {}}\nmixture: {ratios: {g: 1, h: 2}}")
    second = write("b.yaml", "plugins: {_replace_: true, z: {b: 1}}\nmixture: {ratios: {h: 3}}")
    made = compose([first, second], [], NONE)
    assert made.plugins == {"z": {"b": 1}}
    assert made.mixture.ratios == {"g": 1, "h": 3}


def test_what_is_no_mapping_replaces_and_keeps_its_place():
    below = {"x": {"a": [1], "b": 1, "c": "${x.d}", "d": {"e": 1}}, "y": 1}
    above = {"x": {"b": {"f": "\\\\${"}, "a": {"_replace_": True, "g": "\\???"}, "d": [2], "c": {}}}
    made = merge(below, above)
    assert list(made["x"].items()) == [("a", {"g": "\\???"}), ("b", {"f": "\\\\${"}), ("c", {}), ("d", [2])]
    assert merge(made, {"x": {"_replace_": True, "a": "???"}}) == {"x": {"a": "???"}, "y": 1}


NUMBERS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), max_size=3)
# as in a schema, a key holds numbers or mappings, never one here and the other there
MAPPINGS = st.recursive(
    NUMBERS,
    lambda inner: st.builds(dict.__or__, NUMBERS, st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)),
    max_leaves=10,
)


@settings(deadline=None)
@given(MAPPINGS, MAPPINGS, MAPPINGS)
def test_merging_is_associative_and_keeps_what_is_above(a, b, c):
    assert merge(a, {}) == a
    assert merge({}, a) == a
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert all(merge(a, b)[key] == value for key, value in b.items() if not isinstance(value, dict))


def test_stage_sections_apply_by_the_recipes_name_and_by_the_names_it_includes(write):
    scale = write("scale.yaml", "train: {steps: 1}\nstages:\n  one: {train: {steps: 10, rows: 16}}\n  two: {seed: 5}")
    one = write("one.yaml", "include: [scale.yaml]\nname: one\ntrain: {rows: 4}")
    mine = write("mine.yaml", "include: [one.yaml]\nname: mine")
    assert compose([one], [], NONE).train.steps == 10
    assert compose([one], [], NONE).train.rows == 4, "the file itself comes after what it includes"
    assert compose([one, scale], [], NONE).train.rows == 16, "a later file comes after the stage's own"
    assert (compose([mine], [], NONE).name, compose([mine], [], NONE).train.steps) == ("mine", 10)
    assert compose([one], ["name=other"], NONE).train.steps == 10
    assert compose([one], [], NONE).seed == 0


def test_all_problems_are_told_at_once_with_file_line_and_nearest_key(write):
    other = write("other.yaml", "train:\n  optimizer:\n    rules:\n      x: {patern: x}\n")
    first = write(
        "a.yaml",
        "include: [other.yaml]\n"
        "trian: {}\n"
        "train: {stepz: 5, rows: many, precision: 16, micro_rows: 1.5}\n"
        "data: {groups: {g: {sources: {s: {datset: x}}}}, packing: 3}\n"
        "context: 5\n"
        "model: {wdth: 3, tied_embeddings: 1}\n"
        "stages: {b: {name: x}}\n"
        "mixture: {ratios: [1]}\n",
    )
    found = problems(compose, [first], ["train.lr=1", "seed=true", "plugins.x={1: 2}"], NONE)
    assert found == [
        f"{other}:4: unknown key `train.optimizer.rules.x.patern`; did you mean `train.optimizer.rules.x.pattern`?",
        f"{first}:2: unknown key `trian`; did you mean `train`?",
        f"{first}:3: unknown key `train.stepz`; did you mean `train.steps`?",
        f"{first}:3: `train.rows` must be a whole number, not the text 'many'",
        f"{first}:3: `train.precision` must be text, not 16",
        f"{first}:3: `train.micro_rows` must be a whole number, not 1.5",
        f"{first}:4: unknown key `data.groups.g.sources.s.datset`; did you mean `data.groups.g.sources.s.dataset`?",
        f"{first}:4: `data.packing` must be a mapping, not 3",
        f"{first}:5: unknown key `context`; did you mean `data.packing.context`?",
        f"{first}:6: unknown key `model.wdth`; did you mean `model.width`?",
        f"{first}:6: `model.tied_embeddings` must be true or false, not 1",
        f"{first}:8: `mixture.ratios` must be a mapping by name, not a list",
        f"{first}:7: `name` cannot be set here: it belongs to one recipe alone",
        "`train.lr=1`: unknown key `train.lr`; did you mean `train.optimizer.lr`?",
        "`seed=true`: `seed` must be a whole number, not true",
        "`plugins.x={1: 2}`: `plugins.x`: the key 1 must be text; put it in quotes",
    ]


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:HOME}",
        "a ${oc.env:${seed}} b",
        "${${name}:x}",
        "${oc.decode:'{a}'}",
        "${seed} ${oc.env:HOME}",
        r"\\${oc.env:HOME}",
        "${oc.env:HOME,'}'}",
        "${",
    ],
)
def test_resolvers_are_refused_everywhere(write, value):
    first = write("a.yaml", yaml.safe_dump({"plugins": {"x": {"deep": [value]}}}))
    assert "an interpolation names another key" in problems(compose, [first], [], NONE)[0]


def test_interpolation_of_other_keys_works_and_is_typed(write):
    first = write("a.yaml", 'seed: 3\ntrain: {steps: "${seed}"}\nplugins: {x: {a: "${train.steps}", b: "\\\\${seed}"}}')
    made = compose([first], [], NONE)
    assert (made.train.steps, made.plugins) == (3, {"x": {"a": 3, "b": "${seed}"}})
    wrong = write("b.yaml", 'name: b\ntrain: {steps: "${name}"}')
    assert "train.steps" in problems(compose, [wrong], [], NONE)[0]
    assert "missing" in problems(compose, [write("c.yaml", 'seed: "${missing}"')], [], NONE)[0]
    options = '{a: "5", b: "$", c: "${.b}{oc.env:HOME}"}'
    digits = write("d.yaml", f'train: {{steps: "${{plugins.x.a}}"}}\nplugins: {{x: {options}}}')
    [told] = problems(compose, [digits], [], NONE)
    assert told == f"{digits}:1: `train.steps` must be a whole number, not the text '5'"
    assert compose([digits], ["train.steps=1"], NONE).plugins["x"]["c"] == "${oc.env:HOME}"


def test_a_missing_file_names_the_nearest(write):
    first = write("stage.yaml", "include: [laptpo.yaml]")
    laptop = write("laptop.yaml")
    with pytest.raises(UserError, match=re.escape(f"no recipe {laptop[:-5]}; did you mean `{laptop}`?")):
        compose([laptop[:-5]], [], NONE)
    assert problems(compose, [first], [], NONE)[0].startswith(f"{first}:1: no recipe laptpo.yaml")


def test_includes_that_return_are_an_error(write):
    write("b.yaml", "include: [a.yaml]")
    assert "leads back" in problems(compose, [write("a.yaml", "include: [b.yaml]")], [], NONE)[0]


@pytest.mark.parametrize("name", ["../x", "a/b", "", " ", ".hidden"])
def test_a_name_is_safe_as_a_folder(write, name):
    first = write("a.yaml", "seed: 1")
    if name:
        assert "names a folder" in problems(compose, [first], [f"name='{name}'"], NONE)[0]
    else:
        assert compose([first], ["name=''"], NONE).name == "a"
