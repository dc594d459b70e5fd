"""How long a simulated step takes on hardware of known speed, and what it sends.

Three clocks: the device computes; collectives inside nodes and between them have a wire each. Parameters of a layer are
gathered beside the computation of the one before, as soon as that one's are in place, and gradients are reduced beside
the layers after it; what tensor parallelism and the loss exchange stops the computation. FSDP2's own order of events is
kept. A host that cannot keep up, slow readers of data, stragglers and checkpoints are not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mio.core.planning.hardware import (
    LAUNCH,
    MEMORY_ACHIEVED,
    NVLINK_ACHIEVED,
    NVLINK_LATENCY,
    Gpu,
    Network,
)
from mio.core.planning.trace import Collective, Compute, Event, Wait


@dataclass(frozen=True)
class Speed:
    """What a device reaches."""

    flops: float
    """FLOP/s of computation."""
    gpu: Gpu
    network: Network
    per_node: int


@dataclass(frozen=True)
class Sent:
    """Bytes that one device sends, the mean over the ranks of the group."""

    within: float
    between: float


def sent(collective: Collective, per_node: int) -> Sent:
    """Bytes on the wire of a ring, the algorithm of large messages (Patarasuk and Yuan 2009).

    Of n ranks each sends (n - 1) / n of the tensor, twice for an all-reduce. A ring goes through the GPUs of a node one
    after the other before it leaves it, so of g GPUs of a node one sends to another node. An all-to-all has no ring:
    what is for the ranks of other nodes goes there.
    """
    n = len(collective.ranks)
    nodes = len({rank // per_node for rank in collective.ranks})
    passes = 2 if collective.kind == "all-reduce" else 1
    total = passes * (n - 1) / n * collective.size
    if collective.kind == "all-to-all":
        between = collective.size * (nodes - 1) / nodes
    else:
        between = total * nodes / n if nodes > 1 else 0.0
    return Sent(total - between, between)


def seconds(collective: Collective, speed: Speed) -> float:
    """Time of a collective with the wires to itself. Rings are laid so that all GPUs of a node send to other nodes."""
    n = len(collective.ranks)
    if n == 1:
        return 0.0
    bytes_ = sent(collective, speed.per_node)
    nodes = len({rank // speed.per_node for rank in collective.ranks})
    passes = 2 if collective.kind == "all-reduce" else 1
    crossings = nodes if nodes > 1 else 0
    if collective.kind == "all-to-all":
        latency = speed.network.latency if nodes > 1 else NVLINK_LATENCY
    else:
        latency = passes * (max(0, n - 1 - crossings) * NVLINK_LATENCY + crossings * speed.network.latency)
    wire = max(
        bytes_.within / (speed.gpu.nvlink * NVLINK_ACHIEVED),
        bytes_.between / (speed.network.bandwidth * speed.network.achieved),
    )
    return LAUNCH + latency + wire


@dataclass
class StepTime:
    """Seconds of a step on one device."""

    total: float = 0.0
    compute: float = 0.0
    """Of which the device computes."""
    communication: float = 0.0
    """Wires' time, hidden behind the computation or not."""

    @property
    def exposed(self) -> float:
        """Of which the device waits for others."""
        return self.total - self.compute

    @property
    def fastest(self) -> float:
        """If everything that is sent were hidden."""
        return max(self.compute, self.communication)

    @property
    def slowest(self) -> float:
        """If nothing were."""
        return self.compute + self.communication


def step_time(passes: Iterable[tuple[int, Sequence[Event]]], speed: Speed) -> StepTime:
    """Time of a step of sections, each taken so many times."""
    result = StepTime()
    for times, events in passes:
        clock = _Clock(speed)
        for event in events:
            clock.take(event)
        result.total += times * clock.end()
        result.compute += times * clock.computed
        result.communication += times * clock.sent
    return result


@dataclass
class _Clock:
    """Time within one section."""

    speed: Speed
    now: float = 0.0
    """When the device is done with what is queued."""
    computed: float = 0.0
    sent: float = 0.0
    in_place: float = 0.0
    """When the parameters gathered last were copied to their place: the next ones may be sent for."""
    reduced: float = 0.0
    """When the gradients of the group before are reduced."""
    all_reduced: float = 0.0
    gathers: list[tuple[int, float]] = field(default_factory=list)
    """Bytes of the gathers that are still to be waited for, and when they are done."""
    wires: dict[str, float] = field(default_factory=lambda: {"within": 0.0, "between": 0.0})

    def take(self, event: Event) -> None:
        if isinstance(event, Compute):
            spent = event.flops / self.speed.flops + event.copied / (self.speed.gpu.bandwidth * MEMORY_ACHIEVED)
            self.now += spent
            self.computed += spent
        elif isinstance(event, Wait):
            # The first of this size: experts are gathered ahead of their turn, with the layer after them. None: it
            # was gathered in the section before, for a backward pass that a frozen layer has not.
            found = next((one for one in self.gathers if one[0] == event.size), None)
            if found is not None:
                self.gathers.remove(found)
                self.now = max(self.now, found[1])
            self.in_place = self.now
        elif event.purpose == "gather":
            self.gathers.append((event.size, self._send(event, self.in_place)))
        elif event.purpose == "reduce" and event.kind == "reduce-scatter":
            self.now = max(self.now, self.reduced)  # its buffer is free again then
            self.reduced = self._send(event, self.now)
        elif event.purpose == "reduce":
            self.all_reduced = self._send(event, max(self.reduced, self.now))
        else:
            self.now = self._send(event, self.now)

    def end(self) -> float:
        return max(self.now, self.reduced, self.all_reduced)

    def _send(self, event: Collective, earliest: float) -> float:
        took = seconds(event, self.speed)
        bytes_ = sent(event, self.speed.per_node)
        used = [name for name in ("within", "between") if getattr(bytes_, name)]
        done = max([earliest, *(self.wires[name] for name in used)]) + took
        self.wires.update(dict.fromkeys(used, done))
        self.sent += took
        return done
