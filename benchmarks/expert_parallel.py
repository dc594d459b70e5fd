"""Experts split over two and four processes (gloo) against one process: loss and weights over 30 steps in float32.

    python benchmarks/expert_parallel.py [--steps 30]

A mixture of four experts, of which a token takes two, on texts that are half of them one letter repeated: such a row
goes to two experts of a layer, and others get nothing from its process, or nothing at all. AdamW and Muon; of four
processes FSDP2 alone too, since sums of more than two are taken in another order there already, and Muon, which
orthogonalises in bfloat16, makes more of the last bit than AdamW. Each is compared with one process that cuts a step
into the same forward passes.

The last line is one JSON object: `two_processes` and `adamw` are the largest differences of loss and of any weight
among runs whose experts are split over two processes, and among those with AdamW.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path

from runs import command, figures, finish

RECIPE = """
name: mixture
plugins: {text: {tokenizer: bytes}}
model: {width: 64, layers: 2, heads: 2, ffn_width: 96, experts: 4, experts_per_token: 2, router_aux_weight: 0.01}
data:
  groups: {lines: {sources: {lines: {dataset: jsonl, options: {path: lines.jsonl}, templates: text}}}}
  packing: {context: 128}
mixture: {ratios: {lines: 1}}
train: {rows: 4, precision: fp32, optimizer: {lr: 3e-3}}
runtime: {threads: 1, accelerator: cpu, log_every: 1, loggers: []}
"""

SPREAD = {
    "two": ("train.micro_rows=2", "runtime.devices=2", "runtime.expert_parallel=2"),
    "four, over two": ("train.micro_rows=1", "runtime.devices=4", "runtime.expert_parallel=2"),
    "four, over four": ("train.micro_rows=1", "runtime.devices=4", "runtime.expert_parallel=4"),
    "four, FSDP2 alone": ("train.micro_rows=1", "runtime.devices=4"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    loss: dict[str, float] = {}
    weight: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = random.Random(0)
        letters = "abcdefghijklmnopqrstuvwxyz "
        texts = [letters[i % 26] * 127 if i % 2 else "".join(draw.choices(letters, k=127)) for i in range(400)]
        (folder / "lines.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
        (folder / "mixture.yaml").write_text(RECIPE)

        def trained(runs: str, *overrides: str) -> Path:
            arguments = ("fit", "mixture.yaml", f"train.steps={options.steps}", f"runtime.runs={runs}", *overrides)
            finish(folder, command(*arguments), folder / "log")
            return folder / runs / "mixture"

        for kind in ("adamw", "muon"):
            chosen = f"train.optimizer.kind={kind}"
            alone = {cut: trained(f"{kind}-{cut}", chosen, cut) for cut in ("train.micro_rows=2", "train.micro_rows=1")}
            for how, overrides in SPREAD.items():
                one, other = alone[overrides[0]], trained(f"{kind}-{how}", chosen, *overrides)
                key = f"{kind}/{how}"
                loss[key], weight[key] = differences(one, other)
                print(f"{kind:6} {how:20} loss {loss[key]:.2e}  weights {weight[key]:.2e}", flush=True)
    split = [key for key in loss if "alone" not in key]
    two, adamw = ([key for key in split if what in key] for what in ("/two", "adamw"))
    print(
        json.dumps(
            {
                "two_processes": max(max(loss[key], weight[key]) for key in two),
                "adamw": max(max(loss[key], weight[key]) for key in adamw),
                "steps": options.steps,
                "loss_differences": loss,
                "weight_differences": weight,
            }
        )
    )


def differences(one: Path, other: Path) -> tuple[float, float]:
    """The largest of the losses of all steps, and of any element of the weights."""
    from safetensors.torch import load_file

    losses = [figures(run / "metrics.csv", "loss") for run in (one, other)]
    weights = [load_file(run / "model.safetensors") for run in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    return (
        max(abs(a - b) for a, b in zip(*losses, strict=True)),
        max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]),
    )


if __name__ == "__main__":
    main()
