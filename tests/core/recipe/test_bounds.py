"""What bounds a recipe: bytes, values, depth, numbers, references, includes; and how each is told."""

from __future__ import annotations

import importlib
import json
import os
import re
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pytest

import mio
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.checker import keys_of
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError, UserError
from mio.core.recipe.chain import chain
from mio.core.recipe.compose import compose
from mio.core.recipe.resolved import load_resolved
from mio.core.recipe.schema import Recipe
from mio.core.recipe.yaml_text import dump_yaml, parse_yaml
from mio.core.terminal import console, json_text, plain

NONE = PluginManager([])


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, text=""):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return write


def problem(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 5000
    return str(caught.value)


ALIASES = "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 8)}]\n" for i in range(20)
)
LONG = f"a: &a {'x' * 100_000}\n" + f"b: [{', '.join(['*a'] * 20)}]"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ALIASES, "f.yaml:6: aliases make this more than 50,000 values"),
        (LONG, "f.yaml:2: aliases make this more than 1,048,576 characters"),
        ("a: &a\n  b: *a", "f.yaml:1: the alias refers to what it is part of"),
        ("[" * 50_000, "f.yaml:1: more than 48 mappings and lists inside each other"),
        ("x:\n" + "\n".join(f"  k{i}: 1" for i in range(60_000)), "more than 50,000 values"),
        ("#" * (1 << 21), "f.yaml: is larger than 1 MiB"),
        (f"seed: {'9' * 5000}", "f.yaml:1: a number of 5,000 digits"),
        ("train: {optimizer: {lr: 1e400}}", "f.yaml:1: 1e400 is more than a number can be"),
        ("train: {optimizer: {lr: 1e-400}}", "so small that it would be read as 0"),
        (f"{'k' * 300}: 1", "f.yaml:1: key `kkkk"),
        ("a: 1\nb: 2\x00", "f.yaml:2: not valid YAML: holds the character `\\x00`"),
        ('a: 1\nb: "\\x1b[31m"', "f.yaml:2: text holds the control character `\\x1b`"),
        ('b: "\\ud800"', "f.yaml:1: text holds the half of a surrogate pair `\\ud800`"),
        ('b: "\\U00110000"', "f.yaml: not valid YAML"),
        ("a: x\u2028y", "f.yaml:1: the character `\\u2028` ends a line for some readers"),
        (b"a: 1\nb: \xff\xfe", "f.yaml:2: is not UTF-8 text"),
        ("a: 1\n\tb: 2", "f.yaml:2: not valid YAML"),
        ("? [a]\n: 1", "f.yaml:1: a key must be a word"),
        ("a: !!timestamp 2020-01-01", "could not determine a constructor for the tag `tag:yaml.org,2002:timestamp`"),
        ("a: !!int x", "could not determine a constructor"),
        ("%YAML 1.1\n---\na: on", "recipes are YAML 1.2"),
        ("a: 1\n---\nb: 2", "f.yaml:2: not valid YAML"),
        ("- 1", "f.yaml: a recipe is a mapping of keys, not a list"),
        ("5", "f.yaml: a recipe is a mapping of keys, not 5"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_line(write, content, message):
    clock = time.process_time()
    assert message in problem(compose, [write("f.yaml", content)], [], NONE)
    assert time.process_time() - clock < 5


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_are_read(write, encoding):
    assert compose([write("f.yaml", "seed: 3".encode(encoding))], [], NONE).seed == 3


def test_halves_of_surrogate_pairs_are_joined_as_json_writes_them(write):
    path = write("f.yaml", json.dumps({"plugins": {"x": {"a": "\U0001f600"}}}))
    assert compose([path], [], NONE).plugins == {"x": {"a": "\U0001f600"}}


@pytest.mark.parametrize(
    "text", ["1e3", "0x1f", "0o17", "on", "12:30", "1_0", "=", "<<", "~", ".nan", "x\x85y", "'", "?"]
)
def test_text_that_looks_like_something_else_is_written_so_that_it_stays_text(text):
    assert parse_yaml(dump_yaml({"a": [text]}), "f")[0] == {"a": [text]}


def test_places_that_hold_no_recipe(write, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("pipe", "no recipe pipe (no regular file)"),
        (".", "no recipe . (a folder)"),
        ("/dev/zero", "no recipe /dev/zero (no regular file)"),
        ("n" * 300, "(File name too long)"),
        ("a\0b", "embedded null byte"),
    ):
        assert message in problem(compose, [name], [], NONE)
    assert "no recipe pipe" in problem(compose, [write("f.yaml", "include: [pipe]")], [], NONE)


# overrides


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.rows=99999999999999999999999999", "`train.rows` is 1e+26; it must be at most 1,000,000"),
        ("seed=-1", "`seed` is -1; it must be at least 0"),
        ("model.norm_eps=.nan", "`model.norm_eps` is nan; it must be from 1e-12 to 1"),
        ("model.rope_theta=0", "`model.rope_theta` is 0; it must be at least 1"),
        ("model.init_std=.inf", "`model.init_std` is inf; it must be at most 10"),
        ("evaluate.batch=0", "`evaluate.batch` is 0; it must be at least 1"),
        ("train.optimizer.betas=[0.9, 1]", "`train.optimizer.betas[1]` is 1; it must be below 1"),
        ("train.optimizer.rules.x={pattern: a, lr_scale: .inf}", "rules.x.lr_scale` is inf"),
        ("train.steps=1e3", "`train.steps` must be a whole number, not 1000.0"),
        ("seed=\nname: x", "the value after `=` goes on with further keys"),
        ("seed=1\ntrain: {rows: 2}", "not valid YAML"),
        (".".join("a" * 60) + "=1", "the key before `=` is too long"),
        ("a\x1b=1", "holds characters that no key has"),
        (f"plugins.x.y={'[' * 5000}", "more than 48 mappings and lists"),
        ("plugins.x.y=\udcff", "half of a surrogate pair"),
        (f"name={'n' * 101}", "at most 100 letters"),
        ("name=a.", "the last no `.`"),
        ("name=..", "names a folder"),
        ("runtime.accelerator=foo", "not one of `auto`, `cpu`, `gpu`"),
    ],
)
def test_an_override_that_is_refused(write, override, message):
    told = problem(compose, [write("f.yaml", "seed: 1")], [override], NONE)
    assert message in told.replace("holds the character `\\udcff`", "half of a surrogate pair")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"width": 2**20, "layers": 10_000, "heads": 1024}, "parameters in its layers"),
        ({"rope_scaling": {"kind": "llama3", "low_freq_factor": 4.0}}, "must be above `low_freq_factor`"),
        ({"norm_eps": float("nan")}, "`model.norm_eps` is nan"),
    ],
)
def test_models_that_cannot_be(write, model, message):
    from mio.core.recipe.model import transformer_config

    def made(model):
        return transformer_config(compose([write("f.yaml", dump_yaml({"model": model}))], [], NONE), NONE)

    class Nothing:
        def backbones(self):
            return {"wrong": ("acme", {"width": "wide", "norm_eps": -1.0})}

    assert message in problem(made, model)
    told = problem(transformer_config, Recipe(model={"preset": "wrong"}), Nothing())
    assert "preset `wrong`: `model.width` must be a whole number" in told
    assert "preset `wrong`: `model.norm_eps` is -1" in told
    assert "`model.norm_eps` is nan" in problem(TransformerConfig(norm_eps=float("nan")).check)


