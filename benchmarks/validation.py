"""What validation does to a training: nothing, and how much time it takes.

    python benchmarks/validation.py [--steps 60] [--periods 6]

One run without validation is compared with runs that have it, for data workers 0 and 2, for 1 and 2 ranks, undisturbed
and killed with SIGKILL in the middle and gone on with: `weights_differ` and `batches_differ` count runs whose weights,
or the journal of whose rows, are other bytes than those of the run without; `figures_differ` those whose validation
figures are not, to the last digit, those of one undisturbed process.

The cost is taken within one run on one thread, in CPU seconds: those of the validations by those of the steps between
them. `cost_share` is what validating 1 % as many tokens as are trained on costs, as a share of the training's time. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from runs import command as mio
from runs import corpus, descendants, finish, start, wait_for_step

HELD_OUT = "data.held_out=0.1"
LOOK = ("validate.every=10", "validate.items=20")
COST = """
name: cost
plugins: {text: {tokenizer: bytes}}
model: {width: 256, layers: 4, heads: 4, qk_norm: true, tied_embeddings: true}
data:
  held_out: 0.1
  groups:
    short: {sources: {lines: {dataset: jsonl, options: {path: short.jsonl}, templates: text}}}
    long: {sources: {lines: {dataset: jsonl, options: {path: long.jsonl}, templates: text}}}
  packing: {context: 256, window: 64}
mixture: {ratios: {short: 2, long: 1}}
train: {rows: 8, precision: fp32}
runtime: {threads: 1, accelerator: cpu, log_every: 5, checkpoint_every: 100000}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="of each run that is compared")
    parser.add_argument("--periods", type=int, default=6, help="validations of the run whose cost is taken")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus(folder)
        found = compared(folder, options.steps)
        print(json.dumps(found | cost(folder, options.periods)))


def compared(folder: Path, steps: int) -> dict[str, int]:
    """Runs that differ from one without validation."""
    log = folder / "log"
    every = ("fit", "lines.yaml", HELD_OUT, f"train.steps={steps}", "runtime.checkpoint_every=7")
    finish(folder, mio(*every, "runtime.runs=without"), log)
    truth = folder / "without/lines"
    figures: list[dict[str, str]] = []
    weights_differ = batches_differ = figures_differ = 0
    for workers in (0, 2):
        for ranks in (1, 2):
            for killed in (False, True):
                run = folder / f"w{workers}-r{ranks}-{'killed' if killed else 'whole'}" / "lines"
                arguments = mio(
                    *every,
                    *LOOK,
                    f"runtime.runs={run.parent.name}",
                    f"runtime.workers={workers}",
                    f"runtime.devices={ranks}",
                    "runtime.restarts=0",
                )
                if killed:
                    process = start(folder, arguments, log)
                    if not wait_for_step(process, run / "journal.csv", steps // 2 + 2):
                        raise SystemExit(f"{run} ended before it was killed:\n{log.read_text()[-2000:]}")
                    for number in reversed(descendants(process.pid)):
                        os.kill(number, signal.SIGKILL)
                    process.wait()
                finish(folder, arguments, log)
                figures = figures or validation(run)
                same = [
                    (run / file).read_bytes() == (truth / file).read_bytes()
                    for file in ("model.safetensors", "journal.csv")
                ]
                weights_differ += not same[0]
                batches_differ += not same[1]
                figures_differ += validation(run) != figures
                words = ["DIFFER", "same"]
                print(
                    f"workers {workers}  ranks {ranks}  {'killed, gone on' if killed else 'undisturbed':15}  "
                    f"weights {words[same[0]]}  batches {words[same[1]]}  figures {words[validation(run) == figures]}",
                    flush=True,
                )
    return {"weights_differ": weights_differ, "batches_differ": batches_differ, "figures_differ": figures_differ}


def validation(run: Path) -> list[dict[str, str]]:
    """A run's validation figures, step by step, as they are written."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[-1] if name.startswith("validation/") and name != "validation/seconds"]
    return [{"step": row["step"], **{name: row[name] for name in names}} for row in rows if row["validation/loss"]]


def cost(folder: Path, periods: int) -> dict[str, float]:
    """What validation costs, in CPU seconds of one process."""
    from mio.core import terminal
    from mio.core.contract.plugins import PluginManager
    from mio.core.stages.fit import fit_chain
    from mio.core.training import loop
    from mio.core.training.validation import Validation

    class Timed(Validation):
        """Notes when steps end, when validations begin, and when they end."""

        ends: list[float]
        spent: list[float]

        def on_train_batch_end(self, *arguments: Any, **keywords: Any) -> None:
            Timed.ends.append(time.process_time())
            super().on_train_batch_end(*arguments, **keywords)
            Timed.spent.append(time.process_time() - Timed.ends[-1])

    Timed.ends, Timed.spent = [], []
    every = 50
    items = 32  # of two streams: about 1 % of the tokens of as many steps
    (folder / "cost.yaml").write_text(COST)
    before = Path.cwd()
    os.chdir(folder)
    loop.Validation = Timed  # type: ignore[misc]
    try:
        settings = [f"train.steps={every * periods + 1}", f"validate.every={every}", f"validate.items={items}"]
        run = fit_chain(["cost.yaml"], settings, PluginManager.discover(), terminal.console(quiet=True))
    finally:
        os.chdir(before)
        loop.Validation = Validation  # type: ignore[misc]
    report = json.loads((folder / run / "summary.json").read_text())
    # from the end of the first step on, which warms up, to that of the last, whose validation has no step after it
    validated = [(end, spent) for end, spent in zip(Timed.ends, Timed.spent, strict=True)][1:-1]
    looked = [spent for index, (_, spent) in enumerate(validated, 2) if index % every == 0]
    seconds = sum(looked)
    training = Timed.ends[-1] - Timed.ends[0] - sum(Timed.spent[:-1])
    tokens = report["tokens"] * (len(Timed.ends) - 1) / len(Timed.ends)
    share = report["validation"]["positions"] * len(looked) / tokens
    print(
        f"{len(looked)} validations of {report['validation']['positions']:,} positions, {share:.2%} of the tokens "
        f"trained on, take {seconds:.2f} CPU seconds, {seconds / training:.2%} of the training's {training:.1f}"
    )
    return {"cost_share": round(seconds / training / share * 0.01, 5)}


if __name__ == "__main__":
    main()
