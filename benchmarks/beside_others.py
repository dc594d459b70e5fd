"""mio's training step alone and beside other work on the same cores, with and without what `mio` settles for threads.

    python benchmarks/beside_others.py [--rounds 8] [--shape 13m]

The other work is a process that multiplies matrices with one thread per core, all the time: beside it, half of the
speed is a fair share. Both ways of waiting are workers of their own, which do their steps in turn; each does so first
alone, then beside the other work (see `mio.cli.threads`). The last line is one JSON object: medians of seconds per
step, and `kept`, the share of the quiet speed that is left.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from train_step import SHAPES, build
from workers import Worker, serve

OTHER = "import torch\nx = torch.randn(512, 512)\nprint(flush=True)\nwhile True: x @ x"


def seconds(workers: dict[str, Worker], rounds: int) -> dict[str, float]:
    """Median seconds of a step of each worker, in turn."""
    times: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            times[name] += worker.run(1)["seconds"]
    return {name: round(statistics.median(found), 3) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--shape", choices=SHAPES, default="13m")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(build)
        return
    os.environ.pop("GOMP_SPINCOUNT", None)
    spec = {"side": "mio", **SHAPES[options.shape]}
    workers = {
        "as libgomp has it": Worker(sys.executable, __file__, {**spec, "settled": False}),
        "settled": Worker(sys.executable, __file__, spec),
    }
    for worker in workers.values():
        worker.run(2)
    quiet = seconds(workers, options.rounds)
    with subprocess.Popen([sys.executable, "-c", OTHER], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        time.sleep(1)
        try:
            loaded = seconds(workers, options.rounds)
        finally:
            other.kill()
    for worker in workers.values():
        worker.close()
    kept = {name: round(quiet[name] / loaded[name], 2) for name in workers}
    for name in workers:
        print(f"{name:18} alone {quiet[name]:.3f} s, beside others {loaded[name]:.3f} s: keeps {kept[name]:.2f}")
    print(json.dumps({"quiet": quiet, "loaded": loaded, "kept": kept}))


if __name__ == "__main__":
    main()
