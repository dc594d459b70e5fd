"""Runs of `mio fit` for the benchmarks of distributed training: a small recipe, and what runs left behind."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RECIPE = """
name: lines
plugins: {text: {tokenizer: bytes}}
model: {width: 64, layers: 2, heads: 2}
data:
  groups:
    short: {sources: {lines: {dataset: jsonl, options: {path: short.jsonl}, templates: text}}}
    long: {sources: {lines: {dataset: jsonl, options: {path: long.jsonl}, templates: text}}}
  packing: {context: 128, window: 64}
mixture: {ratios: {short: 2, long: 1}}
train: {steps: 240, rows: 4, micro_rows: 2, precision: fp32}
runtime: {threads: 1, accelerator: cpu, log_every: 1, checkpoint_every: 3}
"""


def corpus(folder: Path) -> Path:
    """Writes the recipe and its data; returns the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, words in (("short", 4), ("long", 19)):
        texts = [" ".join(str((i * 7 + k * k) % 97) for k in range(1 + i % words)) for i in range(300)]
        lines = [json.dumps({"text": text}) for text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "lines.yaml").write_text(RECIPE)
    return folder / "lines.yaml"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mio", *arguments]


def start(folder: Path, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts a command in a session of its own, its output appended to `log`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("ab") as file:
        return subprocess.Popen(
            arguments, cwd=folder, stdout=file, stderr=file, env=environment, start_new_session=True
        )


def finish(folder: Path, arguments: Sequence[str], log: Path, timeout: float = 600.0) -> None:
    """Runs a command to its end. Raises `SystemExit` with the end of its output if it fails."""
    process = start(folder, arguments, log)
    if process.wait(timeout):
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}:\n{log.read_text()[-2000:]}")


def descendants(process: int) -> list[int]:
    """A process and all that it has started, outermost first."""
    children = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False).stdout.split()
    return [process, *(inner for child in children for inner in descendants(int(child)))]


def steps(journal: Path) -> int:
    """Steps in a journal that is still being written."""
    try:
        return journal.read_bytes().count(b"\n") - 1
    except FileNotFoundError:
        return 0


def wait_for_step(process: subprocess.Popen[bytes], journal: Path, step: int, timeout: float = 300.0) -> bool:
    """Returns when the journal has come to `step`; False if the process ended before it did."""
    deadline = time.monotonic() + timeout
    while steps(journal) < step:
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            raise SystemExit(f"{journal}: did not come to step {step} in {timeout:.0f} s")
        time.sleep(0.002)
    return True


def figures(metrics: Path, name: str) -> list[float]:
    with metrics.open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def compare(folder: Path, run: str) -> Any:
    """A run's journal beside the plan of its recipe (`mio.core.data.journal.Comparison`)."""
    from mio.core.contract.plugins import PluginManager
    from mio.core.data.journal import compare as beside
    from mio.core.data.journal import read
    from mio.core.data.loader import MioDataModule
    from mio.core.recipe.places import JOURNAL
    from mio.core.runs.run import Run

    before = Path.cwd()
    os.chdir(folder)
    try:
        opened = Run(Path(run), PluginManager.discover())
        data = MioDataModule(opened.recipe, opened.plugins, opened.renderer, opened.vocabulary.specials.pad)
        return beside(read(Path(run) / JOURNAL), data.journal())
    finally:
        os.chdir(before)
