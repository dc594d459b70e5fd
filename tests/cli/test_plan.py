"""`mio plan`: what it prints, and that it loads nothing before it has to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mio.cli import app

ROOT = Path(__file__).parents[2]
SMALL = ["model.layers=2", "train.steps=10"]


def values(capsys, *arguments):
    assert app.run(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_published_recipe_is_planned_without_its_tokenizers_and_data(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = values(capsys, "scale/mio-7b", "world=512", *SMALL)
    block = 2 * 4096 * 4096 + 2 * 4096 * 512 + 3 * 4096 * 11008 + 2 * 4096
    assert told["vocabulary"] == {"size": 64000 + 4 + 4096 + 8192, "rows": 76416}
    assert told["parameters"] == 2 * block + 2 * 76416 * 4096 + 4096
    assert told["mesh"] == {"replicate": 1, "shard": 512, "tensor": 1, "experts": 1}
    assert told["step"]["tokens"] == 2048 * 2800
    assert told["memory"]["fits"]
    assert told["alternatives"] == []
    time, stage = told["time"], told["stage"]
    assert time["fastest_seconds"] <= time["step_seconds"] <= time["slowest_seconds"]
    assert stage["days"] == pytest.approx(10 * time["step_seconds"] / 86400, abs=1e-3)
    assert list(tmp_path.iterdir()) == []


def test_the_plans_own_keys_change_hardware_and_cost(capsys):
    arguments = ["scale/mio-7b", *SMALL, "train.rows=32", "world=16"]
    one = values(capsys, *arguments)
    other = values(capsys, *arguments, "gpu=a100", "network=efa-400", "efficiency=0.4", "price=1", "document=700")
    assert other["memory"]["peak_gib"] == one["memory"]["peak_gib"]
    assert other["time"]["compute_seconds"] > one["time"]["compute_seconds"]
    assert other["flops"]["model"] < one["flops"]["model"]
    assert (other["gpu"], other["network"], other["assumed"]["efficiency"]) == ("a100", "efa-400", 0.4)


def test_a_key_that_is_nearly_the_plans_is_told(capsys):
    assert app.run(["plan", "scale/mio-7b", "wrold=5"]) == 2
    assert "unknown key `wrold`; did you mean `world`?" in capsys.readouterr().err


@pytest.mark.usefixtures("tunes")
def test_a_teacher_that_a_ramp_brings_is_planned_for(capsys):
    Path("base.yaml").write_text(Path("tunes.yaml").read_text().replace("name: tunes", "name: base"))
    stage = ("tunes.yaml", "start_from=base.yaml", "train.distillation.groups=[names]")
    late = "mixture={ratios: {melody: 1, names: 0}, ramp: [{at: 0.5}, {at: 0.5, ratios: {names: 0.25}}]}"
    always = "mixture.ratios={melody: 1, names: 0.25}"
    ramped, even = (values(capsys, *stage, mixture)["memory"] for mixture in (late, always))
    alone = values(capsys, *stage[:2], late)["memory"]
    assert ramped == even != alone
    assert app.run(["plan", *stage[:2], "train.distillation.groups=[nmaes]"]) == 2
    assert "`nmaes` matches no group of the mixture" in capsys.readouterr().err


def test_what_does_not_fit_comes_with_what_does(capsys):
    arguments = ["scale/mio-7b", "model.layers=4", "train.rows=512", "world=8"]
    assert app.run(["plan", *arguments]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "does not fit" in printed
    assert "what fits" in printed
    told = values(capsys, *arguments)
    assert not told["memory"]["fits"]
    assert told["alternatives"]
    # each of them does fit, as it is told
    for one in told["alternatives"]:
        again = values(capsys, *arguments, *one["changes"])
        assert again["memory"]["fits"]
        assert again["memory"]["total_gib"] == pytest.approx(one["total_gib"])


def test_what_splitting_experts_would_spare_is_told_where_they_are_not_split(capsys):
    arguments = ["scale/mio-7b", *SMALL, "train.rows=32", "world=16", "model={experts: 8, ffn_width: 2048}"]
    told = values(capsys, *arguments)
    [split] = told["alternatives"]
    assert told["memory"]["fits"]
    assert split["changes"] == ["runtime.expert_parallel=8"]
    again = values(capsys, *arguments, *split["changes"])
    assert again["mesh"] == {"replicate": 1, "shard": 16, "tensor": 1, "experts": 8}
    assert again["memory"]["total_gib"] == pytest.approx(split["total_gib"])
    assert sum(again["traffic_bytes"].values()) == pytest.approx(split["sent_bytes"], rel=1e-6)
    assert again["alternatives"] == []
    assert app.run(["plan", *arguments]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "what else fits GiB seconds a step GB sent" in printed
    assert "as it is" in printed


def test_mistakes_are_told_before_torch_is_loaded():
    code = (
        "import sys\nfrom mio.cli.app import run\n"
        "code = run(['plan', 'scale/mio-7b', 'gpu=h10'])\nprint('torch' in sys.modules, code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "False 2"


def test_a_recipe_whose_text_tokenizer_is_unknown_asks_for_its_size(capsys, tmp_path):
    recipe = tmp_path / "foreign.yaml"
    recipe.write_text("plugins: {text: {tokenizer: somewhere/else}}\nmodel: {width: 64, layers: 1, heads: 2}")
    assert app.run(["plan", str(recipe)]) == 2
    assert "text_tokens=" in capsys.readouterr().err
    assert values(capsys, str(recipe), "text_tokens=5000")["vocabulary"]["size"] == 5000
