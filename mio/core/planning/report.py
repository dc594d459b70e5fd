"""A plan for people, as tables, and for programs, as plain values."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mio.core.planning.encoders import EncoderLoad
from mio.core.planning.hardware import GIB
from mio.core.planning.heads import HeadLoad, NetworkLoad
from mio.core.planning.plan import Alternative, RecipePlan


def as_values(plan: RecipePlan) -> dict[str, Any]:
    """The plan as JSON holds it."""
    request, memory, time = plan.request, plan.memory, plan.time
    gpu, network = request.hardware
    replicate, shard, tensor = plan.mesh
    return {
        "recipe": plan.recipe.name,
        "world": request.world,
        "gpus_per_node": request.gpus_per_node,
        "gpu": request.gpu,
        "network": request.network,
        "mesh": {"replicate": replicate, "shard": shard, "tensor": tensor, "experts": plan.experts},
        "parameters": plan.simulated.parameters,
        "trainable": plan.simulated.trainable,
        "vocabulary": {"size": plan.vocabulary.size, "rows": plan.vocabulary.rows},
        "step": {
            "rows": plan.recipe.train.rows,
            "context": plan.layout.context,
            "tokens": plan.tokens,
            "micro_rows": plan.layout.micro_rows,
            "micro_batches": plan.layout.micro_batches,
        },
        **_networks(plan),
        "memory": {
            "fits": memory.fits,
            "capacity_gib": _gib(memory.capacity),
            "total_gib": _gib(memory.total),
            "peak_gib": _gib(memory.peak),
            "peak_in": memory.phase,
            "reserve_gib": _gib(memory.reserve),
            "context_gib": _gib(memory.context),
            "at_peak_gib": {kind: _gib(size) for kind, size in memory.at_peak.items()},
            "held_gib": {kind: _gib(size) for kind, size in plan.simulated.held.items()},
            "phases_gib": {phase: _gib(size) for phase, size in plan.simulated.peaks.items()},
        },
        "traffic_bytes": {f"{kind}, {where}": round(size) for (kind, where), size in sorted(plan.traffic.items())},
        "flops": {"model": plan.model_flops, "per_device": plan.device_flops},
        "time": {
            "step_seconds": round(time.total, 4),
            "compute_seconds": round(time.compute, 4),
            "exposed_seconds": round(time.exposed, 4),
            "fastest_seconds": round(time.fastest, 4),
            "slowest_seconds": round(time.slowest, 4),
            "tokens_per_second": round(plan.tokens_per_second),
            "mfu": round(plan.mfu, 4),
        },
        "stage": {
            "steps": plan.recipe.train.steps,
            "tokens": plan.recipe.train.steps * plan.tokens,
            "days": round(plan.days, 3),
            "gpu_hours": round(plan.days * 24 * request.world, 1),
            "cost_usd": round(plan.cost),
        },
        "assumed": {
            "efficiency": request.efficiency,
            "price_usd": request.price,
            "document": request.document or plan.layout.context,
            "gpu": gpu.label,
            "network": network.label,
        },
        "alternatives": [
            {
                "changes": list(one.changes),
                "total_gib": _gib(one.memory),
                "step_seconds": round(one.seconds, 4),
                "sent_bytes": round(one.sent),
            }
            for one in plan.alternatives
        ],
    }


def _networks(plan: RecipePlan) -> dict[str, Any]:
    """Those of plugins, if the recipe has any."""
    if not plan.networks:
        return {}
    found = plan.simulated
    return {
        "encoders": [_encoder_values(plan, load) for load in found.encoders],
        "networks": [_network_values(plan, load) for load in (*found.adapters, *found.heads)],
        "parts_gib": {part: {kind: _gib(size) for kind, size in sizes.items()} for part, sizes in found.parts.items()},
    }


def _network_values(plan: RecipePlan, load: NetworkLoad) -> dict[str, Any]:
    """Adapters of a plugin, or a head, in a step over all devices."""
    passes = _passes(plan)
    items = {"items": passes * load.items} if load.items else {}
    one = {"name": load.name, "parameters": load.parameters, "trained": load.trained}
    return {**one, **items, "flops": passes * load.flops}


def _passes(plan: RecipePlan) -> int:
    """Forward passes of a step over all devices that see different rows."""
    return plan.layout.micro_batches * plan.request.world // plan.recipe.runtime.tensor_parallel


def _encoder_values(plan: RecipePlan, load: EncoderLoad) -> dict[str, Any]:
    """An encoder in a step over all devices."""
    passes = _passes(plan)
    return {
        "modality": load.modality,
        "parameters": load.parameters,
        "trained": load.trained,
        "items": passes * load.items,
        "positions": passes * load.items * load.positions,
        "flops": passes * load.flops,
    }


def as_tables(plan: RecipePlan) -> RenderableType:
    """The plan to print."""
    parts: list[RenderableType] = [_head(plan), _memory(plan)]
    parts += [_parts(plan)] if plan.networks else []
    parts.append(_verdict(plan))
    if plan.alternatives:
        parts.append(_alternatives(plan))
    if plan.traffic:
        parts.append(_traffic(plan))
    parts += [_time(plan), _assumed(plan)]
    return Group(*(Group(part, Text()) for part in parts[:-1]), parts[-1])


def _head(plan: RecipePlan) -> Table:
    replicate, shard, tensor = plan.mesh
    gpu, _ = plan.request.hardware
    step, train = plan.layout, plan.recipe.train
    spread = [f"parameters over {shard}"] if shard > 1 else []
    spread += [f"experts over {plan.experts} of them"] if plan.experts > 1 else []
    spread += [f"{replicate} copies"] if replicate > 1 else []
    spread += [f"matrices over {tensor}"] if tensor > 1 else []
    whole, trained = plan.simulated.parameters, plan.simulated.trainable
    again = {"none": "nothing", "selective": "what is cheap", "full": "all"}
    table = _pairs(plan.recipe.name)
    _add(
        table,
        ("devices", f"{plan.request.world} x {gpu.label}, {plan.request.gpus_per_node} per node"),
        ("spread", ", ".join(spread) or "whole model on one device"),
        (
            "parameters",
            f"{whole / 1e9:.3f} G{f', {trained / 1e9:.3f} G trained' if trained < whole else ''}; "
            f"{plan.vocabulary.size:,} ids in {plan.vocabulary.rows:,} rows",
        ),
        (
            "step",
            f"{train.rows:,} rows x {step.context:,} = {plan.tokens:,} tokens; a device takes {step.micro_batches} x "
            f"{step.micro_rows} rows, {train.precision}, recomputes "
            f"{again[plan.recipe.runtime.activation_checkpointing]}",
        ),
    )
    for load in plan.simulated.encoders:
        one = _encoder_values(plan, load)
        moves = {0: "frozen", load.parameters: "trained"}.get(load.trained, f"{load.trained / 1e6:,.1f} M trained")
        span = f"{load.positions} positions" if load.positions > 1 else "one position"
        text = (
            f"{load.parameters / 1e6:,.1f} M parameters, {moves}; a step has {one['items']:,} items of {span}, "
            f"{one['positions'] / plan.tokens:.1%} of all, {one['flops']:.3g} FLOPs"
        )
        _add(table, (f"encoder of {load.modality}", text))
    for other in (*plan.simulated.adapters, *plan.simulated.heads):
        moves = {0: "frozen", other.parameters: "trained"}.get(other.trained, f"{other.trained / 1e6:,.1f} M trained")
        items = f" learns {_passes(plan) * other.items:,} items in" if other.items else ""
        text = f"{other.parameters / 1e6:,.1f} M parameters, {moves}; a step{items or ' takes'} "
        text += f"{_passes(plan) * other.flops:.3g} FLOPs"
        own = other.name.partition(".")[2]
        _add(table, (f"head of {own}" if isinstance(other, HeadLoad) else f"adapters of {own}", text))
    return table


def _parts(plan: RecipePlan) -> Table:
    name, unit = _unit(plan)
    table = Table(f"what stays on a device, {name}", box=None, pad_edge=False)
    kinds = ("parameters", "gradients", "optimizer state")
    for kind in kinds:
        table.add_column(kind, justify="right")
    for part, sizes in plan.simulated.parts.items():
        table.add_row(part, *(f"{sizes[kind] / unit:.2f}" for kind in kinds))
    return table


def _memory(plan: RecipePlan) -> Table:
    name, unit = _unit(plan)
    table = Table(f"memory of a device, {name}", box=None, pad_edge=False)
    table.add_column("at the peak", justify="right")
    table.add_column("from step to step", justify="right")
    for kind, size in plan.memory.at_peak.items():
        held = plan.simulated.held.get(kind)
        table.add_row(kind, f"{size / unit:.2f}", f"{held / unit:.2f}" if held is not None else "")
    rows = (
        (f"tensors, highest in the {_phase(plan.memory.phase)}", plan.memory.peak),
        ("allocator's reserve (assumed)", plan.memory.reserve),
        ("context and libraries (assumed)", plan.memory.context),
        ("total", plan.memory.total),
    )
    for label, size in rows:
        table.add_row(label, f"{size / unit:.2f}", "", style="bold" if label == "total" else "")
    return table


def _unit(plan: RecipePlan) -> tuple[str, int]:
    """Of memory, in which a small model's is not all 0.00."""
    return ("GiB", GIB) if plan.memory.peak >= GIB else ("MiB", GIB // 2**10)


def _verdict(plan: RecipePlan) -> Text:
    memory, gpu = plan.memory, plan.request.hardware[0]
    share = memory.total / memory.capacity
    if memory.fits:
        return Text(f"fits: {share:.0%} of the {gpu.memory:g} GiB of a {gpu.label}", style="green")
    kept = sum(plan.simulated.held.values())
    rest = {kind: size for kind, size in memory.at_peak.items() if kind not in plan.simulated.held}
    largest = max(rest, key=lambda kind: rest[kind], default="")
    text = (
        f"does not fit: {memory.total / GIB:.1f} GiB, and a {gpu.label} has {gpu.memory:g}. What stays from step to "
        f"step takes {kept / GIB:.1f} GiB" + (f", {largest} {rest[largest] / GIB:.1f}" if largest else "")
    )
    if not plan.alternatives:
        text += ". Nothing that was tried fits: take another GPU or a smaller model"
    return Text(text, style="red")


def _alternatives(plan: RecipePlan) -> Table:
    table = Table("what else fits" if plan.memory.fits else "what fits", box=None, pad_edge=False)
    for name in ("GiB", "seconds a step", "GB sent"):
        table.add_column(name, justify="right")
    own = Alternative(("as it is",), plan.memory.total, plan.time.total, sum(plan.traffic.values()))
    rows = sorted(plan.alternatives, key=lambda one: one.seconds)
    for one in [own, *rows] if plan.memory.fits else rows:
        figures = f"{one.memory / GIB:.1f}", f"{one.seconds:.2f}", f"{one.sent / 1e9:.1f}"
        table.add_row(" ".join(one.changes), *figures)
    return table


def _traffic(plan: RecipePlan) -> Table:
    table = Table("sent by a device in a step, GB", box=None, pad_edge=False)
    for where in ("within a node", "between nodes"):
        table.add_column(where, justify="right")
    for kind in dict.fromkeys(kind for kind, _ in plan.traffic):
        sizes = [plan.traffic.get((kind, where), 0.0) for where in ("within", "between")]
        if sum(sizes) >= 1e6:
            table.add_row(kind, *(f"{size / 1e9:.2f}" for size in sizes))
    totals = [sum(size for (_, at), size in plan.traffic.items() if at == where) for where in ("within", "between")]
    table.add_row("all devices", *(f"{size * plan.request.world / 1e9:,.0f}" for size in totals), style="bold")
    return table


def _time(plan: RecipePlan) -> Table:
    time, request = plan.time, plan.request
    steps = plan.recipe.train.steps
    table = _pairs("time and cost")
    _add(
        table,
        ("FLOPs of a step", f"{plan.model_flops:.3g} by the model, {plan.device_flops * request.world:.3g} computed"),
        (
            "step",
            f"{time.total:.3g} s: {time.compute:.3g} s of computation, {time.exposed:.2g} s of waiting for others "
            f"(between {time.fastest:.3g} s, all traffic hidden, and {time.slowest:.3g} s, none)",
        ),
        ("speed", f"{plan.tokens_per_second:,.0f} tokens/s, MFU {plan.mfu:.1%}"),
        (
            "stage",
            f"{steps:,} steps, {steps * plan.tokens / 1e9:,.1f} G tokens: {plan.days:,.2f} days, "
            f"{plan.days * 24 * request.world:,.0f} GPU hours, {plan.cost:,.0f} US dollars",
        ),
    )
    return table


def _assumed(plan: RecipePlan) -> Text:
    gpu, network = plan.request.hardware
    peak = gpu.bf16 if plan.recipe.train.precision == "bf16" else gpu.fp32
    joined = f"nodes joined by {network.label}; " if plan.request.world > plan.request.gpus_per_node else ""
    media = "share and size of media (`media=`); " if plan.networks else ""
    return Text(
        f"assumed: {media}computation at {plan.request.efficiency:.0%} of {peak / 1e12:,.0f} TFLOP/s; {joined}"
        f"documents of {plan.request.document or plan.layout.context:,} positions; {plan.request.price:g} US dollars "
        "per GPU and hour. Not counted: waiting for data, checkpoints, evaluation, failures",
        style="dim",
    )


def _phase(phase: str) -> str:
    return {
        "forward": "forward pass",
        "loss": "loss",
        "backward": "backward pass",
        "optimizer": "optimizer step",
    }[phase]


def _pairs(title: str) -> Table:
    table = Table(title, "", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    return table


def _add(table: Table, *rows: tuple[str, str]) -> None:
    for row in rows:
        table.add_row(*row)


def _gib(size: float) -> float:
    return round(size / GIB, 4)