# values that have to be given, references


@pytest.mark.parametrize(
    "key", ["train.steps", "name", "plugins.x.deep", "mixture.ratios.g", "start_from", "model.width"]
)
def test_a_value_that_has_to_be_given_is_told_with_its_place(write, key):
    names = key.split(".")
    text = "".join(f"{'  ' * depth}{name}:\n" for depth, name in enumerate(names[:-1])) + "  " * (len(names) - 1)
    path = write("f.yaml", f"# a base\n{text}{names[-1]}: ???")
    assert problem(compose, [path], [], NONE).startswith(f"f.yaml:{len(names) + 1}: `{key}`: is `???`")


def test_a_value_that_has_to_be_given_may_be_given_later_and_escaped(write):
    path = write("f.yaml", "train:\n  steps: ???\nplugins: {x: {a: '\\???', b: 'what???'}}")
    made = compose([path], ["train.steps=3"], NONE)
    assert (made.train.steps, made.plugins) == (3, {"x": {"a": "???", "b": "what???"}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"a": "${plugins.x.b}", "b": "${plugins.x.a}"}, "interpolations go round in a circle"),
        ({"a": "${plugins}"}, "refers to what it is part of"),
        ({"a": "${plugins.x.nothing}"}, "refers to a key that is missing"),
        ({"a": "x${train}"}, "is no single value"),
        ({"a": True, "b": "x${.a}"}, "is no single value"),
        ({"a": {"b": {"c": {"d": "${plugins.x.e}"}}}, "e": json.loads("[" * 42 + "]" * 42)}, "48 mappings"),
        (
            {"k0": "v" * 1000, **{f"k{i}": f"${{plugins.x.k{i - 1}}}" * 9 for i in range(1, 30)}},
            "more than 1,048,576 char",
        ),
        (
            {"k0": [1] * 9, **{f"k{i}": [f"${{plugins.x.k{i - 1}}}"] * 9 for i in range(1, 30)}},
            "more than 100,000 values",
        ),
        ({"k0": 1, **{f"k{i}": f"${{plugins.x.k{i - 1}}}" for i in range(1, 999)}}, "more than 32 interpolations"),
    ],
)
def test_references_that_lead_nowhere_or_everywhere(write, options, message):
    clock = time.process_time()
    options = dict(reversed(options.items()))
    assert (
        message
        in problem(lambda path: compose([path], [], NONE), write("f.yaml", json.dumps({"plugins": {"x": options}})))[
            :2000
        ]
    )
    assert time.process_time() - clock < 5


