"""The training steps that `gpu.py` compares, each for a process of its own. Free of what one side's environment lacks.

Every side but `plan` gets a specification (`gpu.Case.spec`) and returns `step_seconds`, `tokens` and `loss` of a step,
`parameters`, `flops_per_token` (that its masking needs), `peak_flops` of the device and `memory_bytes`, the most that
was allocated at once (0 on a CPU).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

ADAMW = {"lr": 3e-5, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
CLIP = 1.0


def settings(spec: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """mio's transformer, vocabulary, and sections `train` and `runtime` of the recipe."""
    from mio.core.contract.backbone import TransformerConfig
    from mio.core.recipe.schema import OptimizerConfig, RuntimeConfig, TrainConfig
    from mio.core.tokens.blocks import Block, Specials
    from mio.core.tokens.vocabulary import Vocabulary

    config = TransformerConfig(
        width=spec["width"],
        layers=spec["layers"],
        heads=spec["heads"],
        kv_heads=spec["kv_heads"],
        ffn_width=spec["ffn"],
    )
    text = Block(name="text", owner="text", kind="text", start=0, size=spec["vocabulary"])
    train = TrainConfig(steps=spec["warm_up"] + spec["steps"], rows=spec["rows"], micro_rows=spec["micro_rows"])
    train.optimizer = OptimizerConfig(
        lr=ADAMW["lr"], betas=list(ADAMW["betas"]), weight_decay=ADAMW["weight_decay"], clip=CLIP
    )
    runtime = RuntimeConfig(
        accelerator=spec["device"],
        activation_checkpointing=spec["checkpointing"],
        compile="auto" if spec["compiled"] else "none",
    )
    return config, Vocabulary([text], "benchmark", Specials(0, 1, 2, 3, 4)), train, runtime


