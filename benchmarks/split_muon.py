"""Muon with its matrices shared out over the ranks, beside Muon on every rank.

    python benchmarks/split_muon.py [--ranks 2] [--layers 6] [--rounds 8]

The optimizer's step alone, on the matrices of a decoder of width 256, split by FSDP2 over processes of one thread each
(gloo). Beside `SplitMuon` steps an optimizer that gathers every update on every rank and orthogonalises it there; both
take the same gradients in turn and must end with the same weights, bit by bit. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from mio.core.distributed.regions import local, local_region
from mio.core.training import muon
from mio.core.training.muon import SplitMuon

SHAPES = [(256, 256), (128, 256), (128, 256), (256, 256), (704, 256), (704, 256), (256, 704)]
"""Of a layer: query, key, value, output, gate, up, down."""


class Everywhere(SplitMuon):
    """Every rank works on every matrix."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # noqa: ARG002
        for group in self.param_groups:
            for parameter in group["params"]:
                part = self._update(parameter, group)
                update = DTensor.from_local(
                    part,
                    parameter.device_mesh,
                    parameter.placements,
                    run_check=False,
                    shape=parameter.shape,
                    stride=parameter.stride(),
                )
                turned = muon._orthogonal(update.full_tensor(), group)
                shape, offset = local_region(parameter)
                box = tuple(slice(at, at + size) for at, size in zip(offset, shape, strict=True))
                muon._move(local(parameter), turned[box], parameter.shape, group)


def on_rank(rank: int, options: argparse.Namespace, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=options.ranks
    )
    mesh = init_device_mesh("cpu", (options.ranks,))
    sides = {}
    for name, kind in (("shared out", SplitMuon), ("everywhere", Everywhere)):
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Linear(columns, rows, bias=False) for _ in range(options.layers) for rows, columns in SHAPES)
        )
        fully_shard(model, mesh=mesh)
        sides[name] = (list(model.parameters()), kind(model.parameters(), lr=0.02, momentum=0.95))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(options.rounds + 1):
        for name, (parameters, optimizer) in sides.items():
            torch.manual_seed(turn)
            for parameter in parameters:
                parameter.grad = distribute_tensor(torch.randn(parameter.shape), mesh, parameter.placements)
            torch.distributed.barrier()
            start = time.perf_counter()
            optimizer.step()
            torch.distributed.barrier()
            if turn:  # the first one makes the momentum, and shares the matrices out
                seconds[name].append(time.perf_counter() - start)
    ours, theirs = (side[0] for side in sides.values())
    same = all(torch.equal(local(one), local(other)) for one, other in zip(ours, theirs, strict=True))
    if not rank:
        for name, times in seconds.items():
            print(f"{name}: {1000 * statistics.median(times):.1f} ms a step")
        ratios = [other / one for one, other in zip(*seconds.values(), strict=True)]
        print(json.dumps({"ratio": round(statistics.median(ratios), 3), "same_weights": same}))
    torch.distributed.barrier()
    os._exit(0)  # a thread of gloo that wakes up while the interpreter is taken down would abort the process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(on_rank, (options, folder), nprocs=options.ranks)


if __name__ == "__main__":
    main()
