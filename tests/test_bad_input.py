"""A person's mistakes: each is one line on standard error that says what, where and what to do, and exit code 2."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from conftest import MELODY, TINY, call
from PIL import Image
from safetensors.torch import load_file, save_file

from mio.cli import app


def failing(capsys, *arguments):
    """The one line that a mistake is told in."""
    assert app.run([str(argument) for argument in arguments]) == 2
    return one_line(capsys.readouterr().err)


def one_line(err):
    """The last line, which alone is an error; what is printed before it is progress."""
    lines = err.strip().splitlines()
    assert "Traceback" not in err
    assert lines[-1].startswith("error: ")
    assert sum(line.startswith("error: ") for line in lines) == 1
    return lines[-1]


def changed_package(file, monkeypatch, old, new):
    """Puts another version of the package in the place of the plugin `melody`."""
    text = (MELODY / "mio_melody.py").read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    monkeypatch.setenv("MIO_PLUGINS", f"melody={file}")


# recipes


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.stepz=3"], r"`train\.stepz`; did you mean `train\.steps`"),
        (["mixture.ratios.melodies=1"], r"unknown group `melodies`; did you mean `melody`"),
        (["mixture.ratios.melody=-1"], r"`mixture\.ratios\.melody` is -1; it must be at least 0"),
        (["mixture.ratios.melody=.nan"], r"`mixture\.ratios\.melody` is nan; it must be from 0"),
        (["mixture.ratios={melody: 0, names: 0}"], r"`mixture\.ratios` has no ratio above 0"),
        (["plugins.melodi={}"], r"no plugin `melodi` is installed; did you mean `melody`"),
        (["plugins.text.tokenizer=bites"], r"bites"),
        (["data.packing.context=2"], r"`data\.packing\.context` is 2, but the shortest span of `melody` takes 3"),
        (["data.groups.names.sources.lines.options.path=gone.jsonl"], r"gone\.jsonl: no such file"),
        (["data.groups.melody.sources.tunes.dataset=melody/tune"], r"`melody/tune`; did you mean `melody/tunes`"),
        (["data.groups.melody.sources.tunes.templates=melodies"], r"template set `melodies`; did you mean `melody`"),
        (["evaluate.tasks=[sing]"], r"`evaluate.tasks`: no task `sing`"),
        (["train.optimizer.rules.x={pattern: nothing.*}"], r"`nothing\.\*` matches no parameter"),
        (["model.heads=3"], r"`?heads`?"),
        (["train.rows=3"], r"rows"),
        (["start_from=nowhere"], r"`start_from: nowhere` is no recipe"),
        (["runtime.accelerator=tpus"], r"`runtime\.accelerator` is `tpus`, not one of `auto`"),
    ],
)
def test_a_mistake_in_a_recipe(tunes, capsys, overrides, message):
    line = failing(capsys, "fit", "tunes.yaml", *overrides)
    assert re.search(message, line), line
    assert not (tunes / "runs/tunes/model.safetensors").exists()


def test_a_missing_recipe(tunes, capsys):
    assert tunes.is_dir()
    assert "no recipe tune.yaml; did you mean `tunes.yaml`" in failing(capsys, "fit", "tune.yaml")


def test_a_broken_plugin_is_named_with_its_reason(tunes, monkeypatch):
    (tunes / "cracked.py").write_text("import mio\nraise OSError('no sound card')\n")
    monkeypatch.setenv("MIO_PLUGINS", f"melody={MELODY / 'mio_melody.py'}:cracked={tunes / 'cracked.py'}")
    for command in (("fit", "tunes.yaml", "plugins.cracked={}"), ("recipe", "check", "tunes.yaml")):
        code, _, err = call(*command)
        assert code == 2
        line = one_line(err)
        assert "plugin `cracked`" in line
        assert "OSError: no sound card (cracked.py:2)" in line


def test_a_plugin_whose_answer_breaks_the_contract_is_named(tunes, capsys, monkeypatch):
    changed_package(tunes / "empty_melody.py", monkeypatch, "codebooks=(len(NOTES),)", "codebooks=(0,)")
    line = failing(capsys, "fit", "tunes.yaml")
    assert "plugin `melody`, hook `mio_modalities`, modality `melody`: `codebooks`" in line


def test_a_task_whose_answers_nobody_decodes_is_refused_before_anything_is_trained(tunes, capsys, monkeypatch):
    hook = "def mio_detokenizer(modality):\n    return "
    changed_package(tunes / "mute_melody.py", monkeypatch, hook, f"{hook}None  # ")
    for where in ("evaluate.tasks=[play]", "validate={every: 2, tasks: [play]}"):
        line = failing(capsys, "fit", "tunes.yaml", *TINY, where)
        assert line.startswith("error: task `play`: `melody` is only read: ")
        assert "no plugin supplies a detokenizer for it" in line
        assert not list((tunes / "runs/tunes").rglob("*.safetensors"))


# run folders


@pytest.fixture
def run(tunes, finished):
    shutil.copytree(finished, tunes / "runs/tunes")
    shutil.copy(finished.parents[1] / "names.jsonl", tunes / "names.jsonl")
    return tunes / "runs/tunes"


def test_a_run_folder_of_another_recipe(run, capsys):
    line = failing(capsys, "fit", "tunes.yaml", *TINY, "train.optimizer.lr=1")
    assert line.startswith(f"error: {run.relative_to(run.parents[1])} was made by another recipe")
    assert "train.optimizer.lr: 0.003 -> 1.0" in line
    assert "name=" in line


def test_a_run_folder_that_was_never_trained_in_is_free(tunes, capsys):
    assert "gone.jsonl" in failing(
        capsys, "fit", "tunes.yaml", *TINY, "data.groups.names.sources.lines.options.path=gone.jsonl"
    )
    assert app.run(["fit", "tunes.yaml", *TINY]) == 0
    assert "names.jsonl" in (tunes / "runs/tunes/recipe.yaml").read_text()


def test_a_checkpoint_of_another_vocabulary(run, tunes, capsys, monkeypatch):
    """The package was replaced while the run was interrupted: its codebook has another size."""
    (run / "summary.json").unlink()
    changed_package(tunes / "higher_melody.py", monkeypatch, '"high")', '"high", "higher")')
    line = failing(capsys, "fit", "tunes.yaml", *TINY)
    assert "the run was made with another vocabulary" in line


def test_a_codebook_of_another_size_in_a_run_that_is_started_from(run, tunes, capsys, monkeypatch):
    assert run.is_dir()
    changed_package(tunes / "highest_melody.py", monkeypatch, '"high")', '"high", "higher")')
    line = failing(capsys, "fit", "tunes.yaml", *TINY, "name=second", "start_from=runs/tunes")
    assert "block `melody/codebook0` has 8 ids" in line
    assert "declares 9" in line


def test_a_model_of_another_shape_in_a_run_that_is_started_from(run, capsys):
    assert run.is_dir()
    line = failing(capsys, "fit", "tunes.yaml", *TINY, "name=second", "start_from=runs/tunes", "model.layers=3")
    assert "`model.layers` is 3, but 2 in the weights of runs/tunes; leave it out, or give 2" in line


def test_weights_that_are_not_finite_are_no_start(run, capsys):
    weights = load_file(run / "model.safetensors")
    next(reversed(weights.values()))[0] = float("nan")
    save_file(weights, run / "model.safetensors")
    assert app.run(["recipe", "lock", str(run), "--accept"]) == 0
    capsys.readouterr()
    line = failing(capsys, "fit", "tunes.yaml", "name=next", f"start_from={run}", *TINY)
    assert "its weights hold NaN or infinities" in line


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_run_folders_that_are_missing_or_unfinished(run, capsys, command):
    prompt = ["hello"] if command == "generate" else []
    line = failing(capsys, command, run.parent / "tune", *prompt)
    assert "no such run folder" in line
    assert "tunes" in line
    (run / "model.safetensors").unlink()
    assert "holds no finished run" in failing(capsys, command, run, *prompt)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("vocabulary.json", "{"),
        ("recipe.yaml", "name: [\n"),
        ("model.safetensors", "no weights"),
        ("tokenizers/tokenizers.json", "{"),
    ],
)
def test_a_damaged_run_folder(run, capsys, file, content):
    (run / file).write_text(content)
    assert file.split("/")[-1] in failing(capsys, "generate", run, "hello")


def test_a_damaged_checkpoint(run, capsys):
    (run / "summary.json").unlink()
    tensors = run / "checkpoints/step-00000004/rank-00000.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:1000])
    line = failing(capsys, "fit", "tunes.yaml", *TINY)
    assert "step-00000004/rank-00000.safetensors: is damaged" in line


# prompts and tasks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{melodi:tune.txt}"], r"no modality `melodi` in this run; did you mean `melody`"),
        (["{melody:gone.txt}"], r"gone\.txt: no such file"),
        (["play {melody:bad.txt} again"], r"bad\.txt: cannot be read as melody"),
        ([""], r"it is empty"),
        (["a\udcff"], r"not valid UTF-8"),
        (["hello", "--output", "melodi"], r"no modality `melodi`.*melody"),
        (["hello", "--output", "melody", "--max-tokens", "2"], r"too few"),
    ],
)
def test_a_mistake_in_a_prompt(run, tunes, capsys, arguments, message):
    (tunes / "bad.txt").write_text("do re boom")
    line = failing(capsys, "generate", run, *arguments)
    assert re.search(message, line), line


def test_an_unknown_task(run, capsys):
    assert "no task `pla`; did you mean `play`" in failing(capsys, "evaluate", run, "pla")


# media files and records that cannot be read


@pytest.fixture
def pictures(tunes):
    """Twenty pictures with captions, and a recipe that reads them."""
    rng = np.random.default_rng(0)
    for index in range(20):
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(tunes / f"{index}.png")
    lines = [json.dumps({"image": f"{index}.png", "caption": f"number {index}"}) for index in range(20)]
    (tunes / "captions.jsonl").write_text("\n".join(lines))
    (tunes / "pictures.yaml").write_text(
        """
