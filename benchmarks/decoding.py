"""Ways to decode with a model that is spread over processes, side by side.

    python benchmarks/decoding.py [--ranks 2] [--width 256] [--layers 8] [--tokens 24]

Processes of one thread each (gloo) hold a model split by FSDP2. Each decodes sequences of its own, a token at a time
with a key-value cache: with the model as it is, gathering every layer for every token; with a copy that was gathered
once, in float32 and in bfloat16; and all of them together with a copy that is split over them, on the sequences of one.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable

import torch

from mio.core.contract.backbone import TransformerConfig
from mio.core.distributed.ranks import Ranks
from mio.core.generation import replicas
from mio.core.generation.replicas import decoding_copy
from mio.core.model.cache import KVCache
from mio.core.model.parallel import device_mesh, parallelise, reshard
from mio.core.model.transformer import Transformer
from mio.core.recipe.schema import RuntimeConfig

CPU = torch.device("cpu")
ROWS, SEQUENCES = 4096, 16


@torch.no_grad()
def decode(transformer: Transformer, tokens: int, dtype: torch.dtype) -> float:
    """Seconds per token of all sequences."""
    cache = KVCache(transformer.config, SEQUENCES, tokens + 1, dtype=dtype)
    chosen = torch.arange(SEQUENCES)[:, None]
    times = []
    for _ in range(tokens):
        start = time.perf_counter()
        hidden = transformer(chosen, cache.positions(1), cache=cache).hidden
        cache.advance(1)
        chosen = transformer.logits(hidden, ROWS)[:, 0].argmax(-1)[:, None]
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def on_rank(rank: int, options: argparse.Namespace, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    size = str(options.ranks)
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "decoding", "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0",
        "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    ranks, room = Ranks.join(), replicas.free_memory
    with ranks.process_group("decoding", "cpu"):
        config = TransformerConfig(width=options.width, layers=options.layers, heads=8, tied_embeddings=True)
        source = Transformer(config, ROWS)
        runtime = RuntimeConfig()
        parallelise(source, device_mesh(runtime, options.ranks, options.ranks, "cpu"), runtime, "fp32")

        def timed(make: Callable[[], Transformer], dtype: torch.dtype) -> tuple[float, float]:
            ranks.barrier()
            start = time.perf_counter()
            transformer = make()
            made = time.perf_counter() - start
            seconds = decode(transformer, options.tokens, dtype)
            ranks.barrier()
            return seconds, made

        found = {}
        for _ in range(options.rounds):
            ways: list[tuple[str, Callable[[], Transformer], torch.dtype]] = [
                ("as_trained", lambda: source, torch.float32),
                ("copy_fp32", lambda: decoding_copy(source, CPU, torch.float32, ranks)[0], torch.float32),
                ("copy_bf16", lambda: decoding_copy(source, CPU, torch.bfloat16, ranks)[0], torch.bfloat16),
            ]
            for name, make, dtype in ways:
                found.setdefault(name, []).append(timed(make, dtype))
                reshard(source)
            replicas.free_memory = lambda *_: 0
            split = lambda: decoding_copy(source, CPU, torch.bfloat16, ranks)[0]  # noqa: E731
            found.setdefault("split_bf16", []).append(timed(split, torch.bfloat16))
            replicas.free_memory = room
        if ranks.first:
            with open(f"{folder}/found", "w", encoding="utf-8") as file:  # noqa: PTH123
                json.dump(found, file)
        ranks.barrier()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        arguments = (options, port, folder)
        torch.multiprocessing.start_processes(on_rank, arguments, nprocs=options.ranks, start_method="fork")
        with open(f"{folder}/found", encoding="utf-8") as file:  # noqa: PTH123
            found = json.load(file)
    rows = {}
    for name, rounds in found.items():
        seconds = statistics.median(one[0] for one in rounds)
        streams = 1 if name.startswith("split") else options.ranks  # sets of sequences that are decoded at once
        rows[name] = {
            "ms_per_step": round(seconds * 1e3, 1),
            "tokens_per_second": round(SEQUENCES * streams / seconds),
            "seconds_to_make": round(statistics.median(one[1] for one in rounds), 2),
        }
        print(f"{name:12}", ", ".join(f"{value:,} {what.replace('_', ' ')}" for what, value in rows[name].items()))
    gain = rows["copy_bf16"]["tokens_per_second"] / rows["as_trained"]["tokens_per_second"]
    print(json.dumps({"gain_of_the_copy": round(gain, 2), **rows}))


if __name__ == "__main__":
    main()
