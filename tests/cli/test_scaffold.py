"""`mio plugins new`: packages of every kind, as they are written, keep what the kit promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import once
from packaging.requirements import Requirement

import mio
from mio.cli import app
from mio.cli.scaffold import KINDS, LONGEST, checked_name, free_name
from mio.core.errors import UserError

SHORT = (
    "train.steps=3",
    "train.rows=2",
    "model={width: 32, layers: 1, heads: 2}",
    "evaluate.items=4",
    "runtime.loggers=[]",
)
TASKS = {
    "codes": ["k_codes_read", "k_codes_draw"],
    "encoded": ["k_encoded_read"],
    "head": ["k_head_draw"],
    "corpus": ["k_corpus_read", "k_corpus_draw"],
    "task": ["k_task"],
}
EXTENDED = "abcdefghijklmnopqrstuvwxyz"[:LONGEST]


def plugins_in(folder):
    """`MIO_PLUGINS` of the packages in a folder."""
    modules = sorted(folder.glob("mio-*/mio_*"))
    return os.pathsep.join(f"{module.name.removeprefix('mio_')}={module}" for module in modules)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with a package of every kind, called after it."""

    def make(folder):
        for kind in KINDS:
            assert app.run(["plugins", "new", f"k-{kind}", "--kind", kind, "--dir", str(folder)]) == 0

    return once(tmp_path_factory, "packages", make)


@pytest.fixture
def here(packages, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIO_PLUGINS", plugins_in(packages))
    return packages


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_is_whole_and_short(packages, kind):
    package = packages / f"mio-k-{kind}"
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    texts = {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in files}
    assert {"pyproject.toml", "README.md", ".github/workflows/tests.yml", f"tests/test_k_{kind}.py"} <= set(texts)
    assert not [name for name, text in texts.items() if re.search(r"__[A-Z]+__", name + text)]
    own = [name for name in texts if not name.startswith("tests/") and name != "README.md"]
    assert sum(texts[name].count("\n") for name in own) < 150
    project = tomllib.loads(texts["pyproject.toml"])["project"]
    assert project["name"] == package.name
    own = Requirement(next(one for one in project["dependencies"] if one.startswith("mio")))
    assert own.specifier.contains(mio.__version__)
    assert not list(own.specifier.filter(["0.6.0", "0.7.1", "0.8.1", "0.12.1"]))  # another project's on PyPI
    assert project["entry-points"] == {"mio": {f"k_{kind}": f"mio_k_{kind}"}}
    steps = yaml.safe_load(texts[".github/workflows/tests.yml"])["jobs"]["tests"]["steps"]
    assert steps[-1]["run"].endswith(f" && mio plugins check k_{kind} && pytest")


@pytest.mark.parametrize("name", ["x", EXTENDED])
def test_packages_are_written_as_ruff_would(tmp_path, name):
    for kind in KINDS:
        assert app.run(["plugins", "new", name, "--kind", kind, "--dir", str(tmp_path / kind)]) == 0
    for command in (["check", "--select", "E,F,W,I,N,UP,B,SIM,RUF,RET"], ["format", "--diff"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "."]
        done = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_their_own_tests_pass(packages):
    """In another process, as their authors run them; the first of each is the conformance suite."""
    sources = os.pathsep.join(str(package) for package in packages.glob("mio-*"))
    environment = {**os.environ, "MIO_PLUGINS": plugins_in(packages), "PYTHONPATH": sources}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "."]
    done = subprocess.run(command, cwd=packages, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^13 passed", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_trains_and_its_tasks_measure(here, kind, capsys):
    assert here.is_dir()
    assert app.run(["plugins", "check", f"k_{kind}"]) == 0
    checks = capsys.readouterr().out.splitlines()
    assert not [line for line in checks if line.startswith("failed")]
    assert app.run(["fit", f"k_{kind}", *SHORT]) == 0
    figures = json.loads(Path(f"runs/k_{kind}/summary.json").read_text())["tasks"]
    assert list(figures) == TASKS[kind]
    for figure in figures.values():
        assert figure["n"] == 4
        assert "failed" not in figure
    if kind == "task":  # several verdicts of one decoding
        assert 0 <= figures["k_task"]["right"] <= 1
        assert 0 <= figures["k_task"]["off"] <= 9


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "task"])
def test_a_recipe_adds_it_to_a_trained_model(here, digits, kind, tmp_path):
    """Beside all that the model reads and writes; the demo's recipe and model are replaced by tiny ones."""
    own = here / f"mio-k-{kind}" / f"mio_k_{kind}"
    text = (own / "added.yaml").read_text()
    assert "include: [stage4, recipe.yaml" in text
    text = text.replace("[stage4, recipe.yaml", f"[{digits / 'tiny.yaml'}, {own / 'recipe.yaml'}")
    (tmp_path / "added.yaml").write_text(text)
    start = f"start_from={digits / 'runs/stage4'}"
    replaced = ["train.steps=3", "train.rows=2", "model={_replace_: true}", "evaluate.items=2", "runtime.loggers=[]"]
    replaced += [
        "plugins.image={size: 4, codebook_size: 16}"
    ]  # as the tiny one has it, whatever the corpus's recipe says
    assert app.run(["fit", "added.yaml", start, *replaced]) == 0
    figures = json.loads(Path(f"runs/k_{kind}-added/summary.json").read_text())["tasks"]
    assert list(figures) == TASKS[kind]


