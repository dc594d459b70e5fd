"""What commands cost before they do anything: CPU seconds of `mio generate`, and of `mio fit` for a single step.

    python benchmarks/startup.py RUN [--prompt "Draw a seven."] [--rounds 5]

RUN is a finished run, of the demo for example. `mio fit` starts a stage from it, whose tokenizers are there, trains one
step and saves the result: its first step comes earlier. Each command is a process of its own, as is `import torch`, the
part that nobody can leave out; CPU seconds are those of user and system, so that other work beside counts little. With
`--packages`, it lists the packages that each command imports, by what they cost. The last line is one JSON object with
medians.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


def cpu_seconds(command: list[str], folder: Path) -> float:
    """Of a process and its children."""
    before = os.times()
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    after = os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}")
    return after.children_user - before.children_user + after.children_system - before.children_system


def packages(command: list[str], folder: Path) -> str:
    """Milliseconds of importing by package, the largest first."""
    done = subprocess.run(
        [command[0], "-X", "importtime", *command[1:]], cwd=folder, capture_output=True, text=True, check=True
    )
    costs = Counter[str]()
    for line in done.stderr.splitlines():
        if found := IMPORT.match(line):
            costs[found[2].split(".")[0]] += int(found[1])
    return ", ".join(f"{name} {microseconds / 1000:.0f}" for name, microseconds in costs.most_common(12))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--prompt", default="Draw a seven.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--packages", action="store_true")
    given = parser.parse_args()
    run = given.run.resolve()
    mio = [sys.executable, "-m", "mio"]
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        short = ["train.steps=1", "evaluate.tasks=[]", "validate.every=0", "runtime.workers=0", "runtime.devices=1"]
        started = [f"start_from={run}", f"runtime.runs={folder / 'runs'}", f"runtime.tokens={folder / 'tokens'}"]
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "help": [*mio, "--help"],
            "generate": [*mio, "generate", str(run), given.prompt, "--out", str(folder)],
            "fit": [*mio, "fit", str(run / "recipe.yaml"), *short, *started],
        }
        times: dict[str, list[float]] = {what: [] for what in commands}
        for number in range(given.rounds + 1):  # the first round fills the disk's cache
            for what, command in commands.items():
                new = [f"name=startup{number}"] if what == "fit" else []
                seconds = cpu_seconds([*command, *new], folder)
                if number:
                    times[what].append(seconds)
        for what, command in commands.items():
            figures[what] = round(statistics.median(times[what]), 2)
            ratio = statistics.median(a / b for a, b in zip(times[what], times["import torch"], strict=True))
            print(f"{what:14} {figures[what]:5.2f} CPU seconds, {ratio:.2f} times `import torch`")
            if given.packages:
                print(f"    ms: {packages([*command, *(['name=listed'] if what == 'fit' else [])], folder)}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
