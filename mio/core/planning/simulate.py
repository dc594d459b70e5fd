"""One optimizer step of a recipe's real module, simulated: what it holds, sends and computes on rank 0.

The module is the one that trains, spread by the function that spreads it in training, and goes through a step in the
order of Lightning's loop. Rank 0 holds the largest part of every split parameter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from mio.core.contract.backbone import TransformerConfig
from mio.core.data.batch import Batch
from mio.core.data.document_mask import DocumentMask
from mio.core.data.plan import Changes
from mio.core.model.parallel import compiles, data_parallel, device_mesh, parallelise, recompute
from mio.core.planning.compiled import partition_blocks
from mio.core.planning.standin import pretended_cpu, pretended_gpu, pretended_ranks
from mio.core.planning.trace import (
    ACTIVATIONS,
    GRADIENTS,
    LOSS,
    OPTIMIZER,
    PARAMETERS,
    Event,
    Trace,
)
from mio.core.recipe.schema import RuntimeConfig, TrainConfig
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.module import MioModule

_GPU_ROUNDING, _CPU_ROUNDING = 512, 1
"""Bytes that the allocators round up to."""


@dataclass(frozen=True)
class Layout:
    """Where a step runs and what it is cut into."""

    world: int
    """Devices in all."""
    per_node: int
    """Devices of a node."""
    context: int
    """Positions of a row."""
    micro_rows: int
    """Rows of one forward pass of one device."""
    micro_batches: int
    """Forward passes of one device in a step."""
    document: int = 0
    """Positions of a document; 0: a row is one document."""
    device: str = "gpu"
    """`gpu`, or `cpu` for the program as it runs on CPUs."""

    def lengths(self) -> list[list[int]]:
        """Documents of one forward pass, row by row."""
        length = self.document or self.context
        whole, rest = divmod(self.context, length)
        return [[length] * whole + [rest] * bool(rest)] * self.micro_rows


@dataclass(frozen=True)
class Simulated:
    """What a step does on rank 0."""

    mesh: tuple[int, int, int]
    """Devices that hold copies, that share parameters, and that share matrices."""
    replicas: int
    """Devices that see different rows."""
    parameters: int
    """Of the whole model."""
    trainable: int
    activations: int
    """Bytes that the forward pass of the transformer leaves for its backward pass."""
    held: dict[str, int]
    """Bytes that stay from step to step, by kind."""
    peak: int
    """Bytes of all tensors at the step's highest point."""
    peak_phase: str
    at_peak: dict[str, int]
    """Bytes at that point, by kind."""
    peaks: dict[str, int]
    """Highest point of each phase."""
    passes: tuple[tuple[int, list[Event]], ...]
    """(how often, events) of the step's sections in order: first pass, passes in the middle, last pass, optimizer."""


def simulate(
    model: TransformerConfig, vocabulary: Vocabulary, train: TrainConfig, runtime: RuntimeConfig, layout: Layout
) -> Simulated:
    """Runs a step without the hardware. Needs no memory to speak of, and no process group to be there.

    Raises `RecipeError` where devices, rows or rules do not fit each other.
    """
    gpu = layout.device == "gpu"
    many = gpu or layout.world > 1
    pairs = sum(_pairs(layout.lengths(), window) for window in model.windows) / model.layers
    trace = Trace(_GPU_ROUNDING if gpu else _CPU_ROUNDING, pairs)
    with contextlib.ExitStack() as stack:
        if many:
            stack.enter_context(pretended_ranks(layout.world))
        if gpu:
            stack.enter_context(pretended_gpu())
        with torch.device("meta"):
            module = MioModule(model, vocabulary, train, ("",))
        parameters = sum(p.numel() for p in module.parameters())
        trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
        shape = (1, 1, 1)
        if many:
            mesh = device_mesh(runtime, layout.world, layout.per_node, "cpu")
            shape = (mesh["replicate"].size(), mesh["shard"].size(), mesh["tensor"].size())
            module.replicas = data_parallel(mesh)[1]
            compiled = gpu and compiles(runtime, "cuda") and not model.experts and shape[2] == 1
            if compiled and runtime.activation_checkpointing == "none":
                partition_blocks(module.transformer)
            parallelise(module.transformer, mesh, replace(runtime, compile="none"), train.precision)
        else:
            recompute(module.transformer, runtime.activation_checkpointing)
        if not gpu:
            stack.enter_context(pretended_cpu(trace.born))
        held = _run(module, trace, layout)
    sections = trace.events
    middle = [(layout.micro_batches - 2, sections["middle"])] if layout.micro_batches > 2 else []
    first = [(1, sections["first"])] if layout.micro_batches > 1 else []
    return Simulated(
        shape,
        module.replicas,
        parameters,
        trainable,
        trace.activations,
        {kind: held[kind] for kind in (PARAMETERS, GRADIENTS, OPTIMIZER)},
        trace.peak,
        trace.peak_phase,
        trace.at_peak(),
        dict(trace.peaks),
        (*first, *middle, (1, sections["last"]), (1, sections["optimizer"])),
    )


