"""A served model asked by 1, 8 and 64 clients at a time.

    python benchmarks/serve.py [RUN] [--rounds 3] [--tokens 64]

A process serves RUN, or without one a model of the demo's size with random weights; this one asks it over HTTP, as
streams, each client one request after the other. All requests have a seed of their own, and are asked first alone, by
one client: what the others get must be the same. A request is starved that at its worst waits for a token, the first or
a later one, more than half a second and five times as long as the median of those that were asked beside it does. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from serving.client import post
from serving.process import served

CLIENTS = (1, 8, 64)
STARVED, LEAST = 5.0, 0.5
WORDS = (
    "seven",
    "Please generate an image according to the given description. two",
    "Count on. one two",
    "What is it?",
)


@dataclass
class Asked:
    """What came of one request."""

    text: str
    tokens: int
    first: float
    """Seconds until the first token."""
    seconds: float
    longest: float
    """Wait for a token."""


async def ask(port: int, number: int, tokens: int) -> Asked:
    """One streamed answer. Requests of one number are equal."""
    body = {
        "messages": [{"role": "user", "content": f"{WORDS[number % len(WORDS)]} {number}"}],
        "seed": number, "temperature": 1.0, "max_tokens": tokens, "stream": True, "modalities": ["text"],
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    start = time.perf_counter()
    first, text, used, longest, last = 0.0, "", 0, 0.0, start
    async for event in post(port, "/v1/chat/completions", body):
        if event["choices"]:
            delta = event["choices"][0]["delta"]
            if delta.get("content"):
                now = time.perf_counter()
                first, longest, last = first or now - start, max(longest, now - last), now
                text += delta["content"]
        else:
            used = event["usage"]["completion_tokens"]
    seconds = time.perf_counter() - start
    return Asked(text, used, first or seconds, seconds, longest)


async def at_a_time(port: int, clients: int, requests: int, tokens: int) -> tuple[list[Asked], float]:
    """The answers to so many requests, by number, asked by so many clients; and the seconds that all took."""
    numbers = iter(range(requests))
    answers: dict[int, Asked] = {}

    async def client() -> None:
        for number in numbers:
            answers[number] = await ask(port, number, tokens)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return [answers[number] for number in range(requests)], time.perf_counter() - start


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def cpu_seconds(process: int) -> float:
    """Processor time of a process so far, which other work on the machine hardly changes."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measured(port: int, process: int, options: argparse.Namespace) -> dict[str, float]:
    await at_a_time(port, 8, 8, options.tokens)  # what is loaded at first use
    alone: list[Asked] = []
    found: dict[str, float] = {"starved": 0, "different": 0}
    firsts = {}
    for clients in CLIENTS:
        requests = max(clients, 16) if clients < 64 else clients * options.rounds
        before = cpu_seconds(process)
        answers, seconds = await at_a_time(port, clients, requests, options.tokens)
        cost = (cpu_seconds(process) - before) / sum(one.tokens for one in answers)
        if clients == 1:
            alone = (await at_a_time(port, 1, 64, options.tokens))[0]
        rate = sum(one.tokens for one in answers) / seconds
        median = statistics.median(one.seconds for one in answers)
        longest = max(STARVED * statistics.median(one.longest for one in answers), LEAST)
        starved = sum(one.longest > longest for one in answers)
        different = sum(one.text != alone[number].text for number, one in enumerate(answers[: len(alone)]))
        firsts[clients] = percentile([one.first for one in answers], 0.95)
        print(
            f"{clients:3} clients: {rate:8,.0f} tokens/s, first token after {firsts[clients] * 1e3:6.1f} ms (95 %), "
            f"answer after {median * 1e3:7.1f} ms (median), {starved} starved, {different} different, "
            f"{cost * 1e3:.3f} ms of CPU a token"
        )
        found |= {f"tokens_per_second_{clients}": round(rate, 1), f"cpu_ms_per_token_{clients}": round(cost * 1e3, 3)}
        found["starved"] += starved
        found["different"] += different
    found["p95_first_token_ratio"] = round(firsts[64] / firsts[1], 2)
    found["p95_first_token_ms_64"] = round(firsts[64] * 1e3, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("run", nargs="?", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rows", type=int, default=64)
    options = parser.parse_args()
    with served(options.run, options.rows) as (port, process):
        found = asyncio.run(measured(port, process.pid, options))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
