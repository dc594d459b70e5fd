"""The plan of a recipe: memory, traffic, work, time and cost of a step, and what to change where it does not fit."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.networks import Networks
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError
from mio.core.model.flops import flops_per_token
from mio.core.model.parallel import mesh_shape
from mio.core.planning.hardware import COMMUNICATOR, CONTEXT, GIB, MATRIX_WORKSPACE, RESERVE
from mio.core.planning.request import Request
from mio.core.planning.simulate import SimulatedStep, StepLayout, simulate
from mio.core.planning.step_time import Speed, StepTime, sent, step_time
from mio.core.planning.trace import Collective, Compute
from mio.core.planning.vocabulary import expected_vocabulary, known_ids
from mio.core.recipe.distillation import distilled_groups
from mio.core.recipe.model import transformer_config
from mio.core.recipe.schema import Recipe
from mio.core.recipe.steps import StepShape
from mio.core.stages.check import check_training, split_problems
from mio.core.tokens.codecs import Codecs
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
    """Settings that fit where the recipe's do not, or that spare something where they do."""

    changes: tuple[str, ...]
    """`key=value` arguments."""
    memory: int
    """Bytes of one device."""
    seconds: float
    """Of a step."""
    sent: float
    """Bytes that one device sends in a step."""


@dataclass(frozen=True)
class RecipePlan:
    """What one stage takes. Bytes, seconds, FLOPs and US dollars."""

    recipe: Recipe
    request: Request
    model: TransformerConfig
    vocabulary: Vocabulary
    mesh: tuple[int, int, int]
    """Devices that hold copies, that share parameters, and that share matrices."""
    experts: int
    """Of those that share parameters, devices that have a layer's experts between them."""
    layout: StepLayout
    simulated: SimulatedStep
    memory: Memory
    traffic: Mapping[tuple[str, str], float]
    """Bytes that one device sends in a step, by (kind of collective, `within` or `between` nodes)."""
    time: StepTime
    model_flops: float
    """Of a step over all devices, by the usual count: nothing that is recomputed."""
    device_flops: float
    """Of a step on one device, all that it computes."""
    mfu: float
    known: int = 0
    """Ids that the stage starts with."""
    networks: Networks = field(default_factory=Networks)
    """What reads media, by modality."""
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


def plan(stages: Sequence[Recipe], manager: PluginManager, request: Request | None = None) -> RecipePlan:
    """The plan of the last of a chain's `stages`, as `mio.core.recipe.chain.chain` gives them.

    Reads no data and no tokenizer's weights, and needs neither GPUs nor memory for the model. The process must not be
    part of a `torch.distributed` group. Raises `UserError` for hardware that is not known, and `RecipeError` for a
    recipe that does not fit it.
    """
    recipe = stages[-1]
    request = (request or Request()).resolve(recipe.runtime)
    check_training(recipe, manager.enable(recipe.plugins), request.world)
    vocabulary = expected_vocabulary(stages, manager, request.text_tokens)
    known = known_ids(stages, manager, request.text_tokens)
    networks = Codecs(manager.enable(recipe.plugins)).networks
    first = _planned(recipe, request, transformer_config(recipe, manager), vocabulary, known, networks)
    return replace(first, alternatives=tuple(_sparing(first) if first.memory.fits else _alternatives(first)))