def plan(spec: dict[str, Any]) -> dict[str, Any]:
    """`memory_bytes` of the step that `mio` measures, from the planner."""
    from simulated_cpu import simulate_cpu

    from mio.core.planning.simulate import StepLayout, simulate

    layout = StepLayout(1, 1, spec["context"], spec["micro_rows"], spec["rows"] // spec["micro_rows"])
    simulated = (simulate if spec["device"] == "cuda" else simulate_cpu)(*settings(spec), layout)
    return {"memory_bytes": simulated.peak}


def mio(spec: dict[str, Any]) -> dict[str, Any]:
    """The step as `mio.core.training.loop` builds it, driven by Lightning."""
    import torch
    from lightning import Callback, Trainer
    from mixed_rows import batches, packed_lengths, span
    from torch.utils.data import DataLoader, IterableDataset

    from mio.core.distributed.regions import local
    from mio.core.model.flops import flops_per_token
    from mio.core.model.parallel import data_parallel, device_mesh, parallelise
    from mio.core.model.transformer import Transformer
    from mio.core.training.callbacks import Metrics
    from mio.core.training.loop import quieten_lightning
    from mio.core.training.module import MioModule
    from mio.core.training.strategy import ManyDevices

    quieten_lightning()
    device = _start(spec)
    config, vocabulary, train, runtime = settings(spec)
    steps = train.steps
    mesh = device_mesh(runtime, 1, 1, spec["device"])

    def spread(transformer: Transformer) -> None:
        parallelise(transformer, mesh, runtime, train.precision)
        transformer.to_empty(device=device)
        with torch.no_grad():  # `reset_parameters` draws on a CPU, which takes a minute for 7 B
            for parameter in transformer.parameters():
                local(parameter).normal_(0, 0.02) if parameter.dim() > 1 else local(parameter).fill_(1)

    with torch.device("meta"):
        module = MioModule(config, vocabulary, train, ("benchmark/rows/text",), spread)
    module.replicas = data_parallel(mesh)[1]
    lengths = [packed_lengths(spec["rows"], spec["context"], seed) for seed in range(steps)]

    class Rows(IterableDataset):
        def __len__(self) -> int:
            return steps * spec["rows"] // spec["micro_rows"]

        def __iter__(self) -> Iterator[Any]:
            for seed, of_step in enumerate(lengths):
                yield from batches(of_step, spec["context"], spec["micro_rows"], spec["vocabulary"], seed)

    class Clock(Callback):
        ends: list[float]

        def on_train_start(self, *_: Any) -> None:
            self.ends = [_now(device)]

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, index: int) -> None:  # noqa: ARG002
            if batch.ends_step:
                self.ends.append(_now(device))

    clock = Clock()
    trainer = Trainer(
        accelerator=spec["device"],
        strategy=ManyDevices(1),
        devices=1,
        precision="bf16-mixed",
        max_steps=steps,
        max_epochs=-1,
        accumulate_grad_batches=spec["rows"] // spec["micro_rows"],
        callbacks=[Metrics(10, dict), clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    loader = DataLoader(Rows(), batch_size=None, num_workers=0, pin_memory=spec["device"] == "cuda")
    trainer.fit(module, loader)
    assert module.totals is not None
    found = {
        "step_seconds": [b - a for a, b in zip(clock.ends, clock.ends[1:], strict=False)][spec["warm_up"] :],
        "tokens": sum(sum(map(sum, of_step)) for of_step in lengths[spec["warm_up"] :]) / spec["steps"],
        "loss": module.totals.loss,
        "parameters": sum(p.numel() for p in module.parameters()),
        "flops_per_token": flops_per_token(
            config, vocabulary.rows, span([row for of_step in lengths[spec["warm_up"] :] for row in of_step])
        ),
        "peak_flops": spec["peak_flops"],
        "memory_bytes": _memory(device),
    }
    torch.distributed.destroy_process_group()
    return found


def litgpt(spec: dict[str, Any]) -> dict[str, Any]:
    """litgpt's model and loss as its `pretrain.py` uses them: bfloat16 throughout, the whole model compiled."""
    import torch
    from lightning.fabric import Fabric
    from litgpt import GPT
    from litgpt.utils import chunked_cross_entropy
    from peer_sides import litgpt_config

    fabric = Fabric(accelerator=spec["device"], devices=1, precision="bf16-true")
    with fabric.init_module(empty_init=False):
        model: Any = GPT(litgpt_config(spec, spec["context"], -(-spec["vocabulary"] // 64) * 64))
    if spec["compiled"]:
        model = torch.compile(model)
    model = fabric.setup(model)
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), **ADAMW, fused=True))
    passes = spec["rows"] // spec["micro_rows"]

    def step() -> Any:
        for index, (inputs, targets) in enumerate(_concatenated(spec, passes)):
            with fabric.no_backward_sync(model, enabled=index < passes - 1):
                loss = chunked_cross_entropy(model(inputs.to(fabric.device)), targets.to(fabric.device), chunk_size=128)
                fabric.backward(loss / passes)
        fabric.clip_gradients(model, optimizer, max_norm=CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return _timed(step, spec, fabric.device, model)


def torchtitan(spec: dict[str, Any]) -> dict[str, Any]:
    """torchtitan's Llama with its own sharding, compilation, loss and clipping; attention over whole rows."""
    import torch
    from torchtitan.components.loss import cross_entropy_loss
    from torchtitan.config.job_config import Compile
    from torchtitan.distributed.utils import clip_grad_norm_
    from torchtitan.models.llama3 import Transformer, TransformerModelArgs
    from torchtitan.models.llama3.infra.parallelize import apply_compile, apply_fsdp

    device = _start(spec)
    arguments = TransformerModelArgs(
        dim=spec["width"],
        n_layers=spec["layers"],
        n_heads=spec["heads"],
        n_kv_heads=spec["kv_heads"],
        vocab_size=-(-spec["vocabulary"] // 64) * 64,
        max_seq_len=spec["context"],
    )
    with torch.device("meta"):
        model = Transformer(arguments)
    hidden = model.layers["0"].feed_forward.w1.out_features
    assert hidden == spec["ffn"], f"the FFN of {spec['ffn']} is {hidden} by torchtitan's rounding"
    loss_of = cross_entropy_loss
    if spec["compiled"]:
        apply_compile(model, Compile(enable=True))
        loss_of = torch.compile(cross_entropy_loss)
    mesh = torch.distributed.init_device_mesh(spec["device"], (1,))
    apply_fsdp(model, mesh, torch.bfloat16, torch.float32, pp_enabled=False)
    model.to_empty(device=device)
    with torch.no_grad():
        model.init_weights(buffer_device=device)
    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW, fused=True)
    passes = spec["rows"] // spec["micro_rows"]

    def step() -> Any:
        for inputs, targets in _concatenated(spec, passes):
            loss = loss_of(model(inputs.to(device)), targets.to(device)) / (spec["rows"] * spec["context"])
            torch.autograd.backward(loss)
        clip_grad_norm_(list(model.parameters()), CLIP, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach() * passes

    found = _timed(step, spec, device, model)
    torch.distributed.destroy_process_group()
    return found


SIDES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "mio": mio,
    "plan": plan,
    "litgpt": litgpt,
    "torchtitan": torchtitan,
}


def _start(spec: dict[str, Any]) -> Any:
    """The device, with a process group of this process alone."""
    import torch
    from torch._C._distributed_c10d import HashStore

    backend = "cpu:gloo,cuda:nccl" if spec["device"] == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    return torch.device("cuda", 0) if spec["device"] == "cuda" else torch.device("cpu")


def _concatenated(spec: dict[str, Any], passes: int) -> list[tuple[Any, Any]]:
    """Inputs and targets of a step, full rows."""
    import torch

    shape = (spec["micro_rows"], spec["context"] + 1)
    tokens = [torch.randint(spec["vocabulary"], shape) for _ in range(passes)]
    return [(row[:, :-1].contiguous(), row[:, 1:].contiguous()) for row in tokens]


def _timed(step: Callable[[], Any], spec: dict[str, Any], device: Any, model: Any) -> dict[str, Any]:
    for _ in range(spec["warm_up"]):
        step()
    seconds = []
    loss = None
    for _ in range(spec["steps"]):
        start = _now(device)
        loss = step()
        seconds.append(_now(device) - start)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() > 1 and "emb" not in name)
    matrices -= sum(p.numel() for name, p in model.named_parameters() if name.endswith("wte.weight"))
    return {
        "step_seconds": seconds,
        "tokens": spec["rows"] * spec["context"],
        "loss": float(loss),
        "parameters": sum(p.numel() for p in model.parameters()),
        "flops_per_token": 6.0 * matrices + 6.0 * spec["layers"] * spec["width"] * spec["context"],
        "peak_flops": spec["peak_flops"],
        "memory_bytes": _memory(device),
    }


def _now(device: Any) -> float:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _memory(device: Any) -> int:
    import torch

    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
