"""The recipe language: composition, errors with places, chains, fingerprints, and every recipe of the repository."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mio import Frames, Modality, UserError, hookimpl
from mio.core.contract.checker import keys_of
from mio.core.contract.discovery import Candidate
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError
from mio.core.recipe.chain import chain, starting_folder
from mio.core.recipe.compose import compose
from mio.core.recipe.merging import merge
from mio.core.recipe.model import transformer_config
from mio.core.recipe.resolved import diff, fingerprint, load_resolved, to_yaml
from mio.core.recipe.schema import Recipe
from mio.core.recipe.yaml_text import dump_yaml, parse_yaml
from mio.core.stages.check import check

ROOT = Path(__file__).parents[3]
NONE = PluginManager([])


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes recipe files; the working directory is elsewhere, so that relative paths are the files' own."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def write(name, text=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


def problems(function, *arguments):
    with pytest.raises(RecipeError) as caught:
        function(*arguments)
    return list(caught.value.problems)


# YAML


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


# composition


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
    other = write("other.yaml", "train:\n  optimizer:\n    rules:\n    - {patern: x}\n")
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
        f"{other}:4: unknown key `train.optimizer.rules.0.patern`; did you mean `train.optimizer.rules.0.pattern`?",
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


# chains


def test_a_chain_applies_overlays_to_every_stage_but_name_and_start(write):
    write("deep/one.yaml", "name: one\ntrain: {steps: 1}")
    write("deep/two.yaml", "name: two\nstart_from: one.yaml")
    three = write("three.yaml", "name: three\nstart_from: deep/two.yaml")
    overlay = write("overlay.yaml", "name: renamed\ntrain: {rows: 32}\nstages: {one: {train: {steps: 9}}}")
    stages = chain([three, overlay], ["seed=4"], NONE)
    assert [stage.name for stage in stages] == ["one", "two", "renamed"]
    assert [stage.start_from for stage in stages] == ["", "../one", "../two"]
    assert {(stage.seed, stage.train.rows) for stage in stages} == {(4, 32)}
    assert [stage.train.steps for stage in stages] == [9, 1000, 1000]
    assert starting_folder(stages[0]) is None
    assert starting_folder(stages[2]) == Path("runs/two")


def test_a_chain_may_start_from_a_run_folder(write, tmp_path):
    write("runs/base/recipe.yaml", to_yaml(Recipe(name="base")))
    one = write("one.yaml", "start_from: runs/base")
    [stage] = chain([one], [], NONE)
    assert starting_folder(stage) == tmp_path / "runs" / "base"
    [beside] = chain([one], [f"runtime.runs={tmp_path / 'runs'}"], NONE)
    assert beside.start_from == "../base"
    assert fingerprint(stage) == fingerprint(beside)


def test_a_resolved_recipe_starts_from_the_run_beside_it(write, tmp_path):
    write("one.yaml", "name: one")
    stages = chain([write("two.yaml", "start_from: one.yaml")], [f"runtime.runs={tmp_path}/runs"], NONE)
    for stage in stages:
        write(f"runs/{stage.name}/recipe.yaml", to_yaml(stage))
    [again] = chain([str(tmp_path / "runs/two/recipe.yaml")], [], NONE)
    assert again == stages[1]


def test_chains_that_return_or_share_a_folder_are_errors(write):
    write("b.yaml", "start_from: a.yaml")
    loop = write("a.yaml", "start_from: b.yaml")
    assert (
        "leads back to a recipe of the same chain: a.yaml -> b.yaml -> a.yaml" in problems(chain, [loop], [], NONE)[0]
    )
    twin = write("d.yaml", "start_from: c.yaml\nname: same")
    write("c.yaml", "name: same")
    assert "two stages of the chain are called `same`" in problems(chain, [twin], [], NONE)[0]
    lost = write("e.yaml", "start_from: d.yml")
    assert "did you mean `d.yaml`?" in problems(chain, [lost], [], NONE)[0]


# resolved recipes


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


def test_the_fingerprint_covers_everything_but_runtime():
    for key, value in leaves(asdict(Recipe())):
        changed = Recipe()
        section = changed
        for name in key[:-1]:
            section = getattr(section, name)
        setattr(section, key[-1], [1.0] if isinstance(value, list) else f"{value}x" if isinstance(value, str) else 77)
        same = fingerprint(changed) == fingerprint(Recipe())
        assert same == (key[0] == "runtime"), key


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


# the transformer


class Presets:
    def backbones(self):
        return {"tiny-llama": ("acme", {"width": 64, "heads": 8, "rope_scaling": {"kind": "linear"}})}


def test_a_preset_is_changed_by_the_recipes_own_fields():
    made = Recipe(model={"preset": "tiny-llama", "heads": 4, "rope_scaling": {"factor": 2.0}})
    config = transformer_config(made, Presets())
    assert (config.width, config.heads, config.layers) == (64, 4, 4)
    assert (config.rope_scaling.kind, config.rope_scaling.factor) == ("linear", 2.0)
    assert (
        "did you mean `tiny-llama`?"
        in problems(transformer_config, Recipe(model={"preset": "tiny-lama"}), Presets())[0]
    )


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"width": 30, "heads": 4}, "no multiple of"),
        ({"width": 12, "heads": 4}, "must be even"),
        ({"kv_heads": 3}, "multiple of `model.kv_heads`"),
        ({"layers": 0}, "`model.layers` is 0"),
        ({"experts": 1}, "experts_per_token"),
        ({"rope_scaling": {"kind": "yarn"}}, "rope_scaling.kind"),
        ({"init_std": -1.0}, "`model.init_std` is -1; it must be at least 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(write, model, problem):
    def made(path):
        return transformer_config(compose([path], [], NONE), NONE)

    assert problem in problems(made, write("a.yaml", yaml.safe_dump({"model": model})))[0]


# checks against plugins

SOUND = """
name: sound
plugins: {words: {}}
data:
  groups:
    pairs: {sources: {a: {dataset: jsonl, templates: own, directions: {draw: 1}, filters: {}}}}
  templates: {own: [{direction: draw, prompt: "{caption}", response: "{sketch}"}]}
  packing: {context: 34}
