"""Two processes with FSDP2 over gloo against one: the largest difference of the loss over 50 steps in float32.

    python benchmarks/fsdp_equivalence.py [--steps 50]

Stage 1 of the digits world with AdamW and with Muon, and the AdamW run split by tensor parallelism too. All runs cut a
step into the same forward passes of four rows, so that the same sums are taken; `other_cut` is one process that passes
all rows at once. The last line is one JSON object; `max_loss_difference` is the largest over the runs with FSDP2.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from runs import command, figures, finish

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def losses(run: str, *overrides: str) -> list[float]:
            # tokenizers are kept where later runs find them
            arguments = [
                *("fit", str(ROOT / "recipes/stage1.yaml"), f"train.steps={options.steps}", "train.precision=fp32"),
                *("train.micro_rows=4", "runtime.log_every=1", "runtime.accelerator=cpu", "runtime.workers=0"),
                *("evaluate.tasks=[]", f"runtime.runs={run}", *overrides),
            ]
            finish(folder, command(*arguments), folder / "log")
            return figures(folder / run / "stage1/metrics.csv", "loss")

        for kind in ("adamw", "muon"):
            chosen = f"train.optimizer.kind={kind}"
            one = losses(f"{kind}-1", chosen)
            others = {
                "fsdp": losses(f"{kind}-2", chosen, "runtime.devices=2"),
                "other_cut": losses(f"{kind}-cut", chosen, "train.micro_rows=0"),
            }
            if kind == "adamw":
                others["tensor_parallel"] = losses(
                    f"{kind}-tensor", chosen, "runtime.devices=2", "runtime.tensor_parallel=2"
                )
            for how, other in others.items():
                assert len(one) == len(other) == options.steps
                worst = max(abs(a - b) for a, b in zip(one, other, strict=True))
                result[f"{kind}/{how}"] = worst
                print(f"{kind:6} {how:16} {worst:.2e}  (loss {one[0]:.4f} to {one[-1]:.4f})", flush=True)
    largest = max(value for name, value in result.items() if name.endswith("/fsdp"))
    print(json.dumps({"max_loss_difference": largest, "steps": options.steps, "differences": result}))


if __name__ == "__main__":
    main()
