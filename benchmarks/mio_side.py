"""mio's side of a comparison on a CPU: what `mio fit` does in a step of one forward pass."""

from __future__ import annotations

from typing import Any

OPTIMIZER = {"lr": 3e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
CLIP = 1.0


def settle() -> None:
    """What `mio fit` settles before it trains on a CPU. Called before torch is imported."""
    from mio.cli.threads import settle_threads

    settle_threads()
    from mio.core.training.heap import keep_freed_memory

    keep_freed_memory()


def made_module(shape: dict[str, Any], streams: int = 1) -> Any:
    """A `MioModule` of a shape (`vocabulary`, `width`, `layers`, `heads`, `kv_heads`, `ffn`), for so many streams."""
    import torch

    from mio.core.contract.backbone import TransformerConfig
    from mio.core.recipe.schema import OptimizerConfig, TrainConfig
    from mio.core.tokens.blocks import Block, Specials
    from mio.core.tokens.vocabulary import Vocabulary
    from mio.core.training.module import MioModule

    torch.manual_seed(0)
    text = Block(name="text", owner="text", kind="text", start=0, size=shape["vocabulary"])
    vocabulary = Vocabulary([text], "benchmark", Specials(0, 1, 2, 3, 4))
    config = TransformerConfig(
        width=shape["width"],
        layers=shape["layers"],
        heads=shape["heads"],
        kv_heads=shape["kv_heads"],
        ffn_width=shape["ffn"],
    )
    optimizer = OptimizerConfig(
        lr=OPTIMIZER["lr"], betas=list(OPTIMIZER["betas"]), weight_decay=OPTIMIZER["weight_decay"], clip=CLIP
    )
    names = tuple(f"benchmark/{index}/text" for index in range(streams))
    return MioModule(config, vocabulary, TrainConfig(optimizer=optimizer), names)


def train_on(module: Any, optimizer: Any, batch: Any, precision: str = "bf16") -> float:
    """One step, from a batch to new weights: float32 weights, products in `precision`. Returns the mean loss."""
    import torch

    module._elements = batch.weights.numel()
    scale = 1 / module._elements
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        total, nll, _ = module.loss_sum(batch, scale)
    torch.autograd.backward(total)
    module.statistics.add(batch, total.detach() / scale)
    module.loss_metrics.update(batch, nll)
    module.on_before_optimizer_step(optimizer)
    module.configure_gradient_clipping(optimizer)
    optimizer.step()
    optimizer.zero_grad()
    return float(total.detach() / scale / batch.weight)