mixture: {ratios: {pairs: 1}}
"""


class Words:
    @hookimpl
    def mio_modalities(self):
        return [
            Modality(name="text", text=True),
            Modality(
                name="sketch", codebooks=(8, 8), layout="frame_major", begin="<s>", end="</s>", code_token="<s{}>",
                frames=Frames(minimum=16, maximum=16),
            ),
        ]  # fmt: skip


WORDS = PluginManager([Candidate("words", "test 1.0", "words", Words)])


def checked(write, *overrides):
    made = compose([write("sound.yaml", SOUND)], list(overrides), WORDS)
    check(made, WORDS.enable(made.plugins))


def test_a_sound_recipe_passes(write):
    checked(write)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("mixture.ratios={pears: 1}", "unknown group `pears`; did you mean `pairs`?"),
        ("mixture.ratios={pairs: 0}", "no ratio above 0"),
        ("mixture.ratios={_replace_: true}", "no ratio above 0"),
        ("mixture.ratios={pairs: -1}", "`mixture.ratios.pairs` is -1; it must be at least 0"),
        ("mixture.ratios={pairs: .nan}", "`mixture.ratios.pairs` is nan"),
        ("data.groups.pairs={_replace_: true}", "`mixture.ratios.pairs` is 1, but `data.groups.pairs` has no sources"),
        ("data.groups.pairs.sources.a.weight=0", "`data.groups.pairs` has no source with a weight above 0"),
        ("data.groups.pairs.sources.a.weight=-2", "sources.a.weight` is -2"),
        ("data.groups.pairs.sources.a.directions={draw: 0}", "sources.a.directions` has no share above 0"),
        ("data.groups.pairs.sources.a.directions={draw: -1}", "sources.a.directions.draw` is -1"),
        ("data.groups.pairs.sources.a.options={path: .inf}", "sources.a.options.path` is inf; it must be a finite"),
        (
            "data.groups.pairs.sources.a.filters={size: 3}",
            "sources.a.filters.size` must be a mapping of options, not 3",
        ),
        ("data.packing.window=0", "`data.packing.window` is 0"),
        ("mixture.unit=tokns", "did you mean `tokens`?"),
        ("data.groups.pairs.sources.a.dataset=jsnl", "unknown dataset `jsnl`; did you mean `jsonl`?"),
        ("data.groups.pairs.sources.a.templates=ownn", "unknown template set `ownn`; did you mean `own`?"),
        ("data.groups.pairs.sources.a.directions={drow: 1}", "direction `drow`"),
        ("data.groups.pairs.sources.a.filters={size: {}}", "unknown filter `size`"),
        ("data.groups.pairs.sources.a.form=chatt", "did you mean `chat`?"),
        ("data.templates.own=[{direction: draw, response: '{sketch'}]", "`data.templates.own[0]`: `response`"),
        ("data.templates.own=[]", "`data.templates.own` is empty"),
        ("data.form=chatml", "`data.form` is `chatml`"),
        ("data.system={skech: hi}", "`data.system.skech` is neither `default` nor a modality in use"),
        ("data.max_skipped=2", "`data.max_skipped` is 2"),
        ("data.packing.too_long=cut", "`data.packing.too_long` is `cut`"),
        ("data.packing.context=33", "shortest span of `sketch` takes 34 positions (2 x 16 codes and 2 borders)"),
        ("train.steps=0", "`train.steps` is 0"),
        ("train.precision=fp16", "`train.precision` is `fp16`"),
        ("train.loss={prompt_text: 0, prompt_media: 0, response_text: 0, response_media: 0}", "no weight above 0"),
        ("train.loss.prompt_text=-1", "`train.loss.prompt_text` is -1"),
        ("train.optimizer.kind=muonn", "did you mean `muon`?"),
        ("train.optimizer.lr=.inf", "`train.optimizer.lr` is inf"),
        ("train.optimizer.betas=[0.9]", "two numbers"),
        ("train.optimizer.warmup=3", "`train.optimizer.warmup` is 3; it must be at most 1"),
        ("train.optimizer.rules=[{}]", "`train.optimizer.rules[0].pattern` is empty"),
        ("runtime.devices=3", "`train.rows` is 8, which 3 devices cannot share equally; set it to 6 or 9"),
        ("train.micro_rows=3", "does not divide the 8 rows"),
        ("runtime.devices=0", "`runtime.devices` is 0"),
        ("evaluate.tasks=[draw]", "unknown task `draw`"),
        ("model.heads=3", "no multiple of"),
    ],
)
def test_what_a_recipe_says_is_checked_against_the_plugins(write, override, problem):
    found = problems(checked, write, override)
    assert any(problem in one for one in found), found
    assert all(one.startswith(("recipe `sound`: ", f"`{override}`: ")) for one in found)


def test_all_problems_of_the_meaning_are_told_at_once(write):
    assert len(problems(checked, write, "train.steps=0", "data.form=x", "evaluate.items=0", "model.layers=0")) == 4


def test_planning_and_checking_need_no_torch():
    code = "import mio.core.data.plan, mio.core.stages.check, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# the repository's recipes and documentation

STAGES = ["stage1", "stage2", "stage3", "stage4"]


def stages(*overlays):
    return {stage.name: stage for stage in chain(["stage4", *overlays], [], PluginManager.discover())}


def test_the_stages_pass_every_check_on_the_laptop():
    manager = PluginManager.discover()
    found = stages()
    assert list(found) == STAGES
    for stage in found.values():
        check(stage, manager.enable(stage.plugins))


def test_the_stages_have_the_published_values():
    """MIO, arXiv 2409.17692 v4: table 9, appendices B and C. The tokenizers' files are not needed to check them."""
    found = stages("scale/mio-7b", "data/mio")
    for stage in found.values():
        check(stage, PluginManager.discover().enable(stage.plugins))
    assert [list(found[name].mixture.ratios.items()) for name in STAGES[:3]] == [
        [("image_text", 12), ("text", 2), ("interleaved", 0), ("speech_text", 2)],
        [("image_text", 2), ("text", 2), ("interleaved", 6), ("speech_text", 6)],
        [("image_text", 2), ("text", 1), ("interleaved", 1), ("speech_text", 12)],
    ]
    assert [found[name].mixture.unit for name in STAGES[:3]] == ["rows"] * 3
    assert [found[name].train.steps for name in STAGES[:3]] == [24_800, 12_800, 32_200]
    gpus = [found[name].runtime.nodes * found[name].runtime.devices for name in STAGES[:3]]
    assert gpus == [128, 128, 8]
    for name, count in zip(STAGES, gpus, strict=False):
        assert found[name].train.rows == count * sum(found[name].mixture.ratios.values())
    for stage in found.values():
        optimizer = stage.train.optimizer
        assert (optimizer.kind, optimizer.lr, optimizer.warmup, optimizer.clip) == ("adamw", 3e-5, 0.03, 1.0)
        assert set(asdict(stage.train.loss).values()) == {1.0}
        assert stage.data.packing.context == 2800
        assert list(stage.plugins) == ["text", "image", "speech", "video"]
        assert stage.model == {"preset": "yi-6b"}
        assert stage.evaluate.tasks == []
    assert [stage.data.form for stage in found.values()] == ["plain"] * 3 + ["chat"]


def test_the_stages_read_the_published_data_sets():
    found = stages("scale/mio-7b", "data/mio")

    def read(stage, group):
        return set(found[stage].data.groups[group].sources)

    assert read("stage1", "image_text") == read("stage2", "image_text") == {"sbu", "cc3m", "laion_coco", "journeydb"}
    assert read("stage3", "image_text") == {"cc3m", "laion_coco"}
    assert read("stage2", "interleaved") == {"obelics", "mmc4", "webvid", "howto100m", "yt_temporal"}
    assert read("stage3", "interleaved") == {"mmc4", "webvid", "howto100m", "yt_temporal"}
    [say, _] = found["stage3"].data.templates["speech_text"]
    assert say.prompt + say.response == "{speech} The transcription of this speech is: {transcription}"


def test_the_documentation_lists_exactly_the_keys_of_the_schema():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    section = text.split("## Keys")[1].split("## Errors")[0]
    documented = re.findall(r"^\| `([^`]+)` \| .* \| ?(.*?) ?\|$", section, re.MULTILINE)
    assert documented == [(key, str(allowed or "")) for key, allowed in keys_of(Recipe)]
