"""Invariants of the source as a whole; docs/architecture.md lists all invariants with their tests."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mio
from mio.core.contract.plugins import PluginManager
from mio.core.recipe.chain import chain
from mio.core.stages.check import check
from mio.plugins.recipes import mio_recipes

PACKAGE = Path(mio.__file__).parent
PLUGINS = PACKAGE / "plugins"
MODALITIES = re.compile(r"image|picture|speech|spoken|voice|video|music|audio|wave ?form|pixel", re.IGNORECASE)
EXECUTES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy"}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of every import of a file, also those inside functions; the name is empty for `import module`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from ((node.module or "", alias.name) for alias in node.names)


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def test_the_core_names_no_modality():
    found = [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for path in sources(PACKAGE / "core")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MODALITIES.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", sources(PLUGINS), ids=lambda path: str(path.relative_to(PLUGINS)))
def test_built_in_plugins_use_the_contract_alone(path):
    """What a third party has: names that `mio` exports."""
    own = ".".join(["mio", *path.relative_to(PACKAGE).parts[:2]]).removesuffix(".py")
    for module, name in imports(path):
        if module.split(".")[0] != "mio" or module == own or module.startswith(f"{own}."):
            continue
        assert module == "mio", f"{path.name} imports {module}"
        assert name in ("", *mio.__all__), f"{path.name} imports {name}, which mio does not export"


def test_nothing_imports_a_built_in_plugin():
    """Each is found through its entry point, so each can be deleted."""
    others = [path for path in sources(PACKAGE) if PLUGINS not in path.parents]
    found = [f"{path.relative_to(PACKAGE)}: {module}" for path in others for module, name in imports(path)
             if f"{module}.{name}".startswith("mio.plugins.")]  # fmt: skip
    assert others
    assert not found


def test_nothing_that_executes_data_is_imported():
    """Recipes, checkpoints and corpora are read as data. The conformance kit pickles declarations, its own doing."""
    found = []
    for path in sources(PACKAGE):
        if path.parent == PACKAGE / "testing":
            continue
        found += [f"{path.relative_to(PACKAGE)}: {module}" for module, name in imports(path)
                  if module in EXECUTES and name != "UnpicklingError"]  # fmt: skip
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            safe = any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in node.keywords)
            restores = called == "torch.load" or called.endswith("trainer.fit")
            if called in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "__import__") or (restores and not safe):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {called}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "arguments", [["-c", "import mio, sys; print('torch' in sys.modules)"], ["-m", "mio", "--help"]]
)
def test_importing_and_help_are_quick(arguments):
    """Processor time of the process and its children, which other work on the machine does not lengthen: a third of
    what torch's import takes at most."""
    script = (
        "import resource, subprocess, sys; "
        "print(subprocess.run([sys.executable, *sys.argv[1:]], capture_output=True, text=True, check=True).stdout); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
    )
    torchs, *runs = [
        subprocess.check_output([sys.executable, "-c", script, *words], text=True)
        for words in (["-c", "import torch"], *[arguments] * 3)
    ]
    assert "False" in runs[0] or "Trains any-to-any" in runs[0]
    assert min(float(printed.split()[-1]) for printed in runs) < float(torchs.split()[-1]) / 3


@pytest.mark.parametrize(
    "name", sorted(path.name for path in PLUGINS.iterdir() if path.suffix == ".py" or path.is_dir())
)
def test_any_built_in_plugin_can_be_deleted(name):
    """Without its module, the others are still found, import, and answer every hook that needs no other plugin."""
    module = name.removesuffix(".py")
    if module in ("__init__", "__pycache__"):
        return
    script = f"""
import importlib.abc, sys

class Deleted(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[:3] == ["mio", "plugins", {module!r}]:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Deleted())
from mio.core.contract.plugins import PluginManager
manager = PluginManager.discover()
broken = [name for name, candidate in manager.candidates.items() if candidate.problem]
assert broken == [{module!r}], broken
assert "No module named" in manager.candidates[{module!r}].problem
for name in manager.candidates:
    if name != {module!r}:
        manager.enable({{name: {{}}}})
manager.backbones()
manager.recipes()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def shipped_recipes() -> Iterator[str]:
    """Names of the recipes in `recipes/` that are stages to be trained, and no part of one."""
    for name in mio_recipes():
        if not name.startswith(("data/", "scale/")) and not name.endswith("/world"):
            yield name


@pytest.fixture(scope="module")
def manager() -> PluginManager:
    return PluginManager.discover()


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_composes_and_passes_every_check(name, manager):
    """The stages that it starts from are recipes of their own."""
    assert {"stage1", "stage4", "vita/digits/stage3", "mm-interleaved/sft", "anygpt/pretrain"} <= {*shipped_recipes()}
    recipe = chain([name], [], manager)[-1]
    check(recipe, manager.enable(recipe.plugins))