def _pairs(lengths: Sequence[Sequence[int]], window: int) -> float:
    """Pairs of a query and a key that see each other."""
    total = 0
    for length in (length for row in lengths for length in row):
        seen = min(window, length) if window else length
        total += seen * (seen + 1) // 2 + (length - seen) * seen
    return float(total)


def _run(module: MioModule, trace: Trace, layout: Layout) -> dict[str, int]:
    """Two steps: the first makes the optimizer's state, the second is the one that counts. Returns what stays."""
    place = torch.device("meta" if layout.device == "gpu" else "cpu")
    module._trainer = SimpleNamespace(accumulate_grad_batches=layout.micro_batches)  # type: ignore[assignment]
    transformer = module.transformer
    passes = {1: ["last"], 2: ["first", "last"]}.get(layout.micro_batches, ["first", "middle", "last"])

    def forward_is_over(*_: Any) -> None:
        trace.keep_working(ACTIVATIONS)
        trace.activations = trace.held()[ACTIVATIONS]
        trace.phase = "loss"

    transformer.register_forward_hook(forward_is_over)
    with trace.watch():
        transformer.to_empty(device=place)
        optimizer = module.configure_optimizers()["optimizer"]
        for sections in (["last"], passes):
            trace.forget_peak()
            _step(module, optimizer, trace, layout, place, sections)
            with torch.no_grad():
                trace.label(transformer.parameters(), PARAMETERS)
                trace.label((p.grad for p in transformer.parameters() if p.grad is not None), GRADIENTS)
                trace.label(_states(optimizer), OPTIMIZER)
    return trace.held()


def _step(
    module: MioModule, optimizer: Any, trace: Trace, layout: Layout, place: torch.device, sections: Sequence[str]
) -> None:
    """One optimizer step, in the order of Lightning's closure: gradients live until the next loss is known."""
    for index, section in enumerate(sections):
        trace.section, trace.phase = section, "forward"
        batch = _batch(layout, place, last=index == len(sections) - 1)
        autocast = place.type == "cpu" and module.train_config.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
            total = module.training_step(batch, index)
        trace.keep_working(LOSS)
        if index == 0:
            optimizer.zero_grad()
        trace.phase = "backward"
        (total / layout.micro_batches).backward()
        del total, batch
    trace.section, trace.phase = "optimizer", "optimizer"
    module.on_before_optimizer_step(optimizer)
    module.configure_gradient_clipping(optimizer)
    optimizer.step()


def _batch(layout: Layout, place: torch.device, last: bool) -> Batch:
    lengths = layout.lengths()
    shape = (layout.micro_rows, layout.context)
    tokens, targets, positions, stream = (torch.zeros(shape, dtype=torch.int64, device=place) for _ in range(4))
    return Batch(
        tokens,
        targets,
        torch.ones(shape, device=place),
        positions,
        stream,
        DocumentMask.from_lengths(lengths, layout.context).change(lambda tensor: tensor.to(place)),
        lengths,
        float(layout.micro_rows * layout.context),
        [[(0, 0)] * len(row) for row in lengths],
        changes=Changes() if last else None,
    )


def _states(optimizer: Any) -> Iterator[Tensor]:
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))
