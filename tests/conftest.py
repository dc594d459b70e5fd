"""Fixtures that several test files share. Everything runs on one CPU thread: results are then the same bit by bit."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, here and in the processes that tests start

import gc
import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from mio.core.distributed.forked import cores

ROOT = Path(__file__).parents[1]
MELODY = ROOT / "tests" / "packages" / "mio-melody"
# Objects that other tests left have threads that a forked child lacks: destroying them there could wait for ever.
os.register_at_fork(after_in_child=gc.disable)
sys.path.append(str(ROOT / "tests" / "core"))  # the declarations that tests of the core share
sys.path.append(str(ROOT / "tests" / "serve"))  # and the models whose answers are written down

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

DIGITS = """
name: stage4
plugins:
  text: {tokenizer: bytes}
  image: {tokenizer: patch_vq, size: 4, patch: 2, codebook_size: 16}
  speech: {tokenizer: mel_rvq, max_seconds: 1, too_long: truncate, codebook_size: 16, codebooks: 2}
  video: {max_frames: 2}
  digits: {}
model: {width: 32, layers: 1, heads: 2}
data:
  form: chat
  groups:
    digits:
      sources:
        captions: {dataset: digits/captions, templates: image_text_sft}
        speech: {dataset: digits/speech, templates: speech_text_sft}
  packing: {context: 512, window: 4}
mixture: {ratios: {digits: 1}}
train: {steps: 1, rows: 1}
evaluate: {tasks: []}
runtime: {threads: 1, accelerator: cpu}
"""
"""A recipe of the digits world that learns nothing in a second."""

TINY = ("train.steps=4", "train.rows=2", "train.micro_rows=0")
"""Overrides for runs whose result does not matter."""

ROUNDED_LOSSES, ROUNDED_WEIGHTS = 2e-5, 5e-4
"""How far losses, and weights as a share of their norm, of two runs in float32 may be apart that add in another order,
as tensor parallelism does. A step of Adam magnifies it where a gradient is near zero: seen were 5e-6 and 2e-4."""


SPLIT = ("test_distributed", "test_resume", "test_tokenize", "test_bad_input", "test_checkpoints", "test_loggers")
"""Files whose tests pytest-xdist may run in different processes: what they have in common is made by `once`."""
LONGEST = ("test_third_party", "test_fit", "test_distributed", "test_damaged_media", "test_resume", "test_tokenize")
"""Files that are begun first, so that none of them is the last to end."""


def pytest_collection_modifyitems(items):
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONGEST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One more than there are cores: processes that tests start, and wait for, leave one idle now and then."""
    return cores() + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """In the order above; a file stays in one process unless it is in `SPLIT`."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return nodeid if Path(file).stem in SPLIT else file

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills, once for all processes of pytest-xdist. To be copied before it is changed."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, whole = base / name, base / f"{name}.whole"
    with FileLock(base / f"{name}.lock"):
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder


@contextmanager
def tunes_in(folder: Path) -> Iterator[None]:
    """Puts the recipe `tunes.yaml` and its data into a folder and works there."""
    (folder / "tunes.yaml").write_text(TUNES)
    lines = [f'{{"text": "melody number {index} has {index % 7} notes"}}' for index in range(40)]
    (folder / "names.jsonl").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MIO_PLUGINS", f"melody={MELODY / 'mio_melody.py'}")
        yield


@pytest.fixture
def tunes(tmp_path):
    """A working directory with the recipe `tunes.yaml` and its data."""
    with tunes_in(tmp_path):
        yield tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Run folder of `tunes.yaml` after four steps: trained, if not much. To be copied before it is changed."""

    def make(folder):
        with tunes_in(folder):
            (folder / "names.jsonl").write_text('{"text": "do re mi"}')
            fit("runs", *TINY)

    return once(tmp_path_factory, "finished", make) / "runs" / "tunes"


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A folder with `runs/stage4`, of `DIGITS`: a model that reads and writes text, images, speech and videos, and has
    learnt nothing. Nothing in the run is to be changed."""
    from mio.cli import app

    def make(folder):
        (folder / "tiny.yaml").write_text(DIGITS)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert app.run(["fit", "tiny.yaml"]) == 0

    return once(tmp_path_factory, "using", make)


def fit(runs, *overrides):
    """Trains `tunes.yaml` in this process; returns what was printed."""
    from rich.console import Console

    from mio.core.contract.plugins import PluginManager
    from mio.core.stages.fit import fit_chain

    printed = io.StringIO()
    console = Console(file=printed, width=200)
    fit_chain(["tunes.yaml"], [f"runtime.runs={runs}", *overrides], PluginManager.discover(), console)
    return printed.getvalue()


def start(*arguments, **options):
    """Starts the command line as a process of its own."""
    command = [sys.executable, "-m", "mio", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def beads_world(tmp_path, monkeypatch):
    """A working directory with the recipe `beads.yaml` and its data, whose media are read by an encoder."""
    import beads

    beads.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIO_PLUGINS", beads.plugins_path())
    return tmp_path


@pytest.fixture
def tiles_world(tmp_path, monkeypatch):
    """A working directory with the recipe `tiles.yaml` and its data, whose media a head learns to make."""
    import tiles

    tiles.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIO_PLUGINS", tiles.plugins_path())
    return tmp_path


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