include: [tunes.yaml]
name: pictures
plugins:
  _replace_: true
  text: {tokenizer: bytes}
  image: {tokenizer: patch_vq, codebook_size: 16}
data:
  groups:
    _replace_: true
    pairs:
      sources:
        captions: {dataset: jsonl, options: {path: captions.jsonl}, templates: image_text}
mixture: {ratios: {_replace_: true, pairs: 1}}
"""
    )
    return tunes


def spoil(folder):
    """Three broken records: a picture that is cut off, one that is missing, and a line that is no record."""
    whole = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(whole[: len(whole) // 2])
    (folder / "7.png").unlink()
    lines = (folder / "captions.jsonl").read_text().splitlines()
    lines[11] = '{"image": "11.png", "caption"'
    (folder / "captions.jsonl").write_text("\n".join(lines))


def test_too_many_broken_records_stop_the_run_before_it_trains(pictures, capsys):
    spoil(pictures)
    line = failing(capsys, "fit", "pictures.yaml", *TINY, "data.max_skipped=0.1")
    assert "pairs/captions: 3 of 20 records checked cannot be used" in line
    assert "`data.max_skipped: 0.1` allows" in line
    for place in ("3.png", "7.png", "captions.jsonl:12"):
        assert place in line
    assert not (pictures / "runs/pictures/checkpoints").exists()
    # what the message advises helps
    advised = re.search(r"at least ([\d.]+)", line)[1]
    assert app.run(["fit", "pictures.yaml", *TINY, f"data.max_skipped={advised}"]) == 0


def test_a_few_broken_records_are_skipped_counted_and_listed(pictures):
    spoil(pictures)
    assert app.run(["fit", "pictures.yaml", *TINY, "data.max_skipped=0.2", "train.steps=40"]) == 0
    summary = json.loads((pictures / "runs/pictures/summary.json").read_text())
    checked = summary["data"]["pairs/captions"]
    assert (checked["records"], checked["checked"], checked["broken"]) == (20, 20, 3)
    for place in ("3.png", "7.png", "captions.jsonl:12"):
        assert sum(place in problem for problem in checked["problems"]) == 1
    # two directions meet each broken record once an epoch
    assert summary["packing"]["skipped"]["broken"] >= 6


def test_sound_pictures_are_all_used(pictures):
    assert app.run(["fit", "pictures.yaml", *TINY]) == 0
    summary = json.loads((pictures / "runs/pictures/summary.json").read_text())
    assert summary["data"]["pairs/captions"]["broken"] == 0
    assert summary["packing"]["skipped"] == {}


def test_a_missing_data_file_through_the_real_command(tunes):
    (tunes / "names.jsonl").unlink()
    code, _, err = call("fit", "tunes.yaml")
    assert code == 2
    assert "names.jsonl: no such file" in one_line(err)
