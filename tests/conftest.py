"""Fixtures that several test files share. Everything runs on one CPU thread: results are then the same bit by bit."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, here and in the processes that tests start

import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
MELODY = ROOT / "tests" / "packages" / "mio-melody"
sys.path.append(str(ROOT / "tests" / "core"))  # the declarations that tests of the core share

TUNES = """
name: tunes
plugins: {text: {tokenizer: bytes}, melody: {}}
model: {width: 64, layers: 2, heads: 2, qk_norm: true, tied_embeddings: true}
data:
  groups:
    melody: {sources: {tunes: {dataset: melody/tunes, templates: melody}}}
    names: {sources: {lines: {dataset: jsonl, options: {path: names.jsonl}, templates: text}}}
  packing: {context: 96, window: 16}
mixture: {ratios: {melody: 3, names: 1}}
train: {steps: 60, rows: 4, micro_rows: 2, optimizer: {kind: muon, lr: 3e-3}}
runtime: {threads: 1, accelerator: cpu, log_every: 10, checkpoint_every: 10}
"""
"""A recipe that trains in seconds: nothing but text and the modality of the package in `tests/packages`."""

TINY = ("train.steps=4", "train.rows=2", "train.micro_rows=0")
"""Overrides for runs whose result does not matter."""


def pytest_collection_modifyitems(items):
    """Whole commands first: with a file per process, the longest files must not be the last to begin."""
    items.sort(key=lambda item: item.path.parent != ROOT / "tests")


@pytest.fixture
def tunes(tmp_path, monkeypatch):
    """A working directory with the recipe `tunes.yaml` and its data."""
    (tmp_path / "tunes.yaml").write_text(TUNES)
    lines = [f'{{"text": "melody number {index} has {index % 7} notes"}}' for index in range(40)]
    (tmp_path / "names.jsonl").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIO_PLUGINS", f"melody={MELODY / 'mio_melody.py'}")
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Run folder of `tunes.yaml` after four steps: trained, if not much. To be copied before it is changed."""
    from mio.cli import app

    folder = tmp_path_factory.mktemp("finished")
    (folder / "tunes.yaml").write_text(TUNES)
    (folder / "names.jsonl").write_text('{"text": "do re mi"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MIO_PLUGINS", f"melody={MELODY / 'mio_melody.py'}")
        assert app.run(["fit", "tunes.yaml", *TINY]) == 0
    return folder / "runs" / "tunes"


def start(*arguments, **options):
    """Starts the command line as a process of its own."""
    command = [sys.executable, "-m", "mio", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes recipe files; the working directory is elsewhere, so that relative paths are the files' own."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def write(name, text=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


def call(*arguments, **options):
    """Runs the command line as a process of its own: exit code, standard output, standard error."""
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@dataclass
class Chain:
    """The four stages of the digits world at reduced size."""

    runs: Path
    arguments: tuple[list[str], list[str]]
    printed: str

    def folder(self, stage: int) -> Path:
        return self.runs / f"stage{stage}"


@pytest.fixture(scope="session")
def trained_chain(tmp_path_factory):
    """All four shipped stages, trained by one call: eight steps of four rows, corpora of 240 records."""
    from rich.console import Console

    from mio.core.contract.plugins import PluginManager
    from mio.core.recipe.compose import compose
    from mio.core.stages.fit import fit_chain

    folder = tmp_path_factory.mktemp("chain")
    manager = PluginManager.discover()
    groups = compose([str(ROOT / "recipes/stage4.yaml")], [], manager).data.groups
    shorter = {
        group: {"sources": {name: {"options": {"length": 240}} for name in config.sources}}
        for group, config in groups.items()
    }
    small = {
        "data": {"groups": shorter},
        "train": {"steps": 8, "rows": 4},
        "evaluate": {"tasks": ["caption", "draw"], "items": 8},
        "runtime": {"runs": str(folder / "runs"), "threads": 1, "accelerator": "cpu", "log_every": 4},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    arguments = ([str(ROOT / "recipes/stage4.yaml"), str(folder / "small.yaml")], [])
    printed = io.StringIO()
    last = fit_chain(*arguments, manager, Console(file=printed, width=200))
    assert last == folder / "runs" / "stage4"
    return Chain(folder / "runs", arguments, printed.getvalue())
