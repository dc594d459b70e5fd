"""Bundles of runs: what is in them, that they stand for the run in every command, and that they are the same bytes."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import MELODY, TINY, TUNES

from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.runs.bundles import Manifest, digest, opened
from mio.core.runs.run import Run

LEAN = {
    *("bundle.json", "training.lock", "README.md", "recipe.yaml", "recipe.lock", "vocabulary.json"),
    *("tokenizers/tokenizers.json", "summary.json", "journal.csv", "sources.json"),
}


@pytest.fixture
def work(finished, tmp_path, monkeypatch):
    """A working folder with the run `runs/tunes` and its data, which keeps its cache to itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIO_PLUGINS", f"melody={MELODY / 'mio_melody.py'}")
    monkeypatch.setenv("MIO_CACHE", str(tmp_path / "cache"))
    shutil.copytree(finished, tmp_path / "runs" / "tunes")
    (tmp_path / "names.jsonl").write_text('{"text": "do re mi"}')
    return tmp_path


def ran(capsys, *arguments, code=0):
    """What a command prints."""
    result = app.run([str(one) for one in arguments])
    printed = capsys.readouterr()
    assert result == code, printed.err
    if code:
        assert "Traceback" not in printed.err
        assert len(printed.err.strip().splitlines()) == 1
    return printed.err if code else printed.out


def bundle(capsys, *options):
    return ran(capsys, "recipe", "bundle", "runs/tunes", *options)


