"""Paths in options of plugins and sources begin beside the recipe file that gives them."""

import os
from pathlib import Path

import pytest
from conftest import ROOT

from mio import hookimpl
from mio.cli import app
from mio.core.contract.discovery import Candidate, installed
from mio.core.contract.plugins import PluginManager
from mio.core.data.readers import OPTIONS
from mio.core.data.readers.options import SHARED
from mio.core.errors import PluginError
from mio.core.recipe.chain import links
from mio.core.recipe.compose import compose
from mio.core.recipe.paths import OF_READERS, beside, path_options

MANAGER = PluginManager.discover()


class Mesh:
    """A plugin with paths of its own, inside of options, of a corpus, and a list of them."""

    @hookimpl
    def mio_paths(self, options):
        return ["weights", "vae.checkpoint", "parts", "mesh/shapes.folder"] if options.get("ready") else []

    @hookimpl
    def mio_recipes(self):
        return {}


def with_mesh(plugin=None):
    return PluginManager([Candidate("mesh", "", "", lambda: plugin or Mesh())])


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """`recipes/deep/data.yaml`, which `recipes/own.yaml` includes, with files beside each and in the working folder."""
    for name in ("recipes/deep/w.pt", "recipes/own.pt", "here.pt", "recipes/deep/a-1.tar", "recipes/deep/shapes/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "recipes" / "own.yaml").write_text("include: [deep/data.yaml]")
    monkeypatch.chdir(tmp_path)

    def write(text, own="include: [deep/data.yaml]"):
        Path("recipes/deep/data.yaml").write_text(text)
        Path("recipes/own.yaml").write_text(own)

    return write


@pytest.mark.usefixtures("tree")
def test_a_path_is_what_lies_beside_its_file_or_else_in_the_working_folder():
    assert beside(Path("recipes/deep"), "w.pt") == "recipes/deep/w.pt"
    assert beside(Path("recipes/deep"), "../own.pt") == "recipes/own.pt"
    assert beside(Path("recipes/deep"), "a-*.tar") == "recipes/deep/a-*.tar"
    assert beside(Path(), "here.pt") == "here.pt"
    whole = str(Path("recipes/deep/w.pt").absolute())
    for same in ("here.pt", "nowhere.pt", "b-*.tar", "", "~/w.pt", whole, "\0", "a" * 5000):
        assert beside(Path("recipes/deep"), same) == same


def test_options_of_plugins_are_placed_by_the_file_that_gives_them(tree):
    tree(
        "plugins: {mesh: {ready: yes, weights: w.pt, other: w.pt, vae: {checkpoint: w.pt}, parts: [w.pt, here.pt, 3]}}",
        "{include: [deep/data.yaml], plugins: {mesh: {weights: own.pt}}}",
    )

    def options(*overrides, manager=None):
        return compose(["recipes/own.yaml"], overrides, manager or with_mesh()).plugins["mesh"]

    made, deep = options(), "recipes/deep/w.pt"
    assert (made["weights"], made["other"]) == ("recipes/own.pt", "w.pt")
    assert (made["vae"], made["parts"]) == ({"checkpoint": deep}, [deep, "here.pt", 3])
    assert options("plugins.mesh.weights=w.pt")["weights"] == "w.pt"
    assert options("plugins.mesh.ready=false")["weights"] == "own.pt"
    assert options(manager=PluginManager([]))["weights"] == "own.pt"
    there = links(["recipes/own.yaml"], [], with_mesh())[0].recipe
    assert there.plugins["mesh"] == made


def test_so_are_options_of_readers_and_of_corpora(tree):
    tree(
        """
        plugins: {mesh: {ready: true}}
        data: {groups: {g: {sources: {
          a: {dataset: jsonl, options: {path: w.pt, folder: shapes, columns: {path: w.pt}}},
          b: {dataset: webdataset, options: {path: "a-*.tar"}},
          c: {dataset: mesh/shapes, options: {folder: shapes, path: w.pt}},
          d: {dataset: hub, options: {name: w.pt}}}}}}
        stages: {own: {data: {groups: {g: {sources: {b: {options: {folder: shapes}}}}}}}}
        """
    )
    sources = compose(["recipes/own.yaml"], [], with_mesh()).data.groups["g"].sources
    assert {name: one.options for name, one in sources.items()} == {
        "a": {"path": "recipes/deep/w.pt", "folder": "recipes/deep/shapes", "columns": {"path": "w.pt"}},
        "b": {"path": "recipes/deep/a-*.tar", "folder": "recipes/deep/shapes"},
        "c": {"folder": "recipes/deep/shapes", "path": "w.pt"},
        "d": {"name": "w.pt"},
    }


@pytest.mark.parametrize("answer", ["checkpoint", [3], ["a..b"], None])
def test_an_answer_that_is_no_list_of_names_is_the_plugins_mistake(tree, answer):
    class Wrong:
        @hookimpl
        def mio_paths(self):
            return answer

    tree("plugins: {mesh: {}}")
    with pytest.raises(PluginError, match="plugin `mesh`, hook `mio_paths`, answer: "):
        compose(["recipes/own.yaml"], [], with_mesh(Wrong()))


def test_readers_have_the_options_that_are_said_to_be_paths():
    assert {name: tuple(OF_READERS[name]) for name in OPTIONS} == {
        name: tuple(option for option in ("path", "folder") if option in {**own, **SHARED})
        for name, own in OPTIONS.items()
    }


@pytest.mark.parametrize("plugin", [one.name for one in installed() if one.target.startswith("mio.plugins.")])
def test_built_in_plugins_say_which_options_are_paths(plugin):
    declared = path_options({plugin: {"tokenizer": "lmsys/vicuna"}} if plugin == "text" else {plugin: {}}, MANAGER).get(
        plugin, []
    )
    source = "\n".join(file.read_text() for file in (ROOT / "mio" / "plugins" / plugin).rglob("*.py"))
    for name in declared:
        last = name.rpartition(".")[2]
        assert f"{last}: str" in source, f"{plugin} has no option {name}"
    named = [
        word for word in ("checkpoint", "projector_checkpoint", "diffusion_checkpoint") if f"    {word}: str" in source
    ]
    assert {name.rpartition(".")[2] for name in declared} >= set(named)


def test_a_text_tokenizer_is_a_path_unless_it_is_a_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("sub/bpe", "sub/yi"):
        Path(name).mkdir(parents=True)
    for name, found in (("bpe", "bpe"), ("yi", "sub/yi"), ("no", "no")):
        Path("sub/own.yaml").write_text(f"plugins: {{text: {{tokenizer: {name}}}}}")
        assert compose(["sub/own.yaml"], [], MANAGER).plugins["text"]["tokenizer"] == found


def test_a_recipe_that_was_passed_on_with_its_data_is_trained_from_anywhere(tmp_path, monkeypatch, capfd):
    passed = tmp_path / "passed"
    passed.mkdir()
    (passed / "names.jsonl").write_text('{"text": "one"}\n' * 9)
    (passed / "own.yaml").write_text(
        "{plugins: {text: {tokenizer: bytes}}, model: {width: 32, layers: 1, heads: 2},"
        " data: {groups: {g: {sources: {s: {dataset: jsonl, options: {path: names.jsonl}, templates: text}}}},"
        " packing: {context: 32}}, mixture: {ratios: {g: 1}}, train: {steps: 1, rows: 1},"
        " runtime: {accelerator: cpu, threads: 1, loggers: [csv]}}"
    )
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    recipe = os.path.relpath(passed / "own.yaml")
    assert app.run(["fit", recipe]) == 0, capfd.readouterr().err
    assert app.run(["fit", recipe]) == 0  # finished: the same recipe
    assert "path: ../passed/names.jsonl" in Path("runs/own/recipe.yaml").read_text()
