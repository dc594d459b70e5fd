"""A whole training step (forward, loss, backward, clipping, AdamW) of mio, litgpt and transformers, bf16 on a CPU.

    python benchmarks/train_step.py [--rounds 10] [--shapes 13m 60m] [--search]

Both shapes are untied decoders of the Llama family on 8 rows of one document of 512 tokens. Each side is a process of
its own; in every round each does its steps while the others wait. `--search` measures every configuration of the peers
that is listed below, and mio, one after the other; `BEST` holds the winners, which the default run compares. litgpt
lives in an environment of its own, which the first run makes. The last line is one JSON object; its ratios are the
smaller of the two shapes' medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from itertools import product, repeat
from typing import Any

from mio_side import made_module, settle, train_on
from peer_sides import litgpt_step, transformers_step
from workers import LITGPT, Worker, environment, serve, start_of_growth

ROWS, LENGTH = 8, 512
SHAPES = {
    "13m": {"vocabulary": 16384, "width": 256, "layers": 6, "heads": 8, "kv_heads": 4, "ffn": 704},
    "60m": {"vocabulary": 65536, "width": 384, "layers": 6, "heads": 8, "kv_heads": 4, "ffn": 1024},
}
"""12.8 M and 60.1 M parameters."""
STEPS = {"13m": 3, "60m": 1}
"""Steps per round."""

SEARCH = {
    # weights in bf16 without a float32 copy, or float32 weights under autocast; chunks of the loss (`pretrain.py` has
    # 128) or of head and loss together (`finetune/`); torch.compile of the whole model, as `pretrain.py` does
    "litgpt": [
        {"precision": precision, "loss": loss, "compile": compiled}
        for precision, loss, compiled in product(
            ("bf16-true", "bf16-mixed"), ("whole", "chunked loss", "chunked head"), (False, True)
        )
    ],
    "transformers": [
        {"precision": precision, "attention": attention, "compile": compiled}
        for precision, attention, compiled in product(("bf16-true", "bf16-mixed"), ("sdpa", "eager"), (False, True))
    ],
    "mio": [{}],
}
BEST: dict[str, dict[str, dict[str, Any]]] = {
    "13m": {
        "mio": {},
        "litgpt": {"precision": "bf16-true", "loss": "chunked loss", "compile": True},
        "transformers": {"precision": "bf16-true", "attention": "sdpa", "compile": True},
    },
    "60m": {
        "mio": {},
        "litgpt": {"precision": "bf16-true", "loss": "chunked loss", "compile": False},
        "transformers": {"precision": "bf16-true", "attention": "sdpa", "compile": True},
    },
}


def build(spec: dict[str, Any]) -> Callable[[], float]:
    """One training step of `spec["side"]`, a function that returns the loss."""
    return {"mio": build_mio, "litgpt": build_litgpt, "transformers": build_transformers}[spec["side"]](spec)


def tokens_of(spec: dict[str, Any]) -> Any:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(spec["vocabulary"], (ROWS, LENGTH + 1), generator=generator)


def build_mio(spec: dict[str, Any]) -> Callable[[], float]:
    """What `mio fit` does in a step: float32 weights, bf16 products."""
    if spec.get("settled", True):
        settle()
    import torch

    from mio.core.data.batch import Batch
    from mio.core.data.document_mask import DocumentMask

    start_of_growth()
    module = made_module(spec)
    optimizer = module.configure_optimizers()["optimizer"]
    tokens = tokens_of(spec)
    batch = Batch(
        tokens=tokens[:, :-1],
        targets=tokens[:, 1:],
        weights=torch.ones(ROWS, LENGTH),
        positions=torch.arange(LENGTH).repeat(ROWS, 1),
        stream=torch.zeros(ROWS, LENGTH, dtype=torch.int64),
        mask=DocumentMask.from_lengths([[LENGTH]] * ROWS, LENGTH),
        lengths=[[LENGTH]] * ROWS,
        weight=float(ROWS * LENGTH),
    )
    return lambda: train_on(module, optimizer, batch)


def build_litgpt(spec: dict[str, Any]) -> Callable[[], float]:
    return litgpt_step(spec, LENGTH, repeat(tokens_of(spec)))


def build_transformers(spec: dict[str, Any]) -> Callable[[], float]:
    tokens = tokens_of(spec)
    targets = tokens[:, 1:].contiguous()
    batch = {"input_ids": tokens[:, :-1].contiguous(), "shift_labels": targets, "labels": targets}
    return transformers_step(spec, LENGTH, repeat(batch))


def start(side: str, shape: str, configuration: dict[str, Any]) -> Worker:
    python = environment("litgpt", LITGPT) if side == "litgpt" else sys.executable
    worker = Worker(python, __file__, {"side": side, **SHAPES[shape], **configuration})
    worker.run(2)  # compiles, loads kernels, allocates
    return worker


def told(configuration: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" if key == "compile" else str(value) for key, value in configuration.items())


def search(shapes: list[str]) -> None:
    for shape, side in product(shapes, SEARCH):
        for configuration in SEARCH[side]:
            try:
                worker = start(side, shape, configuration)
            except RuntimeError as error:
                print(f"{shape}  {side:12} {told(configuration):40}  failed: {error}", flush=True)
                continue
            answer = worker.run(4 * STEPS[shape])
            worker.close()
            speed = ROWS * LENGTH / statistics.median(answer["seconds"])
            memory = f"{answer['growth_mib']:6.0f} MiB (peak {answer['peak_mib']:.0f})"
            print(f"{shape}  {side:12} {told(configuration):40} {speed:8.0f} tokens/s {memory}", flush=True)


def compare(shape: str, rounds: int) -> dict[str, Any]:
    workers = {side: start(side, shape, configuration) for side, configuration in BEST[shape].items()}
    speeds: dict[str, list[float]] = {side: [] for side in workers}
    for _ in range(rounds):
        for side, worker in workers.items():
            seconds = worker.run(STEPS[shape])["seconds"]
            speeds[side].append(ROWS * LENGTH * len(seconds) / sum(seconds))
    result: dict[str, Any] = {}
    for side, worker in workers.items():
        last = worker.run(1)
        worker.close()
        ratio = statistics.median(ours / theirs for ours, theirs in zip(speeds["mio"], speeds[side], strict=True))
        result[side] = {
            "tokens_per_second": round(statistics.median(speeds[side])),
            "ratio": round(ratio, 3),
            "growth_mib": round(last["growth_mib"]),
            "peak_mib": round(last["peak_mib"]),
        }
        print(
            f"{shape}  {side:12} {told(BEST[shape][side]):40} {result[side]['tokens_per_second']:8} tokens/s  "
            f"mio is {ratio:5.2f}x  {last['growth_mib']:6.0f} MiB (peak {last['peak_mib']:.0f})  "
            f"loss {last['loss']:.3f}",
            flush=True,
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--search", action="store_true", help="measure all configurations of the peers")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(build)
        return
    if options.search:
        search(options.shapes)
        return
    results = {shape: compare(shape, options.rounds) for shape in options.shapes}
    ratios = {
        f"ratio_vs_{peer}": min(result[peer]["ratio"] for result in results.values())
        for peer in ("litgpt", "transformers")
    }
    print(json.dumps({**ratios, "shapes": results}))


if __name__ == "__main__":
    main()
