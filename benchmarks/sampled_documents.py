"""Answers drawn at a high temperature: every one of them must parse and decode.

    python benchmarks/sampled_documents.py [RUN ...] [--documents 10000] [--temperature 1.5] [--seed 0]

The models: each RUN, as it was trained and with weights drawn at random, and two small models with random weights, one
with codes in all four layouts, an encoder, parts and control tokens of all actions, one whose media a head makes and an
encoder reads back. Each run as it was trained gives so many documents, and all random weights together as many. Each
document has a prompt, an output (any, or one of the modalities), a budget, limits, settings and a seed of its own, and
they are answered by one engine per model. A document passes if its tokens parse without anything missing or left over,
keep to the budget, hold what was asked for, and the media are decoded. Last line: one JSON object, `failures` of them;
exit code 1 if there are any.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
TOYS = ROOT / "tests/core"
sys.path.append(str(TOYS))

from mio import Codes, Control, Decoding, Media, UserError  # noqa: E402
from mio.core.contract.backbone import TransformerConfig  # noqa: E402
from mio.core.contract.discovery import discover, local  # noqa: E402
from mio.core.contract.plugins import PluginManager  # noqa: E402
from mio.core.distributed.ranks import Ranks  # noqa: E402
from mio.core.generation.answer import read_answer  # noqa: E402
from mio.core.generation.model import Model  # noqa: E402
from mio.core.generation.prompt import prompt_document  # noqa: E402
from mio.core.generation.replicas import Replicas, decoding_copy  # noqa: E402
from mio.core.generation.requests import FAILED, Request, Ticket  # noqa: E402
from mio.core.model.transformer import Transformer  # noqa: E402
from mio.core.recipe.data_schema import DataConfig, PackingConfig  # noqa: E402
from mio.core.recipe.schema import LossConfig, Recipe  # noqa: E402
from mio.core.runs.run import Run  # noqa: E402
from mio.core.tokens.codecs import Codecs  # noqa: E402
from mio.core.tokens.parsing import parse_tokens  # noqa: E402
from mio.core.tokens.rendering import Renderer  # noqa: E402
from mio.core.tokens.vocabulary import Vocabulary  # noqa: E402

ROWS, LONGEST = 64, 160
RANDOM = "random weights"
WORDS = ("seven", "please", "a picture of three", "count on: one, two", "<2> is", "")


def toy(name: str, options: dict[str, Any], seed: int) -> Model:
    """A small model with random weights and a plugin of the tests."""
    candidates = [*discover(), local(f"{name}={TOYS / name}.py")]
    plugins = PluginManager(candidates).enable({"text": {"tokenizer": "bytes"}, name: options})
    codecs = Codecs(plugins)
    vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), plugins.control_tokens())
    config = TransformerConfig(width=32, layers=2, heads=2, kv_heads=1, init_std=0.3)
    made = Transformer(config, vocabulary.rows, codecs.networks).eval()
    made.reset_parameters(seed)
    copied = decoding_copy(made, torch.device("cpu"), torch.float32)
    recipe = Recipe(name=name, data=DataConfig(form="chat", packing=PackingConfig(context=256)))
    renderer = Renderer(vocabulary, codecs, LossConfig())
    return Model(recipe, plugins, vocabulary, codecs, renderer, Path("runs/made"), lambda: copied)


def drawn_again(run: Run, seed: int) -> Model:
    """The model of a run with random weights."""
    source = run.transformer
    made = Transformer(source.config, source.embedding.num_embeddings, source.networks).eval()
    made.reset_parameters(seed)
    copied = decoding_copy(made, torch.device("cpu"), torch.float32)[0], Replicas(Ranks())
    return replace(Model.of(run, "cpu", "fp32"), copy=lambda: copied)


@dataclass
class Checked:
    """What the documents of one model were."""

    documents: int = 0
    tokens: int = 0
    parts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


def requests_of(model: Model, count: int, temperature: float, seed: int) -> Iterator[tuple[Request, str]]:
    """So many requests, each with what it asks for."""
    chance = random.Random(seed)
    context = model.recipe.data.packing.context
    outputs = ["", ""]
    for name in model.codecs.modalities:
        try:
            model.need(name, only=True, decoding=Decoding())
            outputs.append(name)
        except UserError:
            continue  # it is only read
    for number in range(count):
        output = outputs[number % len(outputs)]
        decoding = Decoding(
            temperature=temperature, media_temperature=temperature,
            most=0 if output else chance.choice((0, 0, 1, 2)),
            top_p=chance.choice((1.0, 1.0, 0.95)), top_k=chance.choice((0, 0, 50)), min_p=chance.choice((0, 0, 0.02)),
            repetition_penalty=chance.choice((1.0, 1.0, 1.2)), guidance=chance.choice((0.0, 0.0, 0.0, 2.0)), steps=2,
        )  # fmt: skip
        need = model.need(output, only=chance.random() < 0.5, decoding=decoding)
        document = prompt_document(model, [chance.choice(WORDS) or "?"], output)
        prompt = model.renderer.prompt(document)
        least, room = model.grammar.least(need), context + 1 - len(prompt.tokens)
        budget = min(chance.choice((least, least + 20, LONGEST)), room)
        yield Request(prompt, decoding, need, chance.randrange(1 << 60), max(budget, least)), output


def check(model: Model, ticket: Ticket, output: str, found: Checked) -> str:
    """What is wrong with an answer; empty if nothing is."""
    request, given, finished = ticket.request, ticket.answer, ticket.finished
    assert finished is not None
    found.reasons[finished.reason] += 1
    if finished.reason == FAILED:
        return f"failed: {finished.error}"
    found.tokens += len(given.tokens)
    if len(given.tokens) + 1 > request.budget and finished.reason != "control":
        return f"{len(given.tokens)} tokens and the stop token, of {request.budget}"
    parsed = parse_tokens(given.tokens, model.vocabulary, model.codecs.text, given.made)
    if parsed.problems or parsed.unfinished:
        return f"does not parse: {parsed.problems or parsed.unfinished}"
    need, spans = request.need, 0
    for part in parsed.parts:
        if isinstance(part, Codes | Media):
            spans += part.modality == need.modality
            found.parts[part.modality] += 1
            if need.only and part.modality != need.modality:
                return f"has a `{part.modality}`, and nothing but `{need.modality}` was asked for"
        else:
            found.parts["control" if isinstance(part, Control) else "text"] += 1
    if need.modality and not need.least <= spans <= (need.most or spans):
        return f"{spans} spans of `{need.modality}`, of {need.least} to {need.most}"
    answer = read_answer(given, model.vocabulary, model.codecs, output)
    if output and need.modality and not answer.media(output):
        return f"no `{output}` was decoded"
    return ""


def sampled(model: Model, count: int, temperature: float, seed: int) -> Checked:
    """Documents of one model."""
    found, start = Checked(), time.process_time()
    asked = list(requests_of(model, count, temperature, seed))
    engine = model.engine(min(ROWS, count), max(len(one.prompt.tokens) + one.budget for one, _ in asked))
    tickets = [engine.submit(request) for request, _ in asked]
    engine.run()
    for number, (ticket, (_, output)) in enumerate(zip(tickets, asked, strict=True)):
        found.documents += 1
        try:
            problem = check(model, ticket, output, found)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            found.failures.append(f"document {number} ({output or 'any'}, seed {seed}): {problem}")
    found.seconds = time.process_time() - start
    return found


def models(runs: list[str], seed: int) -> Iterator[tuple[str, Model]]:
    """Each model with its name."""
    manager = PluginManager.discover()
    for folder in runs:
        run = Run.open(folder, manager)
        yield run.recipe.name, Model.of(run, "cpu", "fp32")
        yield f"{run.recipe.name}, {RANDOM}", drawn_again(run, seed)
    yield f"all layouts, {RANDOM}", toy("signals", {}, seed)
    yield f"heads, {RANDOM}", toy("tiles", {}, seed)
    yield f"heads with positions, {RANDOM}", toy("tiles", {"own": True}, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--temperature", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)
    drawn = -(-options.documents // (len(options.runs) + 3))
    told: dict[str, Any] = {}
    failures = 0
    for name, model in models(options.runs, options.seed):
        found = sampled(model, drawn if RANDOM in name else options.documents, options.temperature, options.seed)
        failures += len(found.failures)
        told[name] = {
            "documents": found.documents, "failures": len(found.failures), "tokens": found.tokens,
            "parts": dict(sorted(found.parts.items())), "reasons": dict(sorted(found.reasons.items())),
            "cpu_seconds": round(found.seconds, 1),
        }  # fmt: skip
        print(f"{name}: {json.dumps(told[name])}", flush=True)
        for failure in found.failures[:5]:
            print(f"  {failure}", flush=True)
    documents = sum(one["documents"] for one in told.values())
    print(json.dumps({"documents": documents, "failures": failures, "temperature": options.temperature, **told}))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
