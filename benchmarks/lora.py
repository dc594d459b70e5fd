"""Memory and time of a training step with adapters beside those of the whole model, of the shape of SmolLM-135M.

    python benchmarks/lora.py [--rows 2] [--length 512] [--rank 16] [--steps 3] [--new 1024]

All train on the same rows with bf16 products and AdamW, with `--new` vocabulary rows that the stage adds: trained as a
whole, with LoRA and with DoRA on every linear layer, and with the rows of the embedding masked (an optimizer rule with
`rows`) in place of rows of their own. Each runs in its own process; memory is the growth of the peak resident set
(`ru_maxrss`) since before the model was built. The last line is one JSON object with the ratios to the whole model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from loss_memory import peak_mib
from mio_side import train_on

KINDS = ("full", "lora", "dora", "masked")


def made_module(options: argparse.Namespace) -> Any:
    """A module in the shape of SmolLM-135M, made as `mio fit` makes it."""
    import torch

    from mio.core.contract.backbone import TransformerConfig
    from mio.core.recipe.schema import LoraConfig, OptimizerConfig, RuleConfig, TrainConfig
    from mio.core.tokens.blocks import Block, Specials
    from mio.core.tokens.vocabulary import Vocabulary
    from mio.core.training.module import MioModule

    config = TransformerConfig(
        width=576, layers=30, heads=9, kv_heads=3, ffn_width=1536, tied_embeddings=True, rope_theta=1e5
    )
    text = Block(name="text", owner="text", kind="text", start=0, size=49152)
    blocks = [text, Block(name="new", owner="new", kind="codes", start=text.size, size=options.new, pattern="<n{}>")]
    vocabulary = Vocabulary(blocks, "benchmark", Specials(0, 1, 2, 3, 4))
    lora = LoraConfig(rank=0 if options.kind == "full" else options.rank, dora=options.kind == "dora")
    optimizer = OptimizerConfig()
    if options.kind == "masked":
        lora.rows, lora.train = [], ["embedding.weight"]
        optimizer.rules = {"new": RuleConfig("embedding.weight", rows=["new"])}
    train = TrainConfig(optimizer=optimizer, lora=lora)
    with torch.device("meta"):
        module = MioModule(config, vocabulary, train, ("rows",), known=text.size)
    module.transformer.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.02, generator=generator)
    return module


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Within this process: MiB of growth, parameters in millions, and seconds of the fastest step after the first."""
    import torch

    from mio.core.data.batch import Batch
    from mio.core.data.document_mask import DocumentMask
    from mio.core.training.heap import keep_freed_memory

    keep_freed_memory()
    with torch.autocast("cpu", torch.bfloat16):  # loads the kernels, whose own memory is not the step's
        torch.nn.functional.linear(torch.randn(64, 64), torch.randn(64, 64, requires_grad=True)).sum().backward()
    before = peak_mib()
    module = made_module(options)
    optimizer = module.configure_optimizers()["optimizer"]
    shape, seconds = (options.rows, options.length), []
    for step in range(options.steps):
        tokens = torch.randint(module.vocabulary.size, shape, generator=torch.Generator().manual_seed(step))
        lengths = [[options.length]] * options.rows
        batch = Batch(
            tokens,
            tokens.roll(-1, 1),
            torch.ones(shape),
            torch.arange(options.length).expand(shape),
            torch.zeros(shape, dtype=torch.int64),
            DocumentMask.from_lengths(lengths, options.length),
            lengths,
            float(tokens.numel()),
            [[(0, 0)]] * options.rows,
        )
        start = time.perf_counter()
        train_on(module, optimizer, batch)
        seconds.append(time.perf_counter() - start)
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return {"mib": round(peak_mib() - before, 1), "trained": round(trained / 1e6, 2), "seconds": min(seconds[1:])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--new", type=int, default=1024)
    parser.add_argument("--kind", choices=KINDS, help="measure one of them, in this process")
    options = parser.parse_args()
    if options.kind:
        print(json.dumps(measure(options)))
        return
    found: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        command = [sys.executable, __file__, *sys.argv[1:], "--kind", kind]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[kind] = json.loads(output.splitlines()[-1])
        one = found[kind]
        figures = f"{one['trained']:8.2f} M trained {one['mib']:8.1f} MiB {one['seconds']:8.2f} s a step"
        print(f"{kind:8} {figures}", flush=True)
    full = found["full"]
    memory = {kind: round(one["mib"] / full["mib"], 3) for kind, one in found.items()}
    seconds = {kind: round(one["seconds"] / full["seconds"], 3) for kind, one in found.items()}
    print(json.dumps({"memory_ratio": memory, "time_ratio": seconds}))


if __name__ == "__main__":
    main()