def test_references_keep_types_and_find_defaults(write):
    options = {
        "a": "${train.rows}",
        "b": "${seed}-${train.optimizer.kind}",
        "c": "${.a}",
        "d": "${mixture}",
        "e": "${name}",
    }
    made = compose([write("f.yaml", json.dumps({"plugins": {"x": options}}))], [], NONE).plugins["x"]
    assert made == {"a": 8, "b": "0-adamw", "c": 8, "d": {"unit": "tokens", "ratios": {}, "ramp": []}, "e": "f"}


# includes and chains


def test_files_that_include_the_next_one_twice_are_bounded(write):
    for index in range(30):
        write(f"f{index}.yaml", f"include: [f{index + 1}.yaml, f{index + 1}.yaml]")
    write("f30.yaml", "seed: 1")
    assert re.search("more than 200 files|deeper than 20", problem(compose, ["f0.yaml"], [], NONE))
    assert compose(["f26.yaml"], [], NONE).seed == 1


def test_long_chains_are_bounded(write):
    for index in range(120):
        write(f"f{index}.yaml", f"start_from: f{index + 1}.yaml")
    write("f120.yaml")
    assert "longer than 100 stages" in problem(chain, ["f0.yaml"], [], NONE)


# options of plugins


def test_options_are_read_with_types_and_ranges():
    @dataclass(frozen=True)
    class Options:
        size: int = mio.number(8, 1, 64)
        share: float | None = mio.number(None, 0, 1)
        kind: str = mio.one_of("a", "a", "b")
        names: list[str] = mio.number(list, 0, 0)

    made = mio.read_options(Options, {"size": 9, "share": 1, "names": ["x"]}, "plugins.sketch")
    assert made == Options(size=9, share=1.0, names=["x"])
    with pytest.raises(UserError) as caught:
        mio.read_options(Options, {"sizes": 1, "size": 65, "share": "x", "kind": "c", "names": [1]}, "plugins.sketch")
    assert str(caught.value).split("; plugins.sketch") == [
        "plugins.sketch has no option `sizes`; did you mean `size`?; it has size, share, kind, names",
        ": `size` is 65; it must be at most 64",
        ": `share` must be a number, not the text 'x'",
        ": `kind` is `c`, not one of `a`, `b`",
        ": `names[0]` must be text, not 1",
    ]


