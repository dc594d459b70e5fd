"""The plan of a recipe: memory, traffic, work, time and cost of a step, and what to change where it does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError
from mio.core.model.flops import flops_per_token
from mio.core.planning.hardware import COMMUNICATOR, CONTEXT, GIB, MATRIX_WORKSPACE, RESERVE
from mio.core.planning.request import Request
from mio.core.planning.simulate import Layout, Simulated, simulate
from mio.core.planning.step_time import Speed, StepTime, sent, step_time
from mio.core.planning.trace import Collective, Compute
from mio.core.planning.vocabulary import expected_vocabulary
from mio.core.recipe.model import transformer_config
from mio.core.recipe.schema import Recipe
from mio.core.recipe.steps import StepShape
from mio.core.stages.check import check_training, split_problems
from mio.core.tokens.vocabulary import Vocabulary


@dataclass(frozen=True)
class Memory:
    """Bytes of one device, the one that needs the most."""

    at_peak: Mapping[str, int]
    """Of tensors at the step's highest point, by kind."""
    phase: str
    """Part of the step in which that point lies."""
    reserve: int
    """What the allocator holds beyond it."""
    context: int
    """What libraries take: the context, workspaces, buffers of collectives."""
    capacity: int
    """What the device has."""

    @property
    def peak(self) -> int:
        """Of tensors alone: torch's `max_memory_allocated`."""
        return sum(self.at_peak.values())

    @property
    def total(self) -> int:
        return self.peak + self.reserve + self.context

    @property
    def fits(self) -> bool:
        return self.total <= self.capacity


@dataclass(frozen=True)
class Alternative:
    """Settings that fit where the recipe's do not."""

    changes: tuple[str, ...]
    """`key=value` arguments."""
    memory: int
    """Bytes of one device."""
    seconds: float
    """Of a step."""


@dataclass(frozen=True)
class Plan:
    """What one stage takes. Bytes, seconds, FLOPs and US dollars."""

    recipe: Recipe
    request: Request
    model: TransformerConfig
    vocabulary: Vocabulary
    layout: Layout
    simulated: Simulated
    memory: Memory
    traffic: Mapping[tuple[str, str], float]
    """Bytes that one device sends in a step, by (kind of collective, `within` or `between` nodes)."""
    time: StepTime
    model_flops: float
    """Of a step over all devices, by the usual count: nothing that is recomputed."""
    device_flops: float
    """Of a step on one device, all that it computes."""
    mfu: float
    alternatives: tuple[Alternative, ...] = ()

    @property
    def tokens(self) -> int:
        """Positions of one step."""
        return self.recipe.train.rows * self.layout.context

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.time.total

    @property
    def days(self) -> float:
        """Of all steps of the stage."""
        return self.recipe.train.steps * self.time.total / 86400

    @property
    def cost(self) -> float:
        return self.days * 24 * self.request.world * self.request.price


def plan(stages: Sequence[Recipe], manager: PluginManager, request: Request | None = None) -> Plan:
    """The plan of the last of a chain's `stages`, as `mio.core.recipe.chain.chain` gives them.

    Reads no data and no tokenizer's weights, and needs neither GPUs nor memory for the model. The process must not be
    part of a `torch.distributed` group. Raises `UserError` for hardware that is not known, and `RecipeError` for a
    recipe that does not fit it.
    """
    recipe = stages[-1]
    asked = (request or Request()).resolve(recipe.runtime)
    check_training(recipe, manager.enable(recipe.plugins), asked.world)
    vocabulary = expected_vocabulary(stages, manager, asked.text_tokens)
    model = transformer_config(recipe, manager)
    made = _planned(recipe, asked, model, vocabulary)
    if made.memory.fits:
        return made
    return replace(made, alternatives=tuple(_alternatives(made)))


