"""What a recipe requires, compared by PEP 440, before anything else of the recipe is looked at."""

from importlib import metadata

import pytest

import mio
from mio.core.contract.discovery import Candidate, local
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError
from mio.core.recipe.chain import chain
from mio.core.recipe.compose import compose
from mio.core.recipe.requirements import LONGEST, MOST, Required, check_requirements
from mio.core.recipe.resolved import fingerprint, load_resolved, to_yaml

NONE = PluginManager([])
TORCH = metadata.version("torch").split("+")[0]


def problem(*texts, manager=NONE):
    """The error about requirements; the empty string if they are met."""
    try:
        check_requirements([Required(text, f"a.yaml:{line}") for line, text in enumerate(texts, 1)], manager)
    except RecipeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "text",
    [
        f"mio>={mio.__version__}",
        f"mio~={mio.__version__}",
        "MIO",
        f"torch=={TORCH}",
        "torch>=2,!=9.9",
        "mio-nowhere>=1; python_version < '3'",
        "Safetensors",
    ],
)
def test_what_is_met_is_passed(text):
    assert not problem(text)


def test_what_is_missing_or_of_another_version_is_named_with_the_command_that_installs_all_of_it():
    assert problem("mio>=99", "mio-nowhere>=0.1", "torch") == (
        f"a.yaml:1: the recipe requires mio>=99, but {mio.__version__} is installed, and mio-nowhere>=0.1, which is "
        'not installed; install with `pip install "mio-nowhere>=0.1"`; update mio where it was installed from (not '
        "from PyPI, whose `mio` is another project)"
    )
    assert "`pip install mio-nowhere`" in problem("mio-nowhere")
    assert "pip install" not in problem("mio<0.1", "torch")


def test_an_extra_lacks_what_it_brings(monkeypatch):
    brings = ['numpy>=1; extra == "sheets"', 'mio-nowhere>=1; extra == "sheets"', 'numpy>99; extra == "else"', "mio"]
    monkeypatch.setattr(metadata, "requires", lambda name: brings if name == "mio" else [])
    assert "mio[sheets]>=0.1, of whose extra `sheets` mio-nowhere is not" in problem("mio[sheets]>=0.1")
    brings.pop(1)
    assert not problem("mio[sheets]>=0.1")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("mio >> 1", "is no requirement"),
        ("mio @ https://example.org/mio.whl", "names an address"),
        ("../mio", "is no requirement"),
        ("", "is no text"),
        (3, "is no text"),
        ("a" * (LONGEST + 1), "is longer than"),
        ("mio>=1\x1b[31m", "is no requirement"),
    ],
)
def test_what_is_no_requirement_is_told_as_such(text, word):
    told = problem(text)
    assert told.startswith("a.yaml:1: `requires` has")
    assert word in told
    assert told.isprintable()


def test_there_are_only_so_many():
    assert "too many" in problem(*["mio"] * (MOST + 1))


def test_a_local_plugin_counts_as_the_project_that_it_is_part_of(tmp_path):
    package = tmp_path / "mio_sheets"
    package.mkdir()
    (package / "__init__.py").touch()
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\nname = "mio.sheets"\nversion = "0.3"')
    manager = PluginManager([local(str(package))])
    assert not problem("mio-sheets>=0.3", manager=manager)
    assert "mio-sheets>0.3, but 0.3 is installed" in problem("mio-sheets>0.3", manager=manager)
    project.write_text('[project]\nname = "mio-sheets"\ndynamic = ["version"]')
    assert not problem("mio-sheets>=9", manager=manager)  # nobody knows better
    project.write_text("[project")
    assert "not installed" in problem("mio-sheets", manager=manager)
    assert "not installed" in problem("mio-sheets", manager=PluginManager([Candidate("sheets", "", "a.b:c", object)]))


def test_requirements_of_all_files_and_of_the_parent_add_up(tmp_path):
    (tmp_path / "base.yaml").write_text("requires: [torch]\nseed: 1\n")
    (tmp_path / "own.yaml").write_text(
        "include: [base.yaml]\nrequires: [mio>=0.1, torch]\nstages: {own: {requires: [numpy]}, else: {requires: [x]}}"
    )
    (tmp_path / "next.yaml").write_text("start_from: own.yaml\nrequires: [safetensors]\nplugins: {text: {}}\n")
    made = compose([str(tmp_path / "own.yaml")], ["requires=[pyyaml]"], NONE)
    assert made.requires == ["torch", "mio>=0.1", "numpy", "pyyaml"]
    stages = chain([str(tmp_path / "next.yaml")], [], NONE)
    assert stages[1].requires == ["torch", "mio>=0.1", "numpy", "safetensors"]
    without = compose([str(tmp_path / "base.yaml")], [], NONE)
    with_more = compose([str(tmp_path / "base.yaml")], ["requires=[numpy]"], NONE)
    assert fingerprint(without) == fingerprint(with_more)


def test_they_come_before_all_else_that_is_wrong(tmp_path):
    path = tmp_path / "mesh.yaml"
    path.write_text("trian: {}\nplugins: {mesh: {}}\nrequires:\n  - mio-nowhere>=0.1\n")
    with pytest.raises(RecipeError) as told:
        chain([str(path)], [], NONE)
    assert str(told.value).startswith(f"{path}:4: the recipe requires mio-nowhere>=0.1, which is not installed;")
    assert "trian" not in str(told.value)


def test_a_resolved_recipe_is_read_by_who_needs_its_plugins_if_they_are_there(tmp_path):
    path = tmp_path / "recipe.yaml"
    made = compose([str(path)], ["requires=[torch]"], NONE) if path.write_text("seed: 2") else None
    made.requires.append("mio-nowhere")
    path.write_text(to_yaml(made))
    assert load_resolved(path) == made  # a report needs no plugins
    with pytest.raises(RecipeError, match="requires mio-nowhere, which is not installed; install with"):
        load_resolved(path, NONE)
