"""What each optimisation of the training step is worth: useful tokens/s and memory, added one after the other.

    python benchmarks/ablation.py [--rounds 4] [--only NAME ...]

A decoder of 12.8 M parameters trains on packed documents of mixed lengths (`mixed_rows.py`), 3 rows of 1,024 tokens a
step, two different steps in turn. The first rows of the table take away what mio does by itself: mio has no switch
for these slow ways, so they are replaced here, where the step calls them. Every row is a process of its own; in every
round each does its two steps while the others wait. Tokens/s count tokens of documents, never padding. Memory is the
growth of the peak resident set over that before the model is built. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from itertools import cycle
from typing import Any

from mio_side import made_module, train_on
from mixed_rows import batches, packed_lengths
from workers import Worker, serve, start_of_growth

SHAPE = {"vocabulary": 16384, "width": 256, "layers": 6, "heads": 8, "kv_heads": 4, "ffn": 704}
ROWS, CONTEXT = 3, 1024
SEEDS = (1, 2)
"""A step of each: seeds whose rows hold one document to fifteen."""

ADDED: list[tuple[str, dict[str, Any]]] = [
    ("one document per row, padded to the longest", {}),
    ("+ packing, with a dense document mask", {"packing": True}),
    ("+ attention document by document", {"attention": True}),
    ("+ loss without the matrix of logits", {"loss": True}),
    ("+ bfloat16 products (`train.precision: bf16`)", {"precision": "bf16"}),
    ("+ fused AdamW", {"fused": True}),
    ("+ freed memory kept: what `mio fit` does by default", {"heap": True}),
]
BESIDE: list[tuple[str, dict[str, Any]]] = [
    ("with `runtime.activation_checkpointing: selective`", {"recompute": "selective"}),
    ("with `runtime.activation_checkpointing: full`", {"recompute": "full"}),
    ("with `runtime.compile: blocks`", {"compile": True}),
]
PLAIN = {
    "packing": False,
    "attention": False,
    "loss": False,
    "precision": "fp32",
    "fused": False,
    "heap": False,
    "recompute": "none",
    "compile": False,
}


def settings() -> dict[str, dict[str, Any]]:
    """The settings of each row of the table, by its name."""
    found: dict[str, dict[str, Any]] = {}
    current = dict(PLAIN)
    for name, change in ADDED:
        current = {**current, **change}
        found[name] = current
    return found | {name: {**current, **change} for name, change in BESIDE}


def build(spec: dict[str, Any]) -> Callable[[], float]:
    """A function that does the next training step and returns its loss."""
    import mio.core.model.layers
    import mio.core.training.module
    from mio.core.model.parallel import compile_blocks, recompute
    from mio.core.training.heap import keep_freed_memory

    made = [step_batch(seed, spec["packing"]) for seed in SEEDS]
    start_of_growth()
    if spec["heap"]:
        keep_freed_memory()
    module = made_module(SHAPE)
    recompute(module.transformer, spec["recompute"])
    if spec["compile"]:
        compile_blocks(module.transformer, "cpu")
    if not spec["attention"]:
        mio.core.model.layers.attend = densely_masked
    if not spec["loss"]:
        mio.core.training.module.linear_cross_entropy = whole_logits
    optimizer = module.configure_optimizers()["optimizer"]
    if not spec["fused"]:
        for group in optimizer.param_groups:
            group.update(fused=False, foreach=False)
    turns = cycle(made)

    return lambda: train_on(module, optimizer, next(turns), spec["precision"])


def step_batch(seed: int, packing: bool) -> Any:
    """The batch of a step: rows of packed documents, or the same documents a row each."""
    lengths = packed_lengths(ROWS, CONTEXT, seed)
    if packing:
        return batches(lengths, CONTEXT, ROWS, SHAPE["vocabulary"], seed)[0]
    alone = [[n] for row in lengths for n in row]
    return batches(alone, max(n for (n,) in alone), len(alone), SHAPE["vocabulary"], seed)[0]


def densely_masked(q: Any, k: Any, v: Any, packed: Any, window: int = 0) -> Any:
    """`mio.core.model.attention.attend` by one product over whole rows; a mask hides the other documents."""
    import torch
    import torch.nn.functional as F

    def mask() -> Any:
        ids = packed.ids
        same = (ids[:, :, None] == ids[:, None, :]).tril()
        # a padding position sees itself, as a row without anything visible has no softmax
        return (same | torch.eye(ids.shape[1], dtype=torch.bool))[:, None]

    assert not window
    alone = packed.starts.shape[1] == len(packed.ids)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    hidden = {"is_causal": True} if alone else {"attn_mask": packed.derive("dense", mask)}
    return F.scaled_dot_product_attention(q, k, v, **hidden, enable_gqa=True).transpose(1, 2)


def whole_logits(hidden: Any, head: Any, targets: Any, weights: Any, size: int, **_: Any) -> tuple[Any, Any]:
    """`mio.core.model.loss.linear_cross_entropy` by way of all logits."""
    import torch.nn.functional as F

    nll = F.cross_entropy(F.linear(hidden, head[:size]).float(), targets, reduction="none")
    return nll @ weights, nll.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", nargs="+", help="rows whose names contain one of these")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(build)
        return
    chosen = {
        name: spec
        for name, spec in settings().items()
        if not options.only or any(part in name for part in options.only)
    }
    workers = {name: Worker(sys.executable, __file__, spec) for name, spec in chosen.items()}
    for worker in workers.values():
        worker.run(len(SEEDS))
    useful = sum(sum(map(sum, packed_lengths(ROWS, CONTEXT, seed))) for seed in SEEDS)
    speeds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(options.rounds):
        for name, worker in workers.items():
            speeds[name].append(useful / sum(worker.run(len(SEEDS))["seconds"]))
    first = next(iter(workers))
    rows: list[dict[str, Any]] = []
    print("| | useful tokens/s | times the first | memory, MiB | loss |\n| --- | --- | --- | --- | --- |")
    for name, worker in workers.items():
        last = worker.run(len(SEEDS))
        worker.close()
        times = statistics.median(ours / theirs for ours, theirs in zip(speeds[name], speeds[first], strict=True))
        row = {
            "name": name,
            "tokens_per_second": round(statistics.median(speeds[name])),
            "ratio": round(times, 2),
            "growth_mib": round(last["growth_mib"]),
            "loss": round(last["loss"], 3),
        }
        rows.append(row)
        print(
            f"| {name} | {row['tokens_per_second']:,} | {times:.2f} | {row['growth_mib']:,} | {row['loss']} |",
            flush=True,
        )
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
