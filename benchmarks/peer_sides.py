"""The peers of a comparison, and their training steps on a CPU. Free of mio: litgpt lives in an environment of its own.

A specification holds a shape (`vocabulary`, `width`, `layers`, `heads`, `kv_heads`, `ffn`) and what the side may choose
(`train_step.SEARCH`): `precision`, `compile`, and `loss` or `attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mio_side import CLIP, OPTIMIZER
from workers import start_of_growth


def litgpt_config(spec: dict[str, Any], context: int, rows: int) -> Any:
    """litgpt's configuration of a shape with so many rows of embedding and head."""
    from litgpt import Config

    return Config(
        name="benchmark",
        block_size=context,
        vocab_size=spec["vocabulary"],
        padded_vocab_size=rows,
        n_layer=spec["layers"],
        n_head=spec["heads"],
        n_query_groups=spec["kv_heads"],
        n_embd=spec["width"],
        intermediate_size=spec["ffn"],
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        bias=False,
        parallel_residual=False,
        rotary_percentage=1.0,
    )


def litgpt_step(spec: dict[str, Any], context: int, batches: Iterator[Any]) -> Callable[[], float]:
    """litgpt's own model and losses under Fabric, as in its `pretrain.py`; AdamW fused, which it has on CUDA only.

    `batches` gives tokens, int64 `[rows, context + 1]`. The function that comes back does a step and returns its loss.
    """
    import torch
    from lightning.fabric import Fabric
    from litgpt import GPT
    from litgpt.utils import chunked_cross_entropy

    start_of_growth()
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu", devices=1, precision=spec["precision"])
    with fabric.init_module():
        model: Any = GPT(litgpt_config(spec, context, spec["vocabulary"]))
    if spec["compile"]:
        model = torch.compile(model)
    model = fabric.setup(model)
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), **OPTIMIZER, fused=True))
    head_chunk = 128 if spec["loss"] == "chunked head" else 0
    loss_chunk = 0 if spec["loss"] == "whole" else 128

    def step() -> float:
        tokens = next(batches)
        inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        # the logits get no name here, which would keep them through the backward pass
        loss = chunked_cross_entropy(model(inputs, lm_head_chunk_size=head_chunk), targets, chunk_size=loss_chunk)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def transformers_step(spec: dict[str, Any], context: int, batches: Iterator[dict[str, Any]]) -> Callable[[], float]:
    """`LlamaForCausalLM` with its own loss.

    `batches` gives what the model is called with. The function that comes back does a step and returns its loss.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    start_of_growth()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=spec["vocabulary"],
        hidden_size=spec["width"],
        intermediate_size=spec["ffn"],
        num_hidden_layers=spec["layers"],
        num_attention_heads=spec["heads"],
        num_key_value_heads=spec["kv_heads"],
        max_position_embeddings=context,
        tie_word_embeddings=False,
        use_cache=False,
        attn_implementation=spec["attention"],
    )
    mixed = spec["precision"] == "bf16-mixed"
    model = LlamaForCausalLM(config).to(torch.float32 if mixed else torch.bfloat16).train()
    optimizer = torch.optim.AdamW(model.parameters(), **OPTIMIZER, fused=True)
    called: Any = torch.compile(model) if spec["compile"] else model

    def step() -> float:
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = called(**batch).loss
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step
