"""Lock files: what is in them, that they reproduce a run bit by bit, and every kind of drift, each refused by name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, once
from safetensors.torch import load_file, save_file

from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError, UserError
from mio.core.recipe.lock_file import LockedStage, LockFile
from mio.core.stages.drift import GROUPS, Drift, check_accepted, refuse

PLUGIN = '''
"""A corpus of lines, in a file per split."""
import hashlib
from pathlib import Path

import mio


class Lines(list):
    def __init__(self, path):
        content = Path(path).read_text()
        super().__init__({"text": line} for line in content.splitlines())
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()


@mio.hookimpl
def mio_sources(options):
    return {"lines/lines": lambda split, options: Lines(f"{split}.txt")}
'''
BASE = """
name: base
plugins: {text: {tokenizer: bytes}, lines: {}}
model: {width: 32, layers: 1, heads: 2}
data:
  groups:
    words:
      sources:
        names: {dataset: jsonl, options: {path: names.jsonl}, templates: text}
        lines: {dataset: lines/lines, templates: text, validation_split: test}
  packing: {context: 64, window: 4}
mixture: {ratios: {words: 1}}
train: {steps: 2, rows: 2}
runtime: {threads: 1, accelerator: cpu, loggers: [csv]}
"""
NEXT = "{name: next, start_from: base.yaml, include: [base.yaml], seed: 3, train: {average: {kind: ema}}}"


def build(folder: Path) -> None:
    """A chain of two stages with its data, and nothing trained."""
    folder.mkdir(exist_ok=True)
    (folder / "lines.py").write_text(PLUGIN)
    (folder / "base.yaml").write_text(BASE)
    (folder / "next.yaml").write_text(NEXT)
    (folder / "names.jsonl").write_text("".join(f'{{"text": "name {index}"}}\n' for index in range(30)))
    for split in ("train", "test"):
        (folder / f"{split}.txt").write_text("\n".join(f"{split} line {index}" for index in range(30)))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with the chain, trained, and its locks: `next.lock` of both stages, `alone.lock` of the second."""

    def make(folder):
        build(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("MIO_PLUGINS", "lines=lines.py")
            patch.syspath_prepend(str(folder))
            assert app.run(["fit", "next.yaml"]) == 0
            assert app.run(["recipe", "lock", "runs/next"]) == 0
            assert app.run(["recipe", "lock", "runs/next", "--alone", "--out", "alone.lock"]) == 0

    return once(tmp_path_factory, "locked", make)


@pytest.fixture
def clone(trained, tmp_path, monkeypatch):
    """Another folder with the recipes' files and locks; the working folder."""
    build(tmp_path)
    for name in ("next.lock", "alone.lock"):
        shutil.copy(trained / name, tmp_path)
    shutil.copytree(trained / "runs" / "base", tmp_path / "runs" / "base")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIO_PLUGINS", f"lines={trained / 'lines.py'}")
    return tmp_path


@pytest.fixture
def refused(clone, capfd):
    """A command's one line of error."""

    def error(*words):
        capfd.readouterr()
        assert app.run(["fit", *words]) == 2
        line = capfd.readouterr().err
        assert line.count("\n") == 1
        assert not (clone / "runs" / "next").exists()
        return line

    return error


def edited(lock, change, stage=-1):
    """Writes a lock anew with one of its stages changed: as if it had been made elsewhere."""
    content = yaml.safe_load(Path(lock).read_text())
    change(content["stages"][stage])
    Path(lock).write_text(yaml.safe_dump(content, sort_keys=False))


def group(line, name):
    """What a line of error says of a group, and what to do."""
    return line.partition(f"[{name}] ")[2].split(" [")[0].strip()


def test_a_lock_holds_what_decides_the_bits(trained):
    lock = LockFile.read(trained / "next.lock", PluginManager([]))
    base, second = lock.stages
    assert [base.name, second.name] == ["base", "next"]
    assert base.made.train.steps == 2
    assert second.made.start_from == "../base"
    assert list(second.plugins) == ["text", "lines"]
    assert second.packages.keys() >= {"torch", "numpy", "lightning"}
    assert second.code["mio"]["files"]
    assert second.code["lines"]["files"]
    assert second.machine["threads"] == second.machine["devices"] == 1
    assert second.machine["accelerator"] == "cpu"
    assert second.tokenizers == {"text": "bytes-1"}
    assert list(second.sources) == ["words/names", "words/lines", "words/lines (validation)"]
    assert list(second.sources["words/names"].files) == ["names.jsonl"]
    assert (base.start, second.start) == (None, None)
    (alone,) = LockFile.read(trained / "alone.lock", PluginManager([])).stages
    assert (alone.start.name, alone.start.weights) == ("base", base.weights)
    assert alone.weights == second.weights
    assert alone.vocabulary == alone.start.vocabulary


def test_a_locked_chain_gives_the_same_bytes_in_a_fresh_clone(trained, tmp_path):
    """Another folder, another copy of mio, another process."""
    build(tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "mio", tmp_path / "mio", ignore=ignored)  # which comes before what is installed
    shutil.copy(trained / "next.lock", tmp_path)
    command = [sys.executable, "-m", "mio", "fit", "next.lock", "--plugin", "lines=lines.py"]
    environment = {key: value for key, value in os.environ.items() if key not in ("MIO_PLUGINS", "PYTHONPATH")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the weights are those of next.lock, bit for bit") == 2
    for stage in ("base", "next"):
        for name in ("model.safetensors", "journal.csv"):
            made, there = ((folder / "runs" / stage / name).read_bytes() for folder in (tmp_path, trained))
            assert made == there
    lock = yaml.safe_load((tmp_path / "runs" / "next" / "recipe.lock").read_text())
    assert lock["reproduces"]["drift"] == []
    assert lock["code"]["mio"].keys() == {"files"}  # no git there, the same files


def test_a_locked_stage_gives_the_same_bytes_from_a_copy_of_its_parent(trained, clone, capfd):
    (clone / "runs" / "base").rename(clone / "moved")
    assert app.run(["fit", "alone.lock", "name=again", "start_from=moved"]) == 0
    assert "runs/again: the weights are those of alone.lock, bit for bit" in capfd.readouterr().out
    weights = (trained / "runs" / "next" / "model.safetensors").read_bytes()
    assert (clone / "runs" / "again" / "model.safetensors").read_bytes() == weights
    reproduced = yaml.safe_load(Path("runs/again/recipe.lock").read_text())["reproduces"]
    assert app.run(["recipe", "lock", "runs/again", "--accept"]) == 0
    assert yaml.safe_load(Path("runs/again/recipe.lock").read_text())["reproduces"] == reproduced


def test_a_run_knows_what_it_started_from(trained, clone, capfd):
    """Where the stage before was trained once more, a lock of both would tell of a training that never was."""
    shutil.copytree(trained / "runs" / "next", clone / "runs" / "next")
    weights = clone / "runs" / "base" / "model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights)
    assert app.run(["recipe", "lock", "runs/base", "--accept"]) == 0
    capfd.readouterr()
    assert app.run(["recipe", "lock", "runs/next", "--out", "both.lock"]) == 2
    told = capfd.readouterr().err
    assert "runs/next: started from `base` with other weights than runs/base has now" in told
    assert app.run(["recipe", "lock", "runs/next", "--alone", "--out", "again.lock"]) == 0
    made, there = (LockFile.read(Path(name), PluginManager([])).stages for name in ("again.lock", "alone.lock"))
    assert made[0].start == there[0].start


@pytest.mark.parametrize(
    ("name", "key", "old", "told"),
    [
        ("versions", ("mio",), "0.0.9", "mio 0.0.9 -> "),
        ("versions", ("python",), "3.10.1", "python 3.10.1 -> 3."),
        ("versions", ("packages", "torch"), "2.10.0", "torch 2.10.0 -> 2.11"),
        ("versions", ("plugins", "text"), "mio 0.0.9", "plugin text mio 0.0.9 -> mio "),
        ("code", ("code", "mio"), {"files": "a" * 32}, "code of mio files aaaaaaaaaaaa -> files "),
        ("machine", ("machine", "processor"), "NVIDIA H100", "processor NVIDIA H100 -> "),
        ("machine", ("machine", "accelerator"), "cuda", "accelerator cuda -> cpu"),
        ("machine", ("machine", "devices"), 8, "devices 8 -> 1"),
        ("model", ("tokenizers", "text"), "bytes-0", "tokenizer of text bytes-0 -> bytes-1"),
        ("model", ("vocabulary",), "f" * 64, "vocabulary ffffffffffff -> "),
        ("model", ("networks", "encoders"), {"image": "tower-1"}, "encoder of image tower-1 -> none"),
        ("lock", ("recipe", "seed"), 4, "its recipe was changed after it was locked (restore the lock"),
        ("parent", ("start", "weights"), "e" * 32, "weights of runs/base eeeeeeeeeeee -> "),
        ("data", ("sources", "words/lines (validation)", "fingerprint"), "0", "source words/lines (validation): its"),
    ],
)
def test_what_a_lock_was_made_with_and_is_not_here_is_named(refused, name, key, old, told):
    def change(stage):
        inner = stage
        for part in key[:-1]:
            inner = inner[part]
        inner[key[-1]] = old

    edited("alone.lock", change)
    line = refused("alone.lock")
    assert told in group(line, name)
    assert (f"--drift {name}" in line) == GROUPS[name].acceptable
    assert line.count("[") == 1  # nothing else has drifted


def test_a_plugin_that_is_missing_broken_or_changed_is_named(refused, clone, monkeypatch):
    monkeypatch.setenv("MIO_PLUGINS", "")
    assert "plugin lines lines.py " in group(refused("next.lock"), "plugins")
    (clone / "broken.py").write_text("import nowhere")
    monkeypatch.setenv("MIO_PLUGINS", "lines=broken.py")
    assert "plugin `lines` (broken.py) does not work: import failed" in refused("next.lock")
    (clone / "changed.py").write_text(f"{PLUGIN}# another")
    monkeypatch.setenv("MIO_PLUGINS", "lines=changed.py")
    assert "plugin lines lines.py " in group(refused("next.lock"), "versions")
    assert "code of lines files" in group(refused("next.lock"), "code")


def test_a_requirement_that_is_not_met_comes_first(refused):
    edited("next.lock", lambda stage: stage["recipe"].update(requires=["mio-nowhere>=1"]))
    line = refused("next.lock")
    assert "requires mio-nowhere>=1, which is not installed; install with `pip install" in line
    assert "[" not in line


def test_data_that_changed_or_are_gone_are_named_by_file(refused, clone):
    (clone / "names.jsonl").write_text('{"text": "else"}')
    (clone / "test.txt").write_text("test line 0")
    told = group(refused("next.lock"), "data")
    assert "stage `base`: source words/names: names.jsonl" in told
    assert "stage `next`: source words/lines (validation): its content differs (30 records then, 1 now)" in told
    (clone / "names.jsonl").unlink()
    assert "source words/names: names.jsonl: no such file" in group(refused("next.lock"), "data")


def test_shards_that_the_lock_had_not_are_named(refused):
    assert app.run(["tokenize", "base.yaml"]) == 0
    told = group(refused("next.lock"), "shards")
    assert "shards of words/names the source itself -> " in told
    assert "`mio tokenize next.lock`" in told


def test_a_parent_that_is_missing_or_another_is_named(refused, clone):
    weights = clone / "runs" / "base" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "weights of runs/base" in group(refused("alone.lock"), "parent")
    (clone / "runs" / "base").rename(clone / "moved")
    told = group(refused("alone.lock"), "parent")
    assert "runs/base is not here" in told
    assert "start_from=FOLDER" in told
    assert "/moved " in group(refused("alone.lock", "start_from=moved"), "parent")
    assert "starts from nothing -> " in group(refused("next.lock", "start_from=moved"), "recipe")


def test_what_overrides_change_is_named_and_how_a_run_is_carried_out_is_free(refused):
    told = group(refused("alone.lock", "train.steps=3", "runtime.threads=2", "runtime.runs=else"), "recipe")
    assert told.startswith("train.steps: 2 -> 3 (leave the overrides out, or train `mio recipe show alone.lock`")
    assert group(refused("alone.lock", "runtime.threads=2"), "machine").startswith("threads 1 -> 2 (")


def test_all_differences_are_told_at_once_in_their_groups(refused, clone):
    (clone / "names.jsonl").write_text("{}")

    def change(stage):
        stage["mio"], stage["tokenizers"]["text"], stage["machine"]["threads"] = "9", "bytes-9", 9

    edited("alone.lock", change)
    line = refused("alone.lock", "seed=1", "--drift", "versions")
    assert [one for one in GROUPS if group(line, one)] == ["machine", "recipe", "model", "data"]


def test_drift_that_is_accepted_is_recorded(clone, capfd):
    edited("alone.lock", lambda stage: stage.update(mio="0.0.9", weights="0" * 32))
    assert app.run(["fit", "alone.lock", "--drift", "versions", "name=again"]) == 0
    assert "are not those of alone.lock, bit for bit, as was to be expected" in capfd.readouterr().out
    lock = yaml.safe_load((clone / "runs/again/recipe.lock").read_text())
    summary = yaml.safe_load((clone / "runs/again/summary.json").read_text())
    (drift,) = lock["reproduces"]["drift"]
    assert drift.startswith("versions: mio 0.0.9 -> ")
    assert summary["reproduces"] == lock["reproduces"] | {"weights": "other"}
    assert lock["reproduces"]["lock"] == "alone.lock"


def test_weights_that_differ_although_nothing_has_drifted_are_an_error(clone, capfd):
    edited("alone.lock", lambda stage: stage.update(weights="0" * 32))
    assert app.run(["fit", "alone.lock"]) == 2
    assert "the weights of `next` in runs/next are not those that were locked (weights 0000" in capfd.readouterr().err
    assert (clone / "runs/next/summary.json").is_file()


def test_a_recipe_that_was_not_trained_leaves_open_what_training_makes(clone, capfd):
    assert app.run(["recipe", "lock", "next.yaml", "plugins.text.tokenizer=bpe", "plugins.text.size=300"]) == 0
    told = capfd.readouterr().out
    assert "base: tokenizer of `text` is left open: it is trained on the recipe's data" in told
    first, second = LockFile.read(clone / "next.lock", PluginManager([])).stages
    assert (first.vocabulary, first.weights, first.tokenizers, second.tokenizers) == (None, None, {}, None)
    assert first.sources["words/names"].records == 30
    shutil.rmtree(clone / "runs")
    edited("next.lock", lambda stage: stage.update(tokenizers={"text": "another"}), stage=0)
    assert app.run(["fit", "next.lock"]) == 2  # told when the tokenizer is there, before the model is trained
    assert "[model] tokenizer of text another -> " in capfd.readouterr().err
    assert not list(clone.glob("runs/base/checkpoints/*"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is no lock: it has no `format`"),
        ("format: 2", "`format` is 2; this mio reads 1"),
        ("format: 1", "has no stages"),
        ("{format: 1, stages: [{recipe: {trian: {}}}]}", "x.lock:1: unknown key `trian`"),
        ("{format: 1, stages: [{recipe: {name: a}, machine: 3}]}", "`stages[0].machine` must be a mapping by name"),
        ("{format: 1, stages: [{recipe: {name: a}, code: {mio: 3}}]}", "must be a mapping by name"),
        ("{format: 1, stages: [{recipe: {name: a}, packages: {torch: 2}}]}", "must be text"),
        ("{format: 1, stages: [{recipe: {name: a}, x: 3}]}", "unknown key `stages[0].x`"),
        ("format: !!python/name:os.system 1", "could not determine a constructor"),
    ],
)
def test_what_is_no_lock_is_one_line(content, told, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("x.lock").write_text(content)
    assert app.run(["recipe", "check", "x.lock"]) == 2
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert told in line


@pytest.mark.usefixtures("clone")
def test_a_lock_stands_alone_and_is_called_one(capfd):
    for words, told in (
        (["fit", "next.lock", "base.yaml"], "a lock stands alone; leave out base.yaml"),
        (["fit", "base.yaml", "next.lock"], "next.lock: a lock stands alone, and is laid over no other recipe"),
        (["fit", "base.yaml", "--drift", "versions"], "--drift is about lock files"),
        (["fit", "next.lock", "--drift", "version"], "did you mean `versions`?"),
        (["fit", "next.lock", "--drift", "data"], "what it stands for cannot differ"),
        (["fit", "runs/base/recipe.lock"], "is the record of a run; `mio recipe lock runs/base` makes a lock of it"),
        (["recipe", "lock", "runs/base", "--out", "base.yaml"], "must end with `.lock`"),
        (["recipe", "lock", "base.yaml", "--accept"], "--accept takes a run folder"),
        (["recipe", "lock", "runs/base", "seed=3"], "give it alone"),
    ):
        capfd.readouterr()
        assert app.run(words) == 2
        assert told in " ".join(capfd.readouterr().err.replace("│", "").split())


@pytest.mark.parametrize("names", [[""], ["../a"], ["a", "a"]])
def test_stages_that_name_no_folder_of_their_own_are_refused(names, tmp_path, capfd):
    path = tmp_path / "x.lock"
    LockFile(stages=[LockedStage({"name": name}) for name in names]).save(path)
    assert app.run(["recipe", "check", str(path)]) == 2
    assert "names no folder of its own" in capfd.readouterr().err


@pytest.mark.usefixtures("clone")
def test_recipes_of_a_lock_are_shown_checked_and_compared_like_others(capfd):
    assert app.run(["recipe", "show", "alone.lock"]) == 0
    shown = capfd.readouterr().out
    assert yaml.safe_load(shown)["train"]["average"]["kind"] == "ema"
    assert app.run(["recipe", "diff", "alone.lock", "next.yaml"]) == 0
    assert capfd.readouterr().out == ""
    assert app.run(["recipe", "check", "next.lock"]) == 0
    assert capfd.readouterr().out.startswith("base: ok")


def test_groups_are_refused_in_their_order_and_what_is_accepted_is_told():
    found = [Drift("data", "a"), Drift("versions", "b"), Drift("versions", "c")]
    with pytest.raises(UserError, match=r"drifted: \[versions\] b; c \(install .*`--drift versions`\) \[data\] a \("):
        refuse("x.lock", found)
    assert refuse("x.lock", found[1:], ["versions"]) == ["versions: b", "versions: c"]
    assert check_accepted(["code", "code", "machine"]) == ["code", "machine"]


def test_files_are_named_only_if_there_are_not_too_many(tmp_path):
    path = tmp_path / "many.lock"
    stage = LockedStage({"name": "a"}, sources={})
    LockFile(stages=[stage]).save(path)
    from mio.core.recipe.lock_file import MOST_FILES, LockedSource

    stage.sources["few/files"] = LockedSource("f", 1, "", {"a" * 300: "1"})
    LockFile(stages=[stage]).save(path)
    assert LockFile.read(path, PluginManager([])).stages[0].sources["few/files"].files == {}
    stage.sources["few/files"] = LockedSource("f", 1, "", {f"{index}": "1" for index in range(MOST_FILES + 1)})
    LockFile(stages=[stage]).save(path)
    assert LockFile.read(path, PluginManager([])).stages[0].sources["few/files"].files == {}
    names = {f"{'ж' * 110}{index}": "1" * 32 for index in range(MOST_FILES)}  # of two bytes a letter
    stage.sources["few/files"] = LockedSource("f", 1, "", names)
    LockFile(stages=[stage]).save(path)
    assert LockFile.read(path, PluginManager([])).stages[0].sources["few/files"].files == {}
    with pytest.raises(UserError, match="larger than 1 MiB"):
        LockFile(stages=[LockedStage({"name": "a" * 2**20})]).save(path)


def test_a_lock_with_an_empty_stage_is_no_lock(tmp_path):
    path = tmp_path / "empty.lock"
    path.write_text("format: 1\nstages:\n-\nchain: ['']\n")
    with pytest.raises(RecipeError, match="the stage has no `recipe`, `fingerprint`"):
        LockFile.read(path, PluginManager([]))


def test_a_lock_that_is_cut_short_is_no_lock(clone, refused):
    """Between keys, between stages, and within a line, where that leaves YAML."""
    assert clone.is_dir()
    lines = Path("next.lock").read_text().splitlines(keepends=True)
    for count in [*range(0, len(lines) - 8, 11), *range(len(lines) - 8, len(lines))]:
        for part in (0, len(lines[count]) // 2):
            Path("cut.lock").write_text("".join(lines[:count]) + lines[count][:part])
            with pytest.raises(RecipeError):
                LockFile.read(Path("cut.lock"), PluginManager([]))
    whole = yaml.safe_load(Path("next.lock").read_text())
    assert whole["chain"] == ["base", "next"]
    whole["stages"].pop()
    Path("cut.lock").write_text(yaml.safe_dump(whole))
    assert "cut.lock: its `chain` is not the names of its stages, base; it is cut" in refused("cut.lock")
    del whole["stages"][0]["weights"], whole["stages"][0]["sources"]
    Path("cut.lock").write_text(yaml.safe_dump(whole | {"chain": ["base"]}))
    assert "the stage has no `sources`, `weights`; it is cut short or was changed: restore it" in refused("cut.lock")


def test_a_lock_that_is_a_recipe_of_another_mio_says_so(tmp_path):
    path = tmp_path / "x.lock"
    path.write_text("{format: 1, stages: [{recipe: {requires: [mio>=99], later: 1}, later: 2}]}")
    with pytest.raises(RecipeError, match="requires mio>=99, but"):
        LockFile.read(path, PluginManager([]))
