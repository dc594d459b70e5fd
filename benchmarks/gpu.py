"""Training speed of mio on one GPU at about 1 B and 7 B parameters: tokens/s, MFU, and the error of the memory plan.

    python benchmarks/gpu.py [--seconds 570] [--skip-peers]
    python benchmarks/gpu.py --smoke       # the same code on a CPU with tiny shapes: its figures mean nothing

The step is that of `mio fit` under Lightning: FSDP2, float32 weights with bfloat16 compute, compiled blocks, packed
documents of mixed lengths (`mixed_rows.py`), loss over 76,294 ids, clipping, fused AdamW, guards and meters. Weights
are random. The larger shape is MIO's backbone. Where all of it does not fit the card, two depths are measured and the
step of the whole depth is their linear continuation: a step is made of like layers and a rest. The output says so.

litgpt and torchtitan train their own models of the same shapes on the same number of rows, each in an environment of
its own that the first run makes: litgpt as its `pretrain.py` does, weights in bfloat16 without a float32 copy;
torchtitan 0.2.2, which runs with torch 2.11, with its blocks compiled and sharded. Both fill rows by concatenation and
let every token see all before it in its row. All sides run one after the other, as a card does not hold them together.
MFU counts the attention that the side's masking needs (Chowdhery et al. 2022, arXiv 2204.02311, appendix B).

The last line is one JSON object; what could not be measured is null there, with the reason printed above.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from gpu_sides import SIDES
from workers import LITGPT, TORCHTITAN, environment

VOCABULARY = 76294
SHAPES = {
    "1b": {"width": 2048, "layers": 16, "heads": 16, "kv_heads": 4, "ffn": 5632},
    "7b": {"width": 4096, "layers": 32, "heads": 32, "kv_heads": 4, "ffn": 11008},  # Yi-6B with MIO's vocabulary
    "smoke": {"width": 64, "layers": 4, "heads": 4, "kv_heads": 2, "ffn": 256},
}
CONTEXTS = (2800, 4096)
ROWS = 16
"""Of a step, as MIO was trained: 16 rows per GPU."""
WARM_UP, STEPS = 2, 3


@dataclass(frozen=True)
class Case:
    """One measurement: what a subprocess is told."""

    side: str
    shape: str
    layers: int
    context: int
    micro_rows: int
    device: str
    peak_flops: float
    checkpointing: str = "none"
    compiled: bool = True
    rows: int = ROWS
    vocabulary: int = VOCABULARY

    @property
    def spec(self) -> dict[str, Any]:
        return {**SHAPES[self.shape], **asdict(self), "steps": STEPS, "warm_up": WARM_UP}


class Bench:
    """Measures cases within a time, and keeps the reasons for what could not be measured."""

    def __init__(self, seconds: float, pythons: dict[str, str]) -> None:
        self.end = time.monotonic() + seconds
        self.pythons = pythons
        """The Python of each side."""
        self.found: dict[Case, dict[str, Any]] = {}
        self.too_large: set[Case] = set()
        """Cases that ran out of the card's memory."""

    def measure(self, case: Case) -> dict[str, Any] | None:
        """Figures of a case: `seconds` of its step, `tokens` and so on (`gpu_sides.py`); None if there are none."""
        if case not in self.found:
            found = self._measure(case)
            if found is None:
                return None
            self.found[case] = found
        return self.found[case]

    def _measure(self, case: Case) -> dict[str, Any] | None:
        name = f"{case.side} {case.shape}, {case.layers} layers, context {case.context}"
        left = self.end - time.monotonic()
        if left < 20:
            print(f"{name}: not measured, the time is over (--seconds)", flush=True)
            return None
        try:
            done = subprocess.run(
                [self.pythons[case.side], __file__, "--measure", json.dumps(case.spec)],
                capture_output=True,
                text=True,
                timeout=left,
                check=False,
            )
        except subprocess.TimeoutExpired:
            print(f"{name}: not measured, it took more than the {left:.0f} s that were left (--seconds)", flush=True)
            return None
        if done.returncode:
            reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given")
            print(f"{name}: not measured: {reason[:300]}", flush=True)
            if "OutOfMemoryError" in done.stderr:
                self.too_large.add(case)
            return None
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if case.side == "plan":
            return found
        found["seconds"] = statistics.median(found["step_seconds"])
        found["tokens_per_second"] = found["tokens"] / found["seconds"]
        print(
            f"{name}: {found['parameters'] / 1e9:.2f} B parameters, {case.rows} rows in passes of {case.micro_rows}, "
            f"checkpointing {case.checkpointing}, step {found['seconds']:.3f} s, "
            f"{found['tokens_per_second']:,.0f} tokens/s, MFU {mfu(found):.3f}, "
            f"peak memory {found['memory_bytes'] / 2**30:.1f} GiB, loss {found['loss']:.2f}",
            flush=True,
        )
        return found


