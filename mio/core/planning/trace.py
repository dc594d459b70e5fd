"""Watches every operation of a simulated step: which tensors are alive, what is sent to whom, what is computed.

A tensor counts from the operation that makes it until its storage is freed, as under torch's allocators. Memory that a
kernel takes and gives back inside one operation is not seen.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed._tools.fake_collectives import CollectiveOp
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

PARAMETERS = "parameters"
GRADIENTS = "gradients"
OPTIMIZER = "optimizer state"
ACTIVATIONS = "activations"
GATHERED = "gathered parameters"
REDUCTION = "gradients being reduced"
LOSS = "loss"
WORKING = "working memory"
KINDS = (PARAMETERS, GRADIENTS, OPTIMIZER, ACTIVATIONS, GATHERED, REDUCTION, LOSS, WORKING)
"""What memory is for."""


@dataclass(eq=False)
class Allocation:
    """Memory of one storage."""

    size: int
    kind: str


@dataclass(frozen=True)
class Collective:
    """A collective operation, as one rank takes part in it."""

    kind: str
    """`all-gather`, `reduce-scatter`, `all-reduce`, `all-to-all` or `broadcast`."""
    size: int
    """Bytes of the whole tensor: of the result of an all-gather, of the input of the others."""
    ranks: tuple[int, ...]
    purpose: str
    """`gather` and `reduce` of parameters and gradients run beside the computation; for all else it waits."""


@dataclass(frozen=True)
class Compute:
    """Work of the device between two collectives."""

    flops: float = 0.0
    copied: float = 0.0
    """Bytes read and written by what is bound by memory: copies around collectives, and the optimizer."""


@dataclass(frozen=True)
class Wait:
    """The computation needs parameters that were gathered."""

    size: int
    """Bytes of them: which of the gathers is waited for."""


Event = Collective | Compute | Wait


@dataclass
class Trace:
    """What was seen."""

    rounding: int = 1
    """Sizes of tensors are rounded up to a multiple of this."""
    pairs: float = 0.0
    """Pairs of a query and a key that see each other, in one forward pass and for one head; of the mean layer."""
    phase: str = "build"
    events: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    """By section of the step, in the order in which they were issued."""
    section: str = ""
    peaks: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Highest number of bytes at once, by phase."""
    activations: int = 0
    """Bytes that were alive at the end of the last forward pass because of it."""
    current: int = 0
    peak: int = 0
    peak_phase: str = ""
    _peak_at: int = 0
    _log: list[tuple[int, Allocation]] = field(default_factory=list)
    _alive: dict[int, tuple[Any, Allocation]] = field(default_factory=dict)

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Records the operations of a `with` block."""
        resize = torch.UntypedStorage.resize_

        def resized(storage: torch.UntypedStorage, size: int) -> Any:
            result = resize(storage, size)
            if id(storage) in self._alive:
                self._resize(self._alive[id(storage)][1], storage.nbytes())
            return result

        # FSDP2 frees gathered parameters by resizing them, which is no operation; torch's `MemTracker` does the same
        with patch.object(torch.UntypedStorage, "resize_", resized), _Watch(self):
            yield

    def forget_peak(self) -> None:
        """Forgets peaks and events so far."""
        self.peaks.clear()
        self.events.clear()
        self.peak = 0

    def label(self, tensors: Iterable[Tensor], kind: str) -> None:
        """The memory of tensors is of `kind`, at the peak too."""
        for tensor in tensors:
            part = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            if id(part.untyped_storage()) in self._alive:
                self._alive[id(part.untyped_storage())][1].kind = kind

    def keep_working(self, kind: str) -> None:
        """Working memory that is still alive is of `kind` from now on."""
        for _, allocation in self._alive.values():
            if allocation.kind == WORKING:
                allocation.kind = kind

    def at_peak(self) -> dict[str, int]:
        """Bytes by kind at the moment of the peak."""
        held: dict[str, int] = dict.fromkeys(KINDS, 0)
        for change, allocation in self._log[: self._peak_at]:
            held[allocation.kind] += change
        return held

    def held(self) -> dict[str, int]:
        """Bytes by kind now."""
        held = dict.fromkeys(KINDS, 0)
        for _, allocation in self._alive.values():
            held[allocation.kind] += allocation.size
        return held

    def note(self, event: Event) -> None:
        """Adds an event; work that follows work is added up."""
        events = self.events[self.section]
        if isinstance(event, Compute) and events and isinstance(events[-1], Compute):
            events[-1] = Compute(events[-1].flops + event.flops, events[-1].copied + event.copied)
        else:
            events.append(event)

    def count(self, tensor: Tensor, kind: str = WORKING) -> None:
        """Counts a tensor's memory until it is freed, unless it is counted already."""
        storage = tensor.untyped_storage()
        if id(storage) in self._alive:
            return
        key = id(storage)
        allocation = Allocation(0, kind)
        self._alive[key] = (weakref.ref(storage, lambda _: self._freed(key)), allocation)
        self._resize(allocation, storage.nbytes())

    def _freed(self, key: int) -> None:
        _, allocation = self._alive.pop(key)
        self._resize(allocation, 0)

    def _resize(self, allocation: Allocation, size: int) -> None:
        size = -(-size // self.rounding) * self.rounding
        change, allocation.size = size - allocation.size, size
        self.current += change
        self._log.append((change, allocation))
        self.peaks[self.phase] = max(self.peaks[self.phase], self.current)
        if self.current > self.peak:
            self.peak, self.peak_phase, self._peak_at = self.current, self.phase, len(self._log)


class _Watch(TorchDispatchMode):
    """Sees operations on plain tensors; those on `DTensor`s arrive as the local ones that they are made of."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace
        self.purposes = [""]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        kwargs = kwargs or {}
        if func is torch.ops.profiler._record_function_enter_new.default:
            purpose = next((purpose for names, purpose in _RANGES.items() if args[0].startswith(names)), self.purpose)
            self.purposes.append(purpose)
        elif func is torch.ops.profiler._record_function_exit._RecordFunction:
            self.purposes.pop()
        if func in _ANSWERS and (args[0].is_meta or isinstance(args[0], FakeTensor)):
            result = _ANSWERS[func](*args)
        else:
            result = func(*args, **kwargs)
        collective = _collective(func, args, result, self.purpose or "exchange")
        if collective is not None:
            self.trace.note(collective)
        elif func is torch.ops.fsdp.split_with_sizes_copy.default:
            self.trace.note(Wait(args[0].nbytes))
        else:
            self._work(func, args, kwargs, result)
        kind = {"gather": GATHERED, "reduce": REDUCTION}.get(self.purpose, WORKING)
        for leaf in tree_leaves(result):
            # other tensors are the host's own
            if isinstance(leaf, Tensor) and leaf.untyped_storage().device.type == "meta":
                self.trace.count(leaf, kind)
        return result

    @property
    def purpose(self) -> str:
        return self.purposes[-1]

    def _work(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        packet = func._overloadpacket
        if packet in _ATTENTION:
            q = args[_ATTENTION[packet][1]]
            self.trace.note(Compute(flops=_ATTENTION[packet][0] * 2 * q.shape[1] * q.shape[3] * self.trace.pairs))
        elif packet in flop_registry:
            self.trace.note(Compute(flops=float(flop_registry[packet](*args, **kwargs, out_val=result))))
        elif (self.purpose or self.trace.phase == "optimizer") and not func.is_view and "empty" not in packet.__name__:
            moved = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.trace.note(Compute(copied=float(sum(tensor.nbytes for tensor in moved))))


def _every_element(x: Tensor) -> Tensor:
    """`nonzero` where nothing is zero: its largest result."""
    return torch.empty(x.numel(), x.dim(), dtype=torch.int64, device=x.device)


_RANGES = {
    ("FSDP::pre_forward", "FSDP::pre_backward", "FSDP::forward_prefetch", "FSDP::backward_prefetch"): "gather",
    ("FSDP::post_backward",): "reduce",
}
"""Beginnings of the names that FSDP2 gives its work for profilers, and what it is for."""

_ANSWERS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.nonzero.default: _every_element,
    torch.ops.aten._local_scalar_dense.default: lambda x: 1.0 if x.dtype.is_floating_point else 1,
}
"""Results that depend on values, which tensors without memory have not."""

_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention: (2, 0),
    # the scores are computed again: five products in place of two
    torch.ops.aten._scaled_dot_product_flash_attention_backward: (5, 1),
}
"""Matrix products of a fused attention, and the position of the query among its arguments."""


def _collective(func: Any, args: Any, result: Any, purpose: str) -> Collective | None:
    if func not in _COLLECTIVES:
        return None
    ranks = dist.get_process_group_ranks(CollectiveOp.get_process_group(func, args))
    kind = _COLLECTIVES[func]
    if kind == "all-to-all":
        size = args[1 if func is _c10d.alltoall_base_.default else 0].nbytes
    else:
        size = CollectiveOp.get_comm_tensor_size(func, result, args, {})
    return Collective(kind, size, tuple(ranks), purpose)


_c10d, _functional = torch.ops.c10d, torch.ops._c10d_functional
_COLLECTIVES = {
    _c10d._allgather_base_.default: "all-gather",
    _c10d._reduce_scatter_base_.default: "reduce-scatter",
    _c10d.allreduce_.default: "all-reduce",
    _c10d.broadcast_.default: "broadcast",
    _c10d.allgather_.default: "all-gather",
    _c10d.alltoall_base_.default: "all-to-all",
    _functional.all_gather_into_tensor.default: "all-gather",
    _functional.reduce_scatter_tensor.default: "reduce-scatter",
    _functional.all_reduce.default: "all-reduce",
    _functional.all_reduce_.default: "all-reduce",
    _functional.all_to_all_single.default: "all-to-all",
}