def test_the_corpus_says_what_it_needs(here, capsys):
    assert here.is_dir()
    assert app.run(["recipe", "check", "k_corpus", "plugins={_replace_: true, text: {}, k_corpus: {}}"]) == 2
    assert "plugin `k_corpus` needs `image`" in capsys.readouterr().err


# --- names and places


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My-Thing", "take at most 20 lower case letters, digits, `_` and `-`, a letter first, no word of Python or "
                     "YAML: `my_thing` is free"),
        ("2fast", "`fast` is free"),
        ("class", "`class2` is free"),
        ("a" * 21, f"`{'a' * 20}` is free"),
        ("naïve mesh", "`na_ve_mesh` is free"),
        ("---", "`mine` is free"),
        ("image", "the name `image` is taken by the plugin `image`; `image2` is free"),
        ("parts", "the name `parts` is taken by a field of records; `parts2` is free"),
        ("stage4", "the name `stage4` is taken by the recipe `stage4`; `stage4_2` is free"),
        ("scale", "the name `scale` is taken by the recipe `scale/added`; `scale2` is free"),
        ("quiz", "the name `quiz` is taken by the task `quiz`; `quiz2` is free"),
        ("asr", "the name `asr` is taken by a data group of the recipe `data/digits`; `asr2` is free"),
        ("image-text", "the name `image_text` is taken by a template set; `image_text2` is free"),
        ("true", "`true2` is free"),
        ("True", "`true2` is free"),
        ("null", "`null2` is free"),
        ("on", "`on2` is free"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_is_refused_with_the_nearest_that_can(name, message, tmp_path, capsys):
    assert app.run(["plugins", "new", "--dir", str(tmp_path), "--", name]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(message)
    assert not list(tmp_path.iterdir())


def test_names_that_are_free_are_free():
    taken = dict.fromkeys(("sketch", "sketch2", "stage4", "a" * LONGEST), "another")
    assert free_name("sketch", taken) == "sketch3"
    assert free_name("stage4", taken) == "stage4_2"
    assert free_name("a" * LONGEST, taken) == "a" * (LONGEST - 1) + "2"
    assert checked_name("my-sketch", taken) == "my_sketch"
    assert checked_name(free_name("Sketch!", taken), taken) == "sketch3"
    with pytest.raises(UserError, match="the name `sketch` is taken by another; `sketch3` is free"):
        checked_name("sketch", taken)


def test_a_module_of_somebody_else_takes_its_name(tmp_path, monkeypatch):
    (tmp_path / "mio_sketch.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="`sketch` is taken by the module `mio_sketch`; `sketch2` is free"):
        checked_name("sketch", {})


def test_nothing_is_overwritten(tmp_path, capsys):
    assert app.run(["plugins", "new", "my-doodle", "--dir", str(tmp_path / "new" / "folder")]) == 0
    printed = capsys.readouterr().out
    package = tmp_path / "new" / "folder" / "mio-my-doodle"
    assert f"pip install -e {package}" in printed
    assert "mio plugins check my_doodle" in printed
    (package / "README.md").write_text("mine")
    (tmp_path / "mio-other").symlink_to(tmp_path / "nowhere")
    (tmp_path / "mio-third").touch()
    for name, place in (("my-doodle", package.parent), ("other", tmp_path), ("third", tmp_path)):
        assert app.run(["plugins", "new", name, "--dir", str(place)]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.endswith(f"mio-{name} exists already, and nothing is overwritten; take another name or `--dir`")
    assert (package / "README.md").read_text() == "mine"
    assert app.run(["plugins", "new", "fourth", "--dir", str(tmp_path / "mio-third")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_kind_that_there_is_not_is_refused_with_the_nearest(tmp_path, capsys):
    assert app.run(["plugins", "new", "doodle", "--kind", "coeds", "--dir", str(tmp_path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line == (
        "error: `--kind coeds`: there is no such kind; did you mean `codes`?; "
        "there are codes, encoded, head, corpus, task"
    )
    assert not list(tmp_path.iterdir())
