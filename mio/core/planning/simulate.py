"""One optimizer step of a recipe's real module, simulated: what it holds, sends and computes on rank 0.

The module is the one that trains, spread by the function that spreads it in training, and goes through a step in the
order of Lightning's loop. Rank 0 holds the largest part of every split parameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.networks import Networks
from mio.core.data.batch import Batch
from mio.core.data.document_mask import DocumentMask
from mio.core.data.plan import Changes
from mio.core.data.taught import taught_documents
from mio.core.distributed.regions import local
from mio.core.model.networks import buffers
from mio.core.model.parallel import compiles, data_parallel, device_mesh, parallelise
from mio.core.model.transformer import Transformer
from mio.core.planning.compiled import partition_blocks
from mio.core.planning.encoders import EncoderLoad, encoder_loads, run_as_on_gpu
from mio.core.planning.fake_gpu import META, fake_gpu, fake_ranks
from mio.core.planning.heads import HeadLoad, NetworkLoad, adapter_loads, head_loads, seen_by_rows
from mio.core.planning.trace import ACTIVATIONS, GRADIENTS, LOSS, OPTIMIZER, PARAMETERS, Event, Trace
from mio.core.recipe.model import network_of
from mio.core.recipe.schema import RuntimeConfig, TrainConfig
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.module import MioModule
from mio.core.training.teacher import Teacher, frozen_copy

_ROUNDING = 512
"""Bytes that the allocator of GPUs rounds up to."""


@dataclass(frozen=True)
class StepLayout:
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
    media: Mapping[str, float] = field(default_factory=dict)
    """Share of the positions that encoders fill, by modality."""
    taught: float = 0.0
    """Share of the documents that are learnt from the probabilities of what the stage starts from."""

    def lengths(self) -> list[list[int]]:
        """Documents of one forward pass, row by row."""
        length = self.document or self.context
        whole, rest = divmod(self.context, length)
        return [[length] * whole + [rest] * bool(rest)] * self.micro_rows

    def pairs(self, window: int) -> int:
        """Pairs of a query and a key that see each other in one forward pass; a window of 0 is none."""
        total = 0
        for length in (length for row in self.lengths() for length in row):
            seen = min(window, length) if window else length
            total += seen * (seen + 1) // 2 + (length - seen) * seen
        return total


@dataclass(frozen=True)
class SimulatedStep:
    """What a step does on rank 0."""

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
    parts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Bytes that stay from step to step by part of the model, `transformer` and each network of a plugin, and kind."""
    encoders: tuple[EncoderLoad, ...] = ()
    """What encoders do in a forward pass."""
    heads: tuple[HeadLoad, ...] = ()
    adapters: tuple[NetworkLoad, ...] = ()


class Loads(NamedTuple):
    """What networks of plugins do in a forward pass."""

    encoders: tuple[EncoderLoad, ...] = ()
    heads: tuple[HeadLoad, ...] = ()
    adapters: tuple[NetworkLoad, ...] = ()


def network_loads(transformer: Transformer, layout: StepLayout) -> Loads:
    """Of a transformer on the meta device that is not spread yet. Raises `PluginError` for a network that does not run
    without values."""
    positions = layout.micro_rows * layout.context
    encoders = encoder_loads(transformer, layout.media, positions)
    return Loads(
        encoders,
        head_loads(transformer, encoders, layout.media, positions),
        adapter_loads(transformer, encoders, layout.micro_rows, layout.context),
    )


def simulate(
    model: TransformerConfig,
    vocabulary: Vocabulary,
    train: TrainConfig,
    runtime: RuntimeConfig,
    layout: StepLayout,
    known: int | None = None,
    networks: Networks | None = None,
) -> SimulatedStep:
    """Runs a step on GPUs that are not here. Needs no memory to speak of, and no process group to be there.

    Raises `RecipeError` where devices, rows or rules do not fit each other, `PluginError` for an encoder that does not
    run without values.
    """
    with fake_ranks(layout.world), fake_gpu():
        with META:
            module = MioModule(model, vocabulary, train, ("",), known=known, networks=networks)
        loads = network_loads(module.transformer, layout)
        run_as_on_gpu(module.transformer, torch.bfloat16 if train.precision == "bf16" else None)
        mesh = device_mesh(runtime, layout.world, layout.per_node, META.type)
        module.replicas = data_parallel(mesh)[1]
        whole = not model.experts and runtime.tensor_parallel == 1 and runtime.activation_checkpointing == "none"
        with META:
            teacher = frozen_copy(model, vocabulary.rows, train.precision) if layout.taught else None
        if teacher is not None:
            run_as_on_gpu(teacher, torch.bfloat16 if train.precision == "bf16" else None)
            known = vocabulary.size if known is None else known
            module.teacher = Teacher(teacher, known, train.distillation.share)
        for transformer in filter(None, (module.transformer, teacher)):
            if whole and compiles(runtime, "cuda"):
                partition_blocks(transformer)
            parallelise(transformer, mesh, replace(runtime, compile="none"), train.precision)
        return observe(module, layout, META, Trace(_ROUNDING), loads)