def mfu(found: dict[str, Any]) -> float:
    return found["tokens_per_second"] * found["flops_per_token"] / found["peak_flops"]


def parameters(shape: str, layers: int) -> float:
    s = SHAPES[shape]
    attention = s["width"] ** 2 * (2 + 2 * s["kv_heads"] / s["heads"])
    return layers * (attention + 3 * s["width"] * s["ffn"]) + 2 * VOCABULARY * s["width"]


def needed(shape: str, layers: int, tokens: int) -> float:
    """Bytes of a training step, roughly: weights, gradients and AdamW in float32; of each layer's activations about six
    of the width and three of the FFN in bfloat16; the head's gathered rows, its gradient and the logits."""
    s = SHAPES[shape]
    activations = 2 * tokens * layers * (6 * s["width"] + 3 * s["ffn"])
    return 16 * parameters(shape, layers) + activations + 10 * VOCABULARY * s["width"] + 6e9


def fitting(shape: str, context: int, memory: float) -> tuple[list[int], int]:
    """Depths to measure and rows of a forward pass: the whole depth, or else two that fit the card's memory."""
    whole = SHAPES[shape]["layers"]
    for micro_rows in (4, 2, 1):
        if needed(shape, whole, micro_rows * context) < 0.92 * memory:
            return [whole], micro_rows
    deep = max([2, *(n for n in range(2, whole, 2) if needed(shape, n, 2 * context) < 0.92 * memory)])
    return [deep // 2, deep], 2


def whole(shape: str, parts: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """The figures of all layers: measured, or the linear continuation of two depths."""
    if len(parts) == 1:
        return parts[0][1]
    (few, first), (many, second) = parts
    times = (SHAPES[shape]["layers"] - few) / (many - few)
    found = dict(second)
    for key in ("seconds", "flops_per_token", "parameters"):
        found[key] = first[key] + times * (second[key] - first[key])
    found["tokens_per_second"] = found["tokens"] / found["seconds"]
    print(
        f"  {shape}: all {SHAPES[shape]['layers']} layers do not fit this card; continued from {few} and {many}: "
        f"{found['parameters'] / 1e9:.2f} B parameters, step {found['seconds']:.3f} s, "
        f"{found['tokens_per_second']:,.0f} tokens/s, MFU {mfu(found):.3f}",
        flush=True,
    )
    return found


def memory_error(bench: Bench, cases: list[Case]) -> float | None:
    """The largest relative error of the planner's memory over the cases, which were measured."""
    errors = []
    for case in cases:
        planned = bench.measure(replace(case, side="plan"))
        measured = bench.found[case]["memory_bytes"]
        if planned is not None and measured:
            errors.append(planned["memory_bytes"] / measured - 1)
            print(
                f"  memory of {case.shape}, {case.layers} layers, context {case.context}: "
                f"planned {planned['memory_bytes'] / 2**30:.2f} GiB, {errors[-1]:+.1%}",
                flush=True,
            )
    return round(max(map(abs, errors)), 4) if errors else None


def run(bench: Bench, shapes: list[str], contexts: list[int], memory: float, base: dict[str, Any]) -> dict[str, Any]:
    """All cases, the most important first."""
    results: dict[str, Any] = {}
    deepest: dict[tuple[str, int], Case] = {}
    # the target is stated for the larger shape; the longer context last, as it needs the most memory
    for shape, context in [(shape, context) for context in contexts for shape in reversed(shapes)]:
        depths, micro_rows = fitting(shape, context, memory)
        for checkpointing in ("none", "selective", "full"):
            case = Case("mio", shape, depths[-1], context, micro_rows, checkpointing=checkpointing, **base)
            if bench.measure(case) is not None:
                deepest[shape, context] = case
            if case not in bench.too_large:
                break
        cases = [replace(case, layers=depth) for depth in depths] if (shape, context) in deepest else []
        parts = [(at.layers, found) for at in cases if (found := bench.measure(at)) is not None]
        figures = whole(shape, parts) if len(parts) == len(depths) else None
        results[f"mfu_{shape}_{context}"] = figures and round(mfu(figures), 4)
        results[f"tokens_per_second_{shape}_{context}"] = figures and round(figures["tokens_per_second"])
        results[f"layers_measured_{shape}_{context}"] = [depth for depth, _ in parts]
    for shape in shapes:
        measured = [results[f"mfu_{shape}_{context}"] for context in contexts]
        results[f"mfu_{shape}"] = min((m for m in measured if m is not None), default=None)
    results["memory_error"] = memory_error(bench, list(deepest.values()))
    context = contexts[-1]
    for side, shape in [(side, shape) for shape in shapes for side in ("torchtitan", "litgpt")]:
        ours = deepest.get((shape, context))
        theirs = None
        if side in bench.pythons and ours is not None:
            for micro_rows in dict.fromkeys((ours.micro_rows, 1)):
                case = Case(side, shape, ours.layers, context, micro_rows, **base)
                theirs = bench.measure(case)
                if case not in bench.too_large:
                    break
        ratio = theirs and bench.found[ours]["tokens_per_second"] / theirs["tokens_per_second"]
        results[f"tokens_per_second_{side}_{shape}"] = theirs and round(theirs["tokens_per_second"])
        results[f"ratio_vs_{side}_{shape}"] = ratio and round(ratio, 3)
        if ratio:
            print(f"  mio is {ratio:.2f}x {side} at {shape}, {ours.layers} layers, context {context}", flush=True)
    return results


def peers() -> dict[str, str]:
    """The Pythons of the peers that can be installed."""
    found = {}
    for side, requirements in (("torchtitan", TORCHTITAN), ("litgpt", LITGPT)):
        try:
            found[side] = environment(side, requirements)
        except (subprocess.CalledProcessError, SystemExit) as error:
            print(f"{side}: not measured, it cannot be installed: {error}", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=570, help="once the peers are installed; the rest is left out")
    parser.add_argument("--skip-peers", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes on a CPU")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        spec = json.loads(options.measure)
        found = SIDES[spec["side"]](spec)
        print("\n" + json.dumps(found))
        return 0
    import torch

    from mio.core.model.flops import peak_flops

    if not (options.smoke or torch.cuda.is_available()):
        print("no GPU here: this measures one; `--smoke` runs the code on a CPU", file=sys.stderr)
        return 2
    bench = Bench(
        options.seconds, {"mio": sys.executable, "plan": sys.executable, **({} if options.skip_peers else peers())}
    )
    if options.smoke:
        base: dict[str, Any] = {"device": "cpu", "compiled": False, "rows": 4, "vocabulary": 512}
        base["peak_flops"] = peak_flops(torch.device("cpu"), "bf16")
        # a card without memory: two depths are measured
        results = run(bench, ["smoke"], [128], 0, base)
        print(json.dumps({"device": "cpu", **results}))
        return 0
    properties = torch.cuda.get_device_properties(0)
    print(f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, torch {torch.__version__}", flush=True)
    base = {"device": "cuda", "peak_flops": peak_flops(torch.device("cuda", 0), "bf16")}
    results = run(bench, ["1b", "7b"], list(CONTEXTS), properties.total_memory, base)
    print(json.dumps({"device": properties.name, "torch": torch.__version__, **results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