def test_a_bundle_has_what_says_what_a_run_is_and_weights_where_they_are_asked_for(work, capsys):
    said = bundle(capsys)
    with zipfile.ZipFile("tunes.zip") as archive:
        names = set(archive.namelist())
    assert f"tunes.zip: {len(names)} files" in said
    assert {name for name in names if not name.startswith(("samples/", "evaluation/"))} == LEAN
    bundle(capsys, "--weights", "--out", "whole")
    here = {str(path.relative_to("whole")) for path in Path("whole").rglob("*") if path.is_file()}
    assert here == names | {"model.safetensors"}
    assert not any(path.is_symlink() for path in Path("whole").rglob("*"))
    manifest = Manifest.of(json.loads(Path("whole/bundle.json").read_text()), "whole")
    assert manifest.files == {
        name: ((work / "whole" / name).stat().st_size, digest(work / "whole" / name)) for name in here - {"bundle.json"}
    }
    card = Path("whole/README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "mio"
    assert "melody" in head["tags"]
    assert "mio generate whole" in card
    assert "Its weights are not in it" not in card


def test_its_bytes_follow_from_its_content(work, capsys):
    bundle(capsys, "--out", "a/tunes.zip", "--weights")
    shutil.copytree("runs/tunes", "elsewhere/tunes")  # other times, other names of folders
    for path in Path("elsewhere").rglob("*"):
        path.chmod(0o700)
    ran(capsys, "recipe", "bundle", "elsewhere/tunes", "--out", "b/tunes.zip", "--weights")
    assert (work / "a" / "tunes.zip").read_bytes() == (work / "b" / "tunes.zip").read_bytes()
    assert not [path for path in (work / "a").iterdir() if path.name != "tunes.zip"]


def test_an_unpacked_bundle_is_the_folder(work, capsys):
    bundle(capsys, "--out", "tunes.zip")
    bundle(capsys, "--out", "folder/tunes")
    unpacked = opened(Path("tunes.zip"))
    assert unpacked.is_relative_to(work / "cache")
    for path in unpacked.rglob("*"):
        if path.is_file() and path.name not in ("README.md", "bundle.json"):  # which say how it is called
            assert path.read_bytes() == (Path("folder/tunes") / path.relative_to(unpacked)).read_bytes()
    assert opened(Path("tunes.zip")) == unpacked


@pytest.mark.parametrize("out", ["tunes.zip", "folder"])
def test_with_weights_it_answers_like_the_run_and_without_it_says_so(work, capsys, out):
    bundle(capsys, "--weights", "--out", out)
    ask = ("do", "--output", "text", "--max-tokens", "8", "--seed", "1")
    assert ran(capsys, "generate", out, *ask) == ran(capsys, "generate", "runs/tunes", *ask)
    ran(capsys, "export", out, "exported")
    assert (work / "exported" / "config.json").is_file()
    lean = f"lean-{out}"
    bundle(capsys, "--out", lean)
    told = ran(capsys, "generate", lean, *ask, code=2)
    assert told == f"error: {lean}: is a bundle without weights, which `mio fit {lean}` trains\n"
    assert Path(ran(capsys, "report", lean, "--out", "report.html").split(":")[0]).is_file()


@pytest.mark.usefixtures("work")
def test_it_is_trained_again_by_its_lock(capsys):
    bundle(capsys)
    shutil.rmtree("runs")
    assert "bit for bit" in " ".join(ran(capsys, "fit", "tunes.zip", "runtime.runs=runs").split())
    lock = yaml.safe_load((opened(Path("tunes.zip")) / "training.lock").read_text())
    made = json.loads(Path("runs/tunes/recipe.lock").read_text())
    assert "training.lock" in json.dumps(made["reproduces"])
    assert lock["stages"][-1]["recipe"]["name"] == "tunes"
    ran(capsys, "recipe", "lock", "tunes.zip", "--out", "again.lock")
    assert yaml.safe_load(Path("again.lock").read_text()) == lock


@pytest.mark.usefixtures("work")
def test_adapters_and_averages_go_with_their_weights(capsys):
    """A run of LoRA has two files of weights, and one that is evaluated by an average a third."""
    Path("more.yaml").write_text(
        "{name: more, start_from: runs/tunes, include: [tunes.yaml],"
        "train: {steps: 1, lora: {rank: 2}, average: {kind: ema}}, evaluate: {average: true}}"
    )
    Path("tunes.yaml").write_text(TUNES)
    ran(capsys, "fit", "more.yaml", *TINY, "train.steps=1")
    ran(capsys, "recipe", "bundle", "runs/more", "--weights")
    folder = opened(Path("more.zip"))
    for average in (False, True):
        run = Run.open(folder, PluginManager.discover(), average=average)
        theirs = Run.open(Path("runs/more"), PluginManager.discover(), average=average)
        assert run.weight_sums() == theirs.weight_sums()
        assert "base.safetensors" in run.weight_sums()
    # the figures are those of the average: an export of the last weights has none of them
    for out, options in (("last", ()), ("average", ("--average",))):
        ran(capsys, "export", "runs/more", out, *options)
        assert (Path(out) / "mio/summary.json").exists() == (out == "average")
    ran(capsys, "import", "average", "--name", "back")
    ran(capsys, "generate", "runs/back", "do", "--output", "text", "--max-tokens", "2")
    assert not Run.open(Path("runs/back"), PluginManager.discover(), average=None).average
    lock = yaml.safe_load((folder / "training.lock").read_text())
    assert [stage["recipe"]["name"] for stage in lock["stages"]] == ["tunes", "more"]
    shutil.move("runs/tunes", "tunes")
    told = ran(capsys, "recipe", "bundle", "runs/more", "--out", "none.zip", code=2)
    assert "starts from runs/tunes, which is not there" in told
    ran(capsys, "recipe", "bundle", "more.zip", "--weights", "--out", "again/more.zip")
    assert Path("again/more.zip").read_bytes() == Path("more.zip").read_bytes()
    ran(capsys, "fit", "more.yaml", "name=next", f"start_from={folder}", *TINY, "train.steps=1", "train.lora.rank=0")


@pytest.mark.usefixtures("work")
def test_an_imported_model_is_packed_with_its_weights_alone(capsys):
    ran(capsys, "export", "runs/tunes", "exported")
    ran(capsys, "import", "exported", "--name", "again")
    assert "pack it with `--weights`" in ran(capsys, "recipe", "bundle", "runs/again", code=2)
    ran(capsys, "recipe", "bundle", "runs/again", "--weights")
    assert not (opened(Path("again.zip")) / "training.lock").exists()
    assert "was imported" in ran(capsys, "fit", "again.zip", code=2)
    ran(capsys, "generate", "again.zip", "do", "--output", "text", "--max-tokens", "4")


def test_what_cannot_be_packed_is_refused(work, capsys):
    Path("there.zip").touch()
    assert "there.zip exists" in bundle_refused(capsys, "runs/tunes", "--out", "there.zip")
    assert "no such run folder" in bundle_refused(capsys, "runs/nope")
    checkpoint = next((work / "runs" / "tunes" / "checkpoints").glob("step-*"))
    assert "a checkpoint is no result" in bundle_refused(capsys, checkpoint)
    (work / "runs" / "tunes" / "vocabulary.json").write_text("{}")
    assert "is not what the run wrote" in bundle_refused(capsys, "runs/tunes")
    assert not Path("tunes.zip").exists()


def bundle_refused(capsys, *arguments):
    return ran(capsys, "recipe", "bundle", *arguments, code=2)


def test_the_hub_takes_a_bundle(work, capsys, monkeypatch):
    """As `huggingface_hub` caches a repository that has the folder's files."""
    from huggingface_hub import ModelCard, constants, snapshot_download

    bundle(capsys, "--weights", "--out", "folder")
    commit = "b" * 40
    cached = work / "hub" / "models--someone--tunes"
    for path in Path("folder").rglob("*"):
        if path.is_file():
            place = cached / "snapshots" / commit / path.relative_to("folder")
            place.parent.mkdir(parents=True, exist_ok=True)
            (cached / "blobs").mkdir(exist_ok=True)
            blob = cached / "blobs" / digest(path)
            shutil.copyfile(path, blob)
            place.symlink_to(os.path.relpath(blob, place.parent))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(work / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = snapshot_download("someone/tunes", revision=commit)
    assert opened(Path(folder)) == Path(folder)
    assert ModelCard.load(Path(folder) / "README.md").data.library_name == "mio"
    ask = ("do", "--output", "text", "--max-tokens", "8", "--seed", "1")
    name = f"hf:someone/tunes@{commit}"
    assert ran(capsys, "generate", name, *ask) == ran(capsys, "generate", "runs/tunes", *ask)
    assert ran(capsys, "recipe", "diff", name, "runs/tunes") == ""
    ran(capsys, "recipe", "check", name)
    gone = f"hf:someone/else@{commit}"
    assert "cannot be fetched from the Hub, and is not in its cache" in ran(capsys, "generate", gone, "do", code=2)


@pytest.mark.usefixtures("work")
def test_recipes_are_compared_wherever_they_are(capsys):
    """A run, its bundle, its lock and its recipe."""
    Path("tunes.yaml").write_text(TUNES)
    bundle(capsys)
    ran(capsys, "recipe", "lock", "runs/tunes")
    for name in ("tunes.zip", "tunes.lock"):
        assert ran(capsys, "recipe", "diff", "runs/tunes", name) == ""
    told = ran(capsys, "recipe", "diff", "tunes.zip", "tunes.yaml")
    assert told == ran(capsys, "recipe", "diff", "runs/tunes", "tunes.yaml")
    assert "steps: 4 -> 60" in told