def observe(
    module: MioModule,
    layout: StepLayout,
    device: torch.device,
    trace: Trace,
    loads: Loads | None = None,
) -> SimulatedStep:
    """Runs two steps of a module that is spread already, and records the second. The first makes the optimizer's state
    and fills `DTensor`'s cache of shardings, which are propagated by running operations on whole tensors."""
    transformer, windows = module.transformer, module.model_config.windows
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in transformer.parameters()]
    trace.pairs = sum(map(layout.pairs, windows)) / len(windows)
    module._trainer = SimpleNamespace(accumulate_grad_batches=layout.micro_batches)  # type: ignore[assignment]

    def forward_is_over(*_: Any) -> None:
        trace.keep_working(ACTIVATIONS)
        trace.activations = trace.held()[ACTIVATIONS]
        trace.phase = "loss"

    transformer.register_forward_hook(forward_is_over)
    sections = {1: ["last"], 2: ["first", "last"]}.get(layout.micro_batches, ["first", "middle", "last"])
    teacher = [module.teacher.transformer] if module.teacher is not None else []
    with trace.watch():
        for one in (transformer, *teacher):
            one.to_empty(device=device)
        optimizer = module.configure_optimizers()["optimizer"]
        for passes in (["last"], sections):
            trace.forget_peak()
            _step(module, optimizer, trace, layout, passes, loads)
            with torch.no_grad():
                trace.label((*transformer.parameters(), *transformer.buffers()), PARAMETERS)
                trace.label((parameter for one in teacher for parameter in one.parameters()), PARAMETERS)
                trace.label((p.grad for p in transformer.parameters() if p.grad is not None), GRADIENTS)
                trace.label(_states(optimizer), OPTIMIZER)
                trace.label(module.average.tensors.values() if module.average is not None else (), OPTIMIZER)
                trace.label(module.pull.starts.values() if module.pull is not None else (), OPTIMIZER)
    held = trace.held()
    times = {"middle": layout.micro_batches - 2}
    return SimulatedStep(
        sum(size for size, _ in sizes),
        sum(size for size, trainable in sizes if trainable),
        trace.activations,
        {kind: held[kind] for kind in (PARAMETERS, GRADIENTS, OPTIMIZER)},
        trace.peak,
        trace.peak_phase,
        trace.at_peak(),
        dict(trace.peaks),
        tuple((times.get(section, 1), trace.events[section]) for section in (*sections, "optimizer")),
        _parts(transformer, optimizer),
        *(loads or Loads()),
    )


def _step(
    module: MioModule,
    optimizer: Any,
    trace: Trace,
    layout: StepLayout,
    sections: Sequence[str],
    loads: Loads | None = None,
) -> None:
    """One optimizer step, in the order of Lightning's closure: gradients live until the next loss is known."""
    device = next(module.parameters()).device
    for index, section in enumerate(sections):
        trace.section, trace.phase = section, "forward"
        batch = _batch(layout, device, last=index == len(sections) - 1)
        encoders, heads, _ = loads or Loads()
        mapped = [name for name, one in module.transformer.networks.encoders.items() if getattr(one, "maps", None)]
        for load in encoders:
            seen = seen_by_rows(load, layout.micro_rows, device) if load.modality in mapped else None
            batch.items[load.modality] = replace(load.batch(device), seen=seen)
        batch.made = {load.name.partition(".")[2]: load.batch(device) for load in heads}
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
    module.after_step(optimizer, module.train_config.steps)


def _batch(layout: StepLayout, place: torch.device, last: bool) -> Batch:
    lengths = layout.lengths()
    taught = None
    if layout.taught:
        documents = sum(map(len, lengths))
        chosen = iter([True] * math.ceil(layout.taught * documents) + [False] * documents)
        taught = taught_documents([[next(chosen) for _ in row] for row in lengths], lengths, layout.context, (0,))
        taught = taught.change(lambda tensor: tensor.to(place))
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
        taught=taught,
    )


def _parts(transformer: Transformer, optimizer: Any) -> dict[str, dict[str, int]]:
    """Bytes on this device of parameters, gradients and the optimizer's state, by part of the model."""
    parts: dict[str, dict[str, int]] = {}
    for name, parameter in transformer.named_parameters():
        part = parts.setdefault(network_of(name) or "transformer", dict.fromkeys((PARAMETERS, GRADIENTS, OPTIMIZER), 0))
        part[PARAMETERS] += local(parameter).nbytes
        part[GRADIENTS] += 0 if parameter.grad is None else local(parameter.grad).nbytes
        states = optimizer.state[parameter].values() if parameter in optimizer.state else ()
        part[OPTIMIZER] += sum(local(state).nbytes for state in states if isinstance(state, Tensor))
    for name, buffer in buffers(transformer).items():
        parts[network_of(name)][PARAMETERS] += buffer.nbytes
    return parts


def _states(optimizer: Any) -> Iterator[Tensor]:
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))
