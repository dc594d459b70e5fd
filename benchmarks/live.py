"""Simulated conversations with a trained model of the digits world, interrupted at random moments.

    mio fit recipes/vita/digits/stage3.yaml
    python benchmarks/live.py runs/vita-digits-3 [--conversations 200] [--step 1.0] [--set KEY=VALUE]

In each, a voice that the model has not heard asks about a picture that it has not seen, and the answer is long. While
it is given, one of these begins at a random moment: another question about another picture, spoken or typed; noise or
tones; or talk that is not meant for the model. The stream is cut into utterances by voice activity, time is simulated,
and what comes out is compared with the records. A step takes so long that moments fall all over the answers. The last
line is one JSON object:

- `stopped`: of questions whose state token came while the old answer was given, the share after which nothing more of
  that answer came than within one step of the engine;
- `answered`: of questions that interrupt, the share whose answer is right; `answered_first` of those before them that
  were left to finish;
- `false_stops`: of noises during an answer, the share that stopped it; `false_stops_talk`: of talk;
- `weights`: bytes of all parameters in memory, over those of the model.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import torch
import yaml

import mio
from mio import Decoding
from mio.core.contract.plugins import PluginManager
from mio.core.generation.grammar import Need
from mio.core.generation.model import Model
from mio.core.generation.requests import Request
from mio.core.live import events
from mio.core.live.clock import SimulatedClock
from mio.core.live.events import SessionEvent
from mio.core.runs.run import Run
from mio.core.tokens.documents import plain_document

RATE, CHUNK = 8000, 0.1
LEAD = 0.3
"""Seconds of silence in front."""
LONG = 3
"""Words that the answer to the first question has at least."""
OPTIONS = {"max_tokens": 64, "voice": {"detector": "energy", "level": -60, "padding": 0.05}}
"""Beside the run's own: all that sounds reaches the model, where a detector that knows speech keeps noise from it."""
CORPORA = {"question": "picture_questions", "typed": "picture_questions", "noise": "noises", "talk": "remarks"}
"""Where what interrupts comes from."""


@dataclass
class Conversation:
    """What happened."""

    kind: str
    first: Mapping[str, Any]
    second: Mapping[str, Any]
    events: list[SessionEvent]

    def of(self, kind: str, query: int = -2) -> list[SessionEvent]:
        return [one for one in self.events if one.kind == kind and query in (-2, one.query)]

    def text(self, query: int) -> str:
        return "".join(one.text for one in self.of(events.TEXT, query)).strip()

    @property
    def decided(self) -> int | None:
        """Step of the state token of what interrupts, if that came before the first answer was over."""
        said = [one.step for one in self.of(events.CONTROL) if one.query > 0]
        done = [one.step for one in self.of(events.DONE, 0)]
        return said[0] if said and not (done and done[0] < said[0]) else None

    @property
    def interrupted(self) -> bool:
        return bool(self.of(events.INTERRUPTED, 0))

    @property
    def stopped(self) -> bool:
        """Whether the old answer ended with the state token, or one step behind it."""
        assert self.decided is not None
        given = [one.step for kind in (events.TEXT, events.MEDIA, events.DONE) for one in self.of(kind, 0)]
        return self.interrupted and max(given, default=0) <= self.decided + 1

    @property
    def answered(self) -> bool:
        last = max((one.query for one in self.events), default=0)
        return last > 0 and self.text(last) == self.second["answer"]


def stream(*pieces: tuple[float, np.ndarray], tail: float) -> Iterator[tuple[float, tuple[np.ndarray, int]]]:
    """A stream that holds samples at these times, as chunks with the time at which each is over."""
    end = max(start + len(samples) / RATE for start, samples in pieces) + tail
    whole = np.zeros(round(end * RATE), np.float32)
    for start, samples in pieces:
        place = round(start * RATE)
        whole[place : place + len(samples)] += samples
    size = round(CHUNK * RATE)
    for place in range(0, len(whole), size):
        chunk = whole[place : place + size]
        yield (place + len(chunk)) / RATE, (chunk, RATE)


def converse(
    model: Model,
    arguments: argparse.Namespace,
    options: Mapping[str, Any],
    kind: str,
    records: Sequence[Any],
    seed: int,
) -> Conversation:
    draw = Random(f"{kind}/{seed}/{arguments.seed}")
    first, second = records
    session = mio.Session(model, arguments.policy, options, clock=SimulatedClock(arguments.step), seed=seed)
    session.show("image", first["image"].data)
    asked = sound(first["question"])
    known = LEAD + len(asked) / RATE + 0.5
    moment = known + draw.uniform(0.1, arguments.spread)
    pieces = [(LEAD, asked)]
    if "image" in second:
        session.show("image", second["image"].data, moment)
    if kind == "typed":
        session.say(second["asked"], time=moment)
    else:
        pieces.append((moment, sound(second["question" if kind == "question" else "speech"])))
    for end, chunk in stream(*pieces, tail=1.0):
        session.push(chunk, end)
    session.end(end)
    return Conversation(kind, first, second, session.finish())


def sound(item: mio.Media) -> np.ndarray:
    samples, rate = item.data
    assert rate == RATE, f"{item.key} has {rate} samples a second"
    return samples