OPTIONS_OF = {
    "text": ["text:TextOptions"],
    "image": ["image.options:PatchOptions", "image.options:JanusOptions", "image.seed.options:SeedOptions"],
    "speech": ["speech.options:MelOptions", "speech.options:PretrainedOptions"],
    "video": ["video:VideoOptions"],
    "music": ["music:MusicOptions"],
}
WRONG = (None, True, -1, float("nan"), 10**30, "many", [1], {"a": 1})


@pytest.mark.parametrize("plugin", OPTIONS_OF)
def test_options_of_the_wrong_type_are_refused_in_one_line(plugin):
    """Every option of every built-in plugin with values of every type: refused, or something comes of it."""
    manager = PluginManager.discover()
    tokenizers = {
        "text": ("bpe", "bytes", "imported"),
        "image": ("patch_vq", "janus", "seed"),
        "speech": ("mel_rvq", "speechtokenizer"),
    }
    names = {"size", "specials", "tokens", "nothing"}
    for declared in OPTIONS_OF[plugin]:
        module, name = declared.split(":")
        names |= {one.name for one in fields(getattr(importlib.import_module(f"mio.plugins.{module}"), name))}
    told = []
    for tokenizer in tokenizers.get(plugin, (None,)):
        for name in names:
            for value in WRONG:
                given = {**({"tokenizer": tokenizer} if tokenizer else {}), name: value}
                try:
                    enabled = manager.enable({"image": {"tokenizer": "patch_vq"}, plugin: given})
                    enabled.modalities()
                except UserError as error:
                    told.append(str(error))
    assert len(told) > 20
    assert all(told)
    assert "\n" not in "".join(told)


def test_readers_of_resolved_recipes_check_ranges(write):
    assert "f.yaml:1: `train.rows` is 0; it must be at least 1" in problem(
        load_resolved, Path(write("f.yaml", "train: {rows: 0}"))
    )


# the terminal


def test_text_from_elsewhere_is_shown_and_does_not_act(capsys):
    text = "[bold]a[/bold] \x1b[31mb\x9b\u202e\ud800:smile:\n\tc"
    assert plain(text) == "[bold]a[/bold] \\x1b[31mb\\x9b\\u202e\\ud800:smile:\n\tc"
    console(width=200).print(text)
    assert capsys.readouterr().out == plain(text).replace("\t", "        ")[: len(plain(text)) + 7] + "\n"
    assert json.loads(json_text({"a": text})) == {"a": text}
    assert not re.search("[\x1b\x9b\u202e\ud800]", json_text({"a": text}))


def test_every_number_of_the_schema_has_a_range():
    """Keys of numbers without a range would take infinities and sizes that nothing can hold."""

    def leaves(value, key=""):
        for name, item in value.items():
            yield from leaves(item, f"{key}{name}.") if isinstance(item, dict) else [(f"{key}{name}", item)]

    content = {**asdict(Recipe()), "model": asdict(TransformerConfig())}
    numbers = [key for key, value in leaves(content) if isinstance(value, int | float) and not isinstance(value, bool)]
    assert len(numbers) > 50
    allowed = {key: one for key, _, one in keys_of(Recipe)}
    assert not [key for key in numbers if allowed[key] is None]


def test_refusals_are_recipe_errors():
    with pytest.raises(RecipeError):
        parse_yaml("a: [", "f")
