"""A stage beside what it starts from: what is told before anything is read or trained."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import yaml

from mio.core.contract.plugins import PluginManager
from mio.core.errors import PluginError, RecipeError
from mio.core.planning.vocabulary import expected_vocabulary
from mio.core.runs.lock import Lock
from mio.core.stages.check_chain import check_chain
from mio.core.tokens.vocabulary import Vocabulary
from mio.plugins.text.byte_tokenizer import ByteTokenizer

CHILD = """
name: child
start_from: runs/tunes
plugins: {text: , melody: }
data:
  groups:
    melody: {sources: {tunes: {dataset: melody/tunes, templates: melody}}}
  packing: {context: 96, window: 16}
mixture: {ratios: {melody: 1}}
train: {steps: 4, rows: 2}
"""
LINES = {line.split(":")[0].strip(): number for number, line in enumerate(CHILD.splitlines(), 1) if line}


@pytest.fixture
def base(finished, tunes):
    """A finished run, `runs/tunes`, and a recipe that starts from it."""
    shutil.copytree(finished, tunes / "runs/tunes")
    (tunes / "child.yaml").write_text(CHILD)
    return tunes / "runs/tunes"


def checked(*overrides, recipe="child.yaml"):
    return check_chain([recipe], list(overrides), PluginManager.discover())


def told(*overrides, recipe="child.yaml"):
    with pytest.raises(RecipeError) as caught:
        checked(*overrides, recipe=recipe)
    return list(caught.value.problems)


def test_a_stage_is_its_parents_model_where_it_says_nothing(base):
    [stage] = checked()
    parent = yaml.safe_load((base / "recipe.yaml").read_text())
    assert stage.notes == ()
    assert stage.recipe.model == parent["model"]
    assert stage.recipe.plugins == parent["plugins"]


@pytest.mark.parametrize(
    ("override", "lines"),
    [
        (
            "model={width: 32, layers: 3, tied_embeddings: false}",
            [
                "`model.width` is 32, but 64 in the weights of runs/tunes; leave it out, or give 64",
                "`model.layers` is 3, but 2 in the weights of runs/tunes; leave it out, or give 2",
                "`model.tied_embeddings` is false, but true in the weights of runs/tunes; leave it out, or give true",
            ],
        ),
        ("model.heads=4", ["`model.heads` is 4, but 2 in the weights of runs/tunes; leave it out, or give 2"]),
        ("model.ffn_width=100", ["`model.ffn_width` is 100, but 192 in the weights of runs/tunes"]),
        (
            "model.preset=yi-6b",
            [
                "`model.preset` `yi-6b` is not the model of runs/tunes: `width` 4096 instead of 64, `layers` 32 instead"
                " of 2, "
            ],
        ),
        (
            "plugins.text.tokenizer=bpe",
            ["`plugins.text.tokenizer` is `bpe`, in runs/tunes `bytes`; the text tokenizer is that of runs/tunes: "],
        ),
        ("plugins.text.tokenizer=nowhere", ["plugin `text`: plugins.text.tokenizer: there is no nowhere"]),
        (
            'train.optimizer.rules={a: {pattern: "layer.*"}, b: {pattern: embedding.weight, rows: ["tune/*"]}}',
            [
                "`train.optimizer.rules.a`: `layer.*` matches no parameter; names look like `embedding.weight`",
                "`train.optimizer.rules.b`: `embedding.weight` has `rows: tune/*`, which matches no vocabulary block",
            ],
        ),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(base, override, lines):
    del base
    found = told(override)
    assert len(found) == len(lines), found
    for one, line in zip(found, lines, strict=True):
        assert one.startswith(f"recipe `child`: `{override}`: {line}"), one


def test_all_problems_are_told_at_once_by_file_and_line(base, tunes):
    (base / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes()[:-1])
    (tunes / "child.yaml").write_text(f"{CHILD}model:\n  layers: 5\n")
    number = len(CHILD.splitlines())
    assert told("train.optimizer.betas=[0.9]") == [
        "recipe `child`: `train.optimizer.betas` is [0.9]; it must be two numbers from 0 to below 1",
        f"recipe `child`: child.yaml:{number + 2}: `model.layers` is 5, but 2 in the weights of runs/tunes; leave it "
        "out, or give 2",
        f"recipe `child`: child.yaml:{LINES['start_from']}: runs/tunes/model.safetensors: is damaged or cut short; "
        "restore it from a copy, or import or train the run again",
    ]


@pytest.mark.parametrize(
    ("overrides", "notes"),
    [
        (["model.rope_theta=5e5"], ["`model.rope_theta` is 500000.0, in runs/tunes 10000.0"]),
        (["model.preset=", "model.norm_eps=1e-6"], ["`model.norm_eps` is 1e-06, in runs/tunes 1e-05"]),
        (
            ["data.packing.context=128"],
            [
                "`data.packing.context` is 128, longer than the 96 positions of runs/tunes: the model has not seen "
                "such distances; `model.rope_scaling` stretches those that it knows"
            ],
        ),
        (["data.packing.context=128", "model.rope_scaling={kind: linear, factor: 2}"], None),
        (
            [
                "plugins={_replace_: true, text: {}}",
                "data.groups.melody.sources.tunes={dataset: jsonl, templates: text}",
            ],
            ["`melody` of runs/tunes left out: 10 ids keep their places and rows and are neither read nor written"],
        ),
        (["plugins.image={tokenizer: patch_vq}"], ["66 new ids of `image`, after the 271 of runs/tunes"]),
    ],
)
def test_what_may_not_be_meant_is_noted(base, overrides, notes):
    del base
    if overrides[0] == "model.preset=":
        overrides = ['model.preset=""', *overrides[1:]]
    [stage] = checked(*overrides)
    if notes is None:
        assert [note.split(" is ")[0] for note in stage.notes] == ["`model.rope_scaling`"]
    else:
        assert list(stage.notes) == notes


def test_a_codebook_of_another_size_is_told(base):
    content = Vocabulary.load(base / "vocabulary.json").to_json()
    [codes] = [block for block in content["blocks"] if block["name"] == "melody/codebook0"]
    codes["size"], content["size"] = 9, content["size"] + 1
    Vocabulary.from_json(content).save(base / "vocabulary.json")
    assert "vocabulary.json: is not what the run wrote" in told()[0]
    Lock.read(base).sealed(base, ["vocabulary.json"]).save(base / "recipe.lock")
    [problem] = told()
    assert "block `melody/codebook0` has 9 ids of kind codes" in problem
    assert "plugin `melody` now declares 8 of kind codes" in problem


@pytest.mark.parametrize("part", ["recipe.lock", "vocabulary.json", "tokenizers/tokenizers.json", "model.safetensors"])
def test_a_folder_that_lacks_a_part_is_told(base, part):
    (base / part).unlink()
    [problem] = told()
    assert problem.startswith(f"recipe `child`: child.yaml:{LINES['start_from']}: runs/tunes")
    assert "is missing" in problem or "no such file" in problem


def test_the_folder_of_another_text_tokenizer_is_told_by_its_fingerprint(base, tunes):
    del base
    (tunes / "other").mkdir()
    (tunes / "other/tokenizer.json").write_text(json.dumps(ByteTokenizer().definition()))
    (tunes / "other/tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    [problem] = told("plugins.text.tokenizer=other")
    assert problem.startswith(
        "recipe `child`: `plugins.text.tokenizer=other`: `plugins.text.tokenizer` is `other`, in runs/tunes `bytes`; "
    )


def test_a_checkpoint_is_a_start_though_its_run_is_not_finished(base):
    (base / "model.safetensors").unlink()
    assert "and runs/tunes/checkpoints/step-00000004 is its last checkpoint" in told()[0]
    [stage] = checked("start_from=runs/tunes/checkpoints/step-00000004")
    assert stage.recipe.start_from == "../tunes/checkpoints/step-00000004"
    assert stage.recipe.model["width"] == 64
    vocabulary = expected_vocabulary([stage.recipe], PluginManager.discover())
    assert vocabulary.fingerprint == Vocabulary.load(base / "vocabulary.json").fingerprint
    file = base / "checkpoints/step-00000004/rank-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    [problem] = told("start_from=runs/tunes/checkpoints/step-00000004")
    assert "step-00000004/rank-00000.safetensors: is missing or cut short" in problem


@pytest.mark.usefixtures("base")
def test_a_rule_on_rows_beside_adapters_is_refused_where_no_rows_are_added():
    overrides = ["train.lora.rank=2", "train.optimizer.rules={rows: {pattern: rows.*, lr_scale: 2}}"]
    [problem] = told(*overrides)
    assert "`rows.*` matches no parameter" in problem
    assert len(checked(*overrides, "train.lora.rows=[melody/*]")) == 1  # those that were there train all the same


def test_options_that_do_not_go_with_inherited_ones_are_explained(base):
    content = yaml.safe_load((base / "recipe.yaml").read_text())
    content["plugins"]["text"] = {"tokenizer": "imported", "specials": []}
    (base / "recipe.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(PluginError) as caught:
        checked("plugins.text.tokenizer=bytes")
    assert str(caught.value).endswith(
        "`bytes` has no option `specials`; it has `tokenizer` (`specials` of `plugins.text` come from runs/tunes, "
        "`tokenizer` is `bytes` here, there `imported`: leave out what is to be as there)"
    )


def test_a_stage_that_is_not_trained_yet_is_a_parent_too(base, tunes):
    """Nothing but recipes: their declarations are compared."""
    shutil.rmtree(base)
    (tunes / "child.yaml").write_text(CHILD.replace("runs/tunes", "tunes.yaml"))
    first, second = checked()
    assert second.recipe.model == first.recipe.model
    assert second.notes == ()
    overlay = tunes / "other.yaml"
    overlay.write_text("stages: {child: {model: {width: 32}, plugins: {text: {tokenizer: bpe}}}}")
    with pytest.raises(RecipeError) as caught:
        check_chain(["child.yaml", "other.yaml"], [], PluginManager.discover())
    assert list(caught.value.problems) == [
        "recipe `child`: other.yaml:1: `model.width` is 32, but 64 in the weights of stage `tunes`; leave it out, or "
        "give 64",
        "recipe `child`: other.yaml:1: `plugins.text.tokenizer` is `bpe`, in stage `tunes` `bytes`; the text tokenizer "
        "is that of stage `tunes`: leave the option out",
    ]


def test_an_override_that_a_stage_before_has_no_use_for_is_explained(base, tunes):
    shutil.rmtree(base)
    child = yaml.safe_load(CHILD.replace("runs/tunes", "tunes.yaml"))
    lines = {"dataset": "jsonl", "options": {"path": "names.jsonl"}, "templates": "text"}
    child["data"]["groups"]["more"] = {"sources": {"lines": lines}}
    (tunes / "child.yaml").write_text(yaml.safe_dump(child))
    assert checked()
    of_all = "data.groups.more.sources.lines.weight=2"
    assert told(of_all)[-1] == (
        "an override holds for every stage of the chain; `stages.child.data.groups.more.sources.lines.weight=...` is "
        "for `child` alone"
    )
    assert checked(f"stages.child.{of_all}")


def test_a_start_is_compared_without_torch(base):
    del base
    code = (
        "import sys\nfrom mio.cli.app import run\n"
        "code = run(['recipe', 'check', 'child.yaml'])\nprint('torch' in sys.modules, code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False 0"