def _planned(
    recipe: Recipe,
    request: Request,
    model: TransformerConfig,
    vocabulary: Vocabulary,
    known: int,
    networks: Networks,
) -> RecipePlan:
    train, runtime, world, per_node = recipe.train, recipe.runtime, request.world, request.gpus_per_node
    gpu, network = request.hardware
    mesh = mesh_shape(runtime, world, per_node)
    shape = StepShape.of(train, world // runtime.tensor_parallel)
    context = recipe.data.packing.context
    media = request.shares(list(dict.fromkeys((*networks.encoders, *networks.heads))))
    taught = distilled_groups(recipe)
    share = max(
        sum(point.ratios.get(group, 0.0) for group in taught) / (sum(point.ratios.values()) or 1.0)
        for point in recipe.mixture.points()
    )
    layout = StepLayout(world, per_node, context, shape.micro_rows, shape.micro_batches, request.document, media, share)
    simulated = simulate(model, vocabulary, train, runtime, layout, known, networks)
    experts = runtime.expert_parallel
    groups = sum(size > 1 for size in mesh) + (world > 1) + (experts > 1) + (1 < experts < mesh[1])
    memory = Memory(
        {kind: size for kind, size in simulated.at_peak.items() if size},
        simulated.peak_phase,
        round(RESERVE * simulated.peak),
        CONTEXT + MATRIX_WORKSPACE + groups * COMMUNICATOR,
        int(gpu.memory * GIB),
    )
    traffic: dict[tuple[str, str], float] = defaultdict(float)
    device_flops = 0.0
    for times, events in simulated.passes:
        for event in events:
            if isinstance(event, Compute):
                device_flops += times * event.flops
            elif isinstance(event, Collective):
                for where, size in vars(sent(event, per_node)).items():
                    if size:
                        traffic[event.kind, where] += times * size
    peak = gpu.bf16 if train.precision == "bf16" else gpu.fp32
    time = step_time(simulated.passes, Speed(peak * request.efficiency, gpu, network, per_node))
    lengths = [length for row in layout.lengths() for length in row]
    mean = sum(length * length for length in lengths) / sum(lengths)
    model_flops = flops_per_token(model, vocabulary.size, mean, train.lora.rank > 0) * train.rows * context
    passes = shape.micro_batches * world // runtime.tensor_parallel
    model_flops += passes * sum(load.flops for load in simulated.encoders)
    model_flops += passes * sum(load.flops for load in (*simulated.heads, *simulated.adapters))
    return RecipePlan(
        recipe=recipe,
        request=request,
        model=model,
        vocabulary=vocabulary,
        mesh=mesh,
        experts=experts,
        layout=layout,
        simulated=simulated,
        memory=memory,
        traffic=traffic,
        time=time,
        model_flops=model_flops,
        device_flops=device_flops,
        mfu=model_flops / (time.total * world * peak),
        known=known,
        networks=networks,
    )


Settings = dict[str, Any]
"""Values by key, as in `key=value`."""
_EXPERT_PARALLEL = "runtime.expert_parallel"


def _sparing(plan: RecipePlan) -> Iterator[Alternative]:
    """Of a recipe that fits: experts split over as many devices of a node as can be, where they are not split."""
    if plan.experts == 1 and (ladder := _more_expert_parallel(plan)):
        yield from filter(None, [_tried(plan, {_EXPERT_PARALLEL: ladder[-1]})])


def _alternatives(plan: RecipePlan) -> Iterator[Alternative]:
    """The least change of each kind that fits; where no one change is enough, the first of several that do together."""
    single = [next(filter(None, (_tried(plan, one) for one in ladder)), None) for ladder in _single_changes(plan)]
    several = (_tried(plan, settings) for settings in _many_changes(plan))
    yield from filter(None, single) if any(single) else islice(filter(None, several), 1)


def _single_changes(plan: RecipePlan) -> Iterator[list[Settings]]:
    """Changes of one kind each, the smallest first."""
    kinds = ("none", "selective", "full")
    stronger = kinds[kinds.index(plan.recipe.runtime.activation_checkpointing) + 1 :]
    yield from ([{key: value}] for key, value in _more_sharding(plan).items())
    yield [{_EXPERT_PARALLEL: devices} for devices in _more_expert_parallel(plan)]
    yield [{"runtime.activation_checkpointing": kind} for kind in stronger]
    yield [{"train.micro_rows": rows} for rows in _fewer_rows(plan)]


def _many_changes(plan: RecipePlan) -> Iterator[Settings]:
    """Changes of all kinds together, from those that cost little to those that cost much."""
    fullest: Settings = {"runtime.activation_checkpointing": "full", **_more_sharding(plan)}
    if ladder := _more_expert_parallel(plan):
        fullest[_EXPERT_PARALLEL] = ladder[-1]
    yield fullest
    for rows in _fewer_rows(plan):
        yield {**fullest, "train.micro_rows": rows}
    for devices in (2, 4, 8):
        if devices > plan.recipe.runtime.tensor_parallel:
            yield {**fullest, "train.micro_rows": 1, "runtime.tensor_parallel": devices}
    for factor in (2, 4, 8, 16, 32, 64):
        yield {**fullest, "train.micro_rows": 1, "world": plan.request.world * factor}


def _more_sharding(plan: RecipePlan) -> Settings:
    runtime = plan.recipe.runtime
    full: Settings = {} if runtime.sharding == "full" else {"runtime.sharding": "full"}
    return full if runtime.reshard else {**full, "runtime.reshard": True}


def _more_expert_parallel(plan: RecipePlan) -> list[int]:
    """Devices of a node that could have the experts between them, above those of now, the fewest first."""
    if plan.recipe.runtime.sharding == "none":
        return []
    most = min(plan.request.gpus_per_node // plan.mesh[2], plan.model.experts)
    shared = math.gcd(plan.model.experts, plan.mesh[1])
    return [devices for devices in range(plan.experts + 1, most + 1) if shared % devices == 0]


def _fewer_rows(plan: RecipePlan) -> list[int]:
    """Rows of a forward pass below those of now, into which a device's share divides, the most first."""
    now = plan.layout.micro_rows
    share = now * plan.layout.micro_batches
    return [rows for rows in range(now - 1, 0, -1) if share % rows == 0]


def _tried(plan: RecipePlan, settings: Settings) -> Alternative | None:
    """The plan with other settings, None if it does not fit or is none."""
    recipe, request = plan.recipe, plan.request
    for key, value in settings.items():
        if key == "world":
            request = replace(request, world=value, gpus_per_node=min(8, value))
        else:
            section, _, name = key.partition(".")
            recipe = replace(recipe, **{section: replace(getattr(recipe, section), **{name: value})})
    if any(split_problems(plan.model, recipe.runtime.tensor_parallel)):
        return None
    try:
        other = _planned(recipe, request, plan.model, plan.vocabulary, plan.known, plan.networks)
    except RecipeError:
        return None
    if not other.memory.fits:
        return None
    changes = tuple(f"{key}={str(value).lower()}" for key, value in settings.items())
    return Alternative(changes, other.memory.total, other.time.total, sum(other.traffic.values()))