def _planned(recipe: Recipe, request: Request, model: TransformerConfig, vocabulary: Vocabulary) -> Plan:
    runtime, world = recipe.runtime, request.world
    gpu, network = request.hardware
    shape = StepShape.of(recipe.train, world // runtime.tensor_parallel)
    context = recipe.data.packing.context
    layout = Layout(world, request.gpus_per_node, context, shape.micro_rows, shape.micro_batches, request.document)
    simulated = simulate(model, vocabulary, recipe.train, runtime, layout)
    groups = sum(size > 1 for size in simulated.mesh) + (world > 1)
    memory = Memory(
        {kind: size for kind, size in simulated.at_peak.items() if size},
        simulated.peak_phase,
        round(RESERVE * simulated.peak),
        CONTEXT + MATRIX_WORKSPACE + groups * COMMUNICATOR,
        int(gpu.memory * GIB),
    )
    traffic: dict[tuple[str, str], float] = {}
    device_flops = 0.0
    for times, events in simulated.passes:
        for event in events:
            if isinstance(event, Compute):
                device_flops += times * event.flops
            elif isinstance(event, Collective):
                for name, size in vars(sent(event, request.gpus_per_node)).items():
                    if size:
                        traffic[event.kind, name] = traffic.get((event.kind, name), 0.0) + times * size
    peak = gpu.bf16 if recipe.train.precision == "bf16" else gpu.fp32
    time = step_time(simulated.passes, Speed(peak * request.efficiency, gpu, network, request.gpus_per_node))
    lengths = [length for row in layout.lengths() for length in row]
    mean = sum(length * length for length in lengths) / sum(lengths)
    model_flops = flops_per_token(model, vocabulary.size, mean) * recipe.train.rows * context
    mfu = model_flops / (time.total * world * peak)
    return Plan(
        recipe, request, model, vocabulary, layout, simulated, memory, traffic, time, model_flops, device_flops, mfu
    )


Changes = dict[str, Any]
"""Values by key, as in `key=value`."""


def _alternatives(made: Plan) -> Iterator[Alternative]:
    """The least change of each kind that fits; where no one change is enough, the first of several that do together."""
    found = False
    for ladder in _single_changes(made):
        for changes in ladder:
            alternative = _tried(made, changes)
            if alternative is not None:
                found = True
                yield alternative
                break
    if not found:
        yield from islice(filter(None, (_tried(made, changes) for changes in _many_changes(made))), 1)


def _single_changes(made: Plan) -> Iterator[list[Changes]]:
    """Changes of one kind each, the smallest first."""
    runtime = made.recipe.runtime
    if runtime.sharding != "full":
        yield [{"runtime.sharding": "full"}]
    if not runtime.reshard:
        yield [{"runtime.reshard": True}]
    kinds = ("none", "selective", "full")
    stronger = kinds[kinds.index(runtime.activation_checkpointing) + 1 :]
    yield [{"runtime.activation_checkpointing": kind} for kind in stronger]
    yield [{"train.micro_rows": rows} for rows in _fewer_rows(made)]


def _many_changes(made: Plan) -> Iterator[Changes]:
    """Changes of all kinds together, from those that cost little to those that cost much."""
    fullest: Changes = {"runtime.activation_checkpointing": "full"}
    if made.recipe.runtime.sharding != "full":
        fullest["runtime.sharding"] = "full"
    if not made.recipe.runtime.reshard:
        fullest["runtime.reshard"] = True
    yield fullest
    for rows in _fewer_rows(made):
        yield {**fullest, "train.micro_rows": rows}
    for devices in (2, 4, 8):
        if devices > made.recipe.runtime.tensor_parallel:
            yield {**fullest, "train.micro_rows": 1, "runtime.tensor_parallel": devices}
    for factor in (2, 4, 8, 16, 32, 64):
        yield {**fullest, "train.micro_rows": 1, "world": made.request.world * factor}


def _fewer_rows(made: Plan) -> list[int]:
    """Rows of a forward pass below those of now, into which a device's share divides, the most first."""
    now = made.layout.micro_rows
    share = now * made.layout.micro_batches
    return [rows for rows in range(now - 1, 0, -1) if share % rows == 0]


def _tried(made: Plan, changes: Changes) -> Alternative | None:
    """The plan with changes, None if it does not fit or is none."""
    recipe, request = made.recipe, made.request
    for key, value in changes.items():
        if key == "world":
            request = replace(request, world=value, gpus_per_node=min(8, value))
        else:
            section, _, name = key.partition(".")
            recipe = replace(recipe, **{section: replace(getattr(recipe, section), **{name: value})})
    try:
        problems = list(split_problems(made.model, recipe.runtime.tensor_parallel))
        other = None if problems else _planned(recipe, request, made.model, made.vocabulary)
    except RecipeError:
        return None
    if other is None or not other.memory.fits:
        return None
    told = tuple(f"{key}={str(value).lower()}" for key, value in changes.items())
    return Alternative(told, other.memory.total, other.time.total)
