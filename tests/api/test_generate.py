"""One answer to a prompt: media land beside what is there, and prompts keep to the trained context."""

from __future__ import annotations

import itertools
import shutil

import pytest
import torch
from conftest import MELODY
from safetensors.torch import load_file, save_file

import mio
from mio import PluginError, UserError
from mio.api.loaded import Loaded
from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.generation import choosing
from mio.core.generation.model import Model
from mio.core.runs.run import Run

PLUGINS = [f"melody={MELODY / 'mio_melody.py'}"]


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(tmp_path)
    return mio.load(folder, "cpu", plugins=PLUGINS)


def saved(media, path):
    path.write_text(f"media {media}")
    return path


def test_media_land_beside_what_is_there(run, tmp_path):
    codecs = run.model.codecs
    taken = {tmp_path / f"melody-{number}.txt": f"mine {number}" for number in (0, 1, 3)}
    for path, content in taken.items():
        path.write_text(content)
    different = itertools.count()
    codecs.decode = lambda *_: next(different)
    codecs.detokenizer("melody").save = lambda media, stem: saved(media, stem.with_suffix(".txt"))
    made = [file for _ in range(3) for file in run.generate("play", "melody").save()]
    numbers = [int(file.stem.removeprefix("melody-")) for file in made]
    assert sorted(numbers) == numbers
    assert not {0, 1, 3} & {*numbers}
    assert [file.read_text() for file in made] == ["media 0", "media 1", "media 2"]
    assert all(path.read_text() == content for path, content in taken.items())
    codecs.decode = lambda *_: 1  # the same media again are the file that is there
    assert run.generate("play", "melody").save() == [made[1]]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_media_go_into_the_folder_that_is_named(run, tmp_path):
    made = run.generate("play", "melody").save(tmp_path / "new" / "folder")
    assert [file.parent for file in made] == [tmp_path / "new" / "folder"]
    assert not list(tmp_path.glob("*.txt"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file: is a file, media go into a folder"):
        run.generate("play", "melody").save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_what_saves_nothing_is_named(run):
    run.model.codecs.detokenizer("melody").save = lambda _, stem: stem.with_suffix(".txt")
    with pytest.raises(PluginError, match=r"what writes `melody` to files says that it saved media\.txt"):
        run.generate("play", "melody").save()


def test_a_prompt_beyond_the_trained_context_is_refused_unless_it_is_asked_for(run):
    context = run.model.recipe.data.packing.context
    with pytest.raises(UserError, match=r"the prompt has \d+ tokens and .* the 96 positions .* give --beyond-context"):
        run.generate("x" * context)
    made = run.generate("x" * context, max_tokens=3, beyond_context=True)
    assert made.notice == ""
    assert made.usage.prompt_tokens > context


def test_an_answer_that_ends_with_the_context_says_so(run, monkeypatch):
    stop = run.model.grammar.stop

    def talkative(logits, *_):  # stops only when nothing else is allowed
        logits[:, stop if logits.shape[1] > stop else []] = -9e9
        return logits.argmax(dim=-1).tolist()

    monkeypatch.setattr(choosing, "sample", talkative)
    made = run.generate("x" * 80, max_tokens=200)
    assert made.notice.startswith(
        "the answer ends after 15 tokens, with the 96 positions that the model was trained on"
    )
    assert made.reason == "length"
    assert run.generate("x" * 80, max_tokens=15).notice == ""
    assert run.generate("x" * 80, max_tokens=40, beyond_context=True).notice == ""


def test_weights_that_are_not_finite_are_one_line(run, capsys):
    weights = run.model.folder / "model.safetensors"
    state = load_file(weights)
    save_file({name: tensor * float("nan") for name, tensor in state.items()}, weights)
    plugin = ["--plugin", f"melody={MELODY / 'mio_melody.py'}"]
    assert (
        app.run(["recipe", "lock", str(run.model.folder), "--accept", *plugin]) == 0
    )  # somebody takes them as they are
    capsys.readouterr()
    assert app.run(["generate", str(run.model.folder), "hello", *plugin]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "not finite" in err


@pytest.mark.parametrize(
    "options", [("--temperature", "inf"), ("--temperature", "nan"), ("--top-p", "nan"), ("--seed", str(2**64)),
                ("--max-tokens", str(10**11)), ("--media-temperature", "-1"), ("--seed", "-1")],
)  # fmt: skip
def test_options_without_a_meaning_are_refused_before_anything_is_loaded(run, capsys, options):
    (run.model.folder / "model.safetensors").write_bytes(b"")
    plugin = ("--plugin", f"melody={MELODY / 'mio_melody.py'}")
    assert app.run(["generate", str(run.model.folder), "hello", *options, *plugin]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert options[0] in err


def test_a_model_keeps_no_weights_beside_its_own(run):
    """Those of the file would be there twice, unless the run's transformer is in use elsewhere."""
    opened = Run.open(run.model.folder, PluginManager.discover(PLUGINS))
    assert Loaded(Model.of(opened, precision="bf16")).generate("play", media_temperature=0.0).parts
    assert not opened.loaded
    assert opened.transformer.embedding.weight.dtype == torch.float32
    assert Loaded(Model.of(opened, precision="bf16")).generate("play", media_temperature=0.0).parts
    assert opened.loaded
