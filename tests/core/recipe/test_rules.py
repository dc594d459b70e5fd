"""Patterns of parameters' names beside networks of which only the beginnings of names are known."""

import fnmatch
import random

import pytest

from mio.core.contract.plugins import PluginManager
from mio.core.recipe.compose import compose
from mio.core.recipe.resolved import load_resolved, to_yaml
from mio.core.recipe.rules import applied, like_names, may_be_of_network, rule_of, rule_problems
from mio.core.recipe.schema import RuleConfig

NETWORKS = ["encoders.image", "layers.0.adapters.reader", "layers.4.adapters.reader", "heads.image"]


@pytest.mark.parametrize(
    ("pattern", "may"),
    [
        ("encoders.*", True),
        ("encoders.image.blocks.*.weight", True),
        ("encoders.imagex.*", False),
        ("encoders.image", False),
        ("heads.*.bias", True),
        ("heads.[a-i]*", True),
        ("heads.[!i]*", False),
        ("head.weight", False),
        ("layers.*.adapters.reader.gate", True),
        ("layers.[0-9].adapters.*", True),
        ("layers.1.adapters.*", False),
        ("layers.?.adapters.writer.*", False),
        ("layers.*.adapters.raeder.*", False),
        ("*.adapters.reader.*", True),
        ("*", True),
        ("*.bias", True),
        ("", False),
    ],
)
def test_a_pattern_may_match_what_begins_so(pattern, may):
    assert may_be_of_network(pattern, NETWORKS) == may


def test_random_patterns_agree_with_trying_all_short_names():
    draw = random.Random(0)
    names = ["ab." + "".join(rest) for rest in [*((c,) for c in "ab."), *((c, d) for c in "ab." for d in "ab.")]]
    for _ in range(400):
        pattern = "".join(draw.choices(["a", "b", ".", "*", "?", "[ab]", "[!a]"], k=draw.randrange(6)))
        literal = len(pattern.replace("[ab]", "x").replace("[!a]", "x").replace("*", ""))
        if literal <= (2 if "*" in pattern else 5):  # so that a name of two more characters shows it
            matches = any(fnmatch.fnmatchcase(name, pattern) for name in names)
            assert may_be_of_network(pattern, ["ab"]) == matches, pattern


def test_what_was_meant_is_told_by_the_kind_of_network():
    names = ["embedding.weight", "norm.weight"]
    assert like_names("x.*", names, NETWORKS) == "; names look like `embedding.weight`"
    assert like_names("heads.imgae.*", names, NETWORKS) == "; heads make `image`; did you mean `image`?"
    assert like_names("layers.*.adapters.raeder.*", names, NETWORKS) == (
        "; adapters are those of the plugins `reader`; did you mean `reader`?"
    )
    assert like_names("heads.a.*", names) == "; no modality of the recipe is made by a head"
    found = like_names("heads.zzz.qqq", [*names, "heads.image.out.bias"])
    assert found == "; names of heads look like `heads.image.out.bias`"


def test_the_last_rule_that_matches_applies_and_null_takes_one_away():
    rules = {
        "all": RuleConfig("*", trainable=False),
        "layers": RuleConfig("layers.*", lr_scale=2.0),
        "away": None,
        "first": RuleConfig("layers.0.*", lr_scale=3.0),
    }
    assert list(applied(rules)) == ["all", "layers", "first"]
    names = {"norm.weight": "all", "layers.1.up": "layers", "layers.0.up": "first"}
    assert {name: rule_of(name, rules) for name in names} == {name: rules[own] for name, own in names.items()}
    assert rule_of("norm.weight", {"layers": rules["layers"]}) is None


def test_rows_beside_adapters_are_those_of_the_adapters():
    rules = {"own": RuleConfig("embedding.weight", rows=["new"])}
    [(name, problem)] = rule_problems(rules, ["layers.0.up.lora_a", "rows.embedding"], ["text"])
    assert name == "own"
    assert "beside adapters, `train.lora.rows` says which are trained" in problem


def test_rules_of_several_files_merge_by_name_and_the_including_file_has_the_last_word(tmp_path):
    (tmp_path / "plugin.yaml").write_text(
        "train: {optimizer: {rules: {mesh: {pattern: '*.mesh.*', lr_scale: 5}, norms: {pattern: '*norm*'}}}}"
    )
    (tmp_path / "own.yaml").write_text(
        "{include: [plugin.yaml], train: {optimizer: {rules: {mine: {pattern: 'layers.*', trainable: false},"
        " mesh: {weight_decay: 0}, norms: null}}}}"
    )
    made = compose([str(tmp_path / "own.yaml")], ["train.optimizer.rules.mine.lr_scale=2"], PluginManager([]))
    rules = made.train.optimizer.rules
    assert applied(rules) == {
        "mesh": RuleConfig("*.mesh.*", lr_scale=5.0, weight_decay=0.0),
        "mine": RuleConfig("layers.*", trainable=False, lr_scale=2.0),
    }
    assert rule_of("layers.0.mesh.up", rules) == rules["mine"]
    (tmp_path / "resolved.yaml").write_text(to_yaml(made))
    assert load_resolved(tmp_path / "resolved.yaml") == made
    alone = "train.optimizer.rules={_replace_: true, mine: {pattern: x}}"
    assert list(compose([str(tmp_path / "own.yaml")], [alone], PluginManager([])).train.optimizer.rules) == ["mine"]


def test_runs_of_earlier_versions_keep_their_rules_in_the_order_that_means_the_same(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "train: {optimizer: {rules: [{pattern: 'encoders.*'}, {pattern: '*', trainable: false}]}, lora: {rules: []}}"
    )
    train = load_resolved(path).train
    assert rule_of("encoders.image.weight", train.optimizer.rules).trainable
    assert not rule_of("norm.weight", train.optimizer.rules).trainable
    assert train.lora.rules == {}
