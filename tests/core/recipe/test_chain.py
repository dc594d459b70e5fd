"""Chains of stages."""

from __future__ import annotations

from pathlib import Path

from recipe_files import NONE, problems

from mio.core.recipe.chain import chain, starting_folder
from mio.core.recipe.resolved import fingerprint, to_yaml
from mio.core.recipe.schema import Recipe


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
