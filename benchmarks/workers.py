"""Long-lived worker processes for comparing programs in turn, and environments for those whose pins conflict with ours.

A worker is the same script started again with `--worker SPEC`. It builds what it measures, then waits; told a number of
steps, it does them while all the others idle, and answers with its seconds. Free of torch, so that a peer's environment
can import it.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ENVIRONMENTS = Path(__file__).parent / ".environments"
LITGPT = ("litgpt==0.5.13", "torch==2.11.*")
TORCHTITAN = ("torchtitan==0.2.2", "torch==2.11.*")


def environment(name: str, requirements: Sequence[str]) -> str:
    """The Python of an environment with `requirements`, made with uv the first time."""
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    made = folder / "requirements.txt"
    if made.is_file() and made.read_text().split() == list(requirements):
        return str(python)
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if uv is None:
        raise SystemExit("the peers' environments are made with uv: install it (`pip install uv`)")
    print(f"making {folder} with {', '.join(requirements)}", flush=True)
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *requirements], check=True)
    made.write_text("\n".join(requirements))
    return str(python)


class Worker:
    """One side of a comparison, in a process of its own."""

    def __init__(self, python: str, script: str, spec: dict[str, Any]) -> None:
        self.spec = spec
        self._process = subprocess.Popen(
            [python, script, "--worker", json.dumps(spec)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ready = self._read()

    def run(self, steps: int) -> dict[str, Any]:
        """Does `steps` steps and waits for the answer of `serve`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"worker {self.spec} ended with {self._process.wait()}")
        return json.loads(line)


def serve(build: Callable[[dict[str, Any]], Callable[[], float]]) -> None:
    """The worker's side: `build(spec)` gives a function that does one step and returns its loss.

    Answers every request with the seconds of each step, the last loss, and the growth of the peak resident set in MiB
    since `start_of_growth`.
    """
    # Libraries print to standard output; the answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    step = build(json.loads(sys.argv[sys.argv.index("--worker") + 1]))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        seconds, loss = [], float("nan")
        for _ in range(int(line)):
            start = time.perf_counter()
            loss = step()
            seconds.append(time.perf_counter() - start)
        answer = {"seconds": seconds, "loss": loss, "peak_mib": peak_mib(), "growth_mib": peak_mib() - _before}
        print(json.dumps(answer), file=answers, flush=True)


_before = 0.0


def start_of_growth() -> None:
    """Called when libraries are imported and nothing is built yet."""
    global _before  # noqa: PLW0603
    _before = peak_mib()


def peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
