"""VITA's stages on the digits world, from nothing: how long they take, and what the model can do then.

    python benchmarks/vita_digits.py [--runs FOLDER] [key=value ...]

Trains the chain of `recipes/vita/digits/stage3.yaml` in a folder of its own and reads the tasks' figures from its
summary: held-out pictures, unheard voices, 200 items each. The last line is one JSON object: each task's accuracy,
`seconds` of the whole command, `cpu_seconds` of all of its processes, and under `missed` the bars that were not
reached.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BARS = {
    "picture_asked": 0.95,
    "picture_asked_aloud": 0.90,
    "video_asked": 0.85,
    "video_asked_aloud": 0.85,
    "noise": 0.97,
    "remark": 0.95,
    "crowd": 0.95,
    "addressed": 0.95,
}
SECONDS = 12 * 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="keep the runs here")
    parser.add_argument("overrides", nargs="*", help="of the recipe")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measured(options.runs or Path(name), options.overrides)))


def measured(runs: Path, overrides: list[str]) -> dict[str, object]:
    clock = time.perf_counter()
    recipe = str(ROOT / "recipes/vita/digits/stage3.yaml")
    command = [sys.executable, "-m", "mio", "fit", recipe, f"runtime.runs={runs}", *overrides]
    subprocess.run(command, cwd=ROOT, check=True)
    seconds = time.perf_counter() - clock
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = json.loads((runs / "vita-digits-3/summary.json").read_text(encoding="utf-8"))
    found = {task: figures["accuracy"] for task, figures in summary["tasks"].items()}
    missed = [task for task, bar in BARS.items() if found[task] < bar]
    return found | {
        "items": min(figures["n"] for figures in summary["tasks"].values()),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "missed": [*missed, *(["seconds"] if seconds > SECONDS else [])],
    }


if __name__ == "__main__":
    main()
