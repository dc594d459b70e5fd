"""Runs that are killed again and again: whether every one saw exactly the batches that its recipe plans.

    python benchmarks/resume_matrix.py [--kills 20] [--seed 0] [--workers 0 2]

For data workers 0 and 2, and for 1 rank, 2 ranks, and ranks that change at every start (from 2 to 1 and back, from 1 to
2 and back), one run is killed with SIGKILL at so many random steps, one after the other, and then stopped with SIGTERM,
each time all of its processes. A case is one kill and what came after it. At the end the journal is compared with the
plan and with an undisturbed run's, and so are the weights, bit by bit. The last line is one JSON object with `cases`
and `inexact`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
from pathlib import Path

from runs import command as mio
from runs import compare, corpus, descendants, finish, start, steps, wait_for_step

RANKS = {"1": (1, 1), "2": (2, 2), "2 -> 1": (2, 1), "1 -> 2": (1, 2)}
STEPS = 240


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    options = parser.parse_args()
    draw = random.Random(options.seed)
    cases = inexact = lost = repeated = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus(folder)
        log = folder / "log"
        finish(folder, mio("fit", "lines.yaml", "runtime.runs=undisturbed"), log)
        truth = folder / "undisturbed/lines"
        for workers in options.workers:
            for label, ranks in RANKS.items():
                run = f"w{workers}-{label.replace(' -> ', 'to')}"
                journal = folder / run / "lines/journal.csv"
                places = sorted(draw.sample(range(2, STEPS - 12), options.kills))
                starts = 0

                def begin(run: str = run, workers: int = workers, ranks: tuple[int, int] = ranks) -> list[str]:
                    devices = ranks[starts % 2]  # noqa: B023
                    return mio(
                        *("fit", "lines.yaml", f"runtime.runs={run}", f"runtime.workers={workers}"),
                        *(f"runtime.devices={devices}", "runtime.restarts=0"),
                    )

                for place in places:
                    process = start(folder, begin(), log)
                    starts += 1
                    if not wait_for_step(process, journal, place):
                        raise SystemExit(f"{run} ended before step {place}:\n{log.read_text()[-20000:]}")
                    for number in reversed(descendants(process.pid)):
                        os.kill(number, signal.SIGKILL)
                    process.wait()
                    cases += 1
                process = start(folder, begin(), log)
                starts += 1
                wait_for_step(process, journal, max(places) + 2)
                os.kill(process.pid, signal.SIGTERM)
                code = process.wait(120)
                stopped = steps(journal)
                cases += 1
                finish(folder, begin(), log)
                found = compare(folder, f"{run}/lines")
                lost, repeated = lost + len(found.lost), repeated + len(found.repeated)
                same = all(
                    (folder / run / "lines" / file).read_bytes() == (truth / file).read_bytes()
                    for file in ("journal.csv", "model.safetensors")
                )
                exact = found.exact and same and found.steps == STEPS and code == 130
                inexact += 0 if exact else options.kills + 1
                print(
                    f"workers {workers}  ranks {label:6}  {options.kills} x SIGKILL, SIGTERM after step {stopped} "
                    f"(exit code {code}): {'exact' if exact else f'INEXACT {found}, weights and journal {same}'}",
                    flush=True,
                )
    print(json.dumps({"cases": cases, "inexact": inexact, "lost": lost, "repeated": repeated}))


if __name__ == "__main__":
    main()
