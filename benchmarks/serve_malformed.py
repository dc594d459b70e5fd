"""Requests that are wrong, and what becomes of a server that gets them.

    python benchmarks/serve_malformed.py [--requests 2000] [--clients 32] [--seed 0]

A process serves a model with random weights that reads text, pictures, sound and videos. It gets requests of wrong
types and sizes, unknown fields, broken JSON, forms and HTTP, bombs, and clients that leave or stall. Each has to be
refused with a status of 4xx, or its connection closed; memory and file descriptors of the process are those of before,
and it answers as before. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import Counter
from pathlib import Path

from serving.client import post
from serving.clients import outcomes, wrong
from serving.malformed import malformed
from serving.process import served

_ROUND = 500
_VALID = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "seed": 1, "temperature": 1.0,
          "stream": True}  # fmt: skip


def memory(process: int) -> float:
    """Resident megabytes."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def descriptors(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))  # noqa: PTH208


async def answer(port: int) -> str:
    """Of a valid request."""
    texts = [
        one["choices"][0]["delta"].get("content") or "" async for one in post(port, "/v1/chat/completions", _VALID)
    ]
    return "".join(texts)


async def measured(port: int, process: int, options: argparse.Namespace) -> dict[str, float]:
    before_answer = await answer(port)
    await outcomes(port, [malformed(number, options.seed + 1) for number in range(300)], options.clients)
    await asyncio.sleep(3)
    memory_before, files_before = memory(process), descriptors(process)
    start = time.perf_counter()
    found: Counter[tuple[str, str]] = Counter()
    for first in range(0, options.requests, _ROUND):
        numbers = range(first, min(first + _ROUND, options.requests))
        found += await outcomes(port, [malformed(number, options.seed) for number in numbers], options.clients)
        print(f"after {numbers.stop} requests: {memory(process):.0f} MB, {descriptors(process)} descriptors")
    seconds = time.perf_counter() - start
    await asyncio.sleep(3)
    memory_after, files_after = memory(process), descriptors(process)
    for (kind, what), count in sorted(found.items()):
        print(f"{kind:14} {what:8} {count}")
    same = await answer(port) == before_answer
    print(
        f"{sum(found.values())} requests in {seconds:.0f} s; memory {memory_before:.0f} -> {memory_after:.0f} MB, "
        f"descriptors {files_before} -> {files_after}, answers {'as before' if same else 'differently'}"
    )
    return {
        "requests": sum(found.values()),
        "not_refused": sum(found[one] for one in wrong(found)),
        "memory_before_mb": round(memory_before, 1),
        "memory_after_mb": round(memory_after, 1),
        "descriptors_before": files_before,
        "descriptors_after": files_after,
        "answers_as_before": int(same),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with served("", 8) as (port, process):
        found = asyncio.run(measured(port, process.pid, options))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