def records_of(model: Model, kind: str, count: int) -> list[tuple[Any, Any]]:
    """Pairs of a first question and what interrupts its answer, all held out."""
    sources = model.plugins.sources()
    firsts = sources["digits/picture_questions"][1]("test", {"length": 100 * count})
    seconds = sources[f"digits/{CORPORA[kind]}"][1]("test", {"length": count, "seed": 1})
    long = (one for index in range(len(firsts)) if len((one := firsts[index])["answer"].split()) >= LONG)
    return [(first, seconds[index]) for index, first in zip(range(count), long, strict=False)]


@dataclass
class Share:
    """How many of some."""

    right: int = 0
    of: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, right: bool, note: str = "") -> None:
        self.right, self.of = self.right + right, self.of + 1
        if not right and note:
            self.wrong.append(note)

    @property
    def value(self) -> float | None:
        return round(self.right / self.of, 4) if self.of else None


def measured(conversations: Sequence[Conversation]) -> dict[str, Share]:
    names = ("stopped", "answered", "answered_spoken", "answered_typed", "answered_first", "false_stops",
             "false_stops_talk", "heard")  # fmt: skip
    shares = {name: Share() for name in names}
    for one in conversations:
        effective = one.decided is not None and not (one.of(events.SILENCE) and not one.interrupted)
        if one.kind in ("question", "typed"):
            if effective:
                shares["stopped"].add(one.stopped)
            note = f"{one.second['asked']}: {one.second['answer']!r}, said {one.text(1)!r}"
            shares["answered"].add(one.answered, note)
            shares[f"answered_{'typed' if one.kind == 'typed' else 'spoken'}"].add(one.answered)
        elif one.of(events.HEARD, 1):
            shares["false_stops" if one.kind == "noise" else "false_stops_talk"].add(one.interrupted)
        if one.kind in ("noise", "talk"):
            shares["heard"].add(bool(one.of(events.HEARD, 1)))
        if one.of(events.DONE, 0):
            shares["answered_first"].add(one.text(0) == one.first["answer"])
    return shares


def parameter_bytes() -> int:
    """Of all parameters that exist in this process, each memory counted once."""
    storages = {}
    gc.collect()
    for one in gc.get_objects():
        if issubclass(type(one), torch.nn.Parameter) and not one.is_meta:
            storages[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    return sum(storages.values())


def step_seconds(model: Model) -> dict[str, float]:
    """Median seconds of a step of one sequence and of both, taken in turns."""
    engine, prompt = model.engine(2), model.renderer.prompt(plain_document(["three plus four"], []))
    asked = [Request(prompt, Decoding(), Need(), seed, 64) for seed in (0, 1)]
    tickets = [engine.submit(request) for request in asked]
    times: dict[str, list[float]] = {"one": [], "both": []}
    while len(times["both"]) < 50:
        for name, alone in (("one", True), ("both", False)):
            tickets = [one if one.finished is None else engine.submit(one.request) for one in tickets]
            tickets[1].paused = alone
            read = engine.rows.read_tokens
            start = time.perf_counter()
            engine.step()
            seconds = time.perf_counter() - start
            if engine.rows.read_tokens == read and len(engine.running) == 2:
                times[name].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("run")
    parser.add_argument("--conversations", type=int, default=200, help="of each kind of interruption")
    parser.add_argument("--step", type=float, default=1.0, help="seconds that a token takes in simulated time")
    parser.add_argument("--spread", type=float, default=8.0, help="seconds over which moments are spread")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="options of the conversation")
    parser.add_argument("--policy", default="", help="plugin whose policy is taken")
    parser.add_argument("--plugin", action="append", default=[], help="plugins that are not installed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wrong", type=int, default=0, help="wrong answers to print")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options: dict[str, Any] = json.loads(json.dumps(OPTIONS))
    for pair in arguments.set:
        *parents, last = pair.partition("=")[0].split(".")
        inner = options
        for name in parents:
            inner = inner.setdefault(name, {})
        inner[last] = yaml.safe_load(pair.partition("=")[2])

    model = Model.of(Run.open(arguments.run, PluginManager.discover(arguments.plugin)))
    began, conversations = time.perf_counter(), []
    for kind in CORPORA:
        pairs = records_of(model, kind, arguments.conversations)
        made = [converse(model, arguments, options, kind, pair, seed) for seed, pair in enumerate(pairs)]
        during = sum(one.decided is not None for one in made)
        print(f"{kind:8} {len(made)} conversations, {during} decided while the first answer was given")
        conversations += made
    seconds = time.perf_counter() - began
    shares = measured(conversations)
    for name, share in shares.items():
        print(f"{name:18} {share.right} of {share.of}")
        for note in share.wrong[: arguments.wrong]:
            print(f"    {note}")
    own = sum(parameter.numel() * parameter.element_size() for parameter in model.transformer.parameters())
    steps = step_seconds(model)
    result = {
        **{name: share.value for name, share in shares.items()},
        "n": {name: share.of for name, share in shares.items()},
        "weights": round(parameter_bytes() / own, 3),
        "ms_per_step": {name: round(1e3 * value, 2) for name, value in steps.items()},
        "both_over_one": round(steps["both"] / steps["one"], 2),
        "seconds": round(seconds, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
