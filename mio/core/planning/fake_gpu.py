"""GPUs that are not here: torch's fake process group in place of peers, and the meta device in place of a GPU.

FSDP2, tensor parallelism and the model run as they are, without memory and without peers. `_REPLACED` is all that is
replaced for that, in torch and here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup
from torch.optim import optimizer

from mio.core.data.document_mask import DocumentMask
from mio.core.model import expert_parallel, experts, layers, transformer
from mio.core.model.attention import Selection

META = torch.device("meta")


@contextlib.contextmanager
def fake_ranks(size: int) -> Iterator[None]:
    """`torch.distributed` as rank 0 of `size` sees it; collectives return at once. Rank 0 has the largest shards.

    Raises `RuntimeError` where a process group is there already.
    """
    if dist.is_initialized():
        raise RuntimeError("a plan needs a process group of its own, and one is there already")
    dist.init_process_group("fake", rank=0, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def fake_gpu() -> Iterator[None]:
    """The meta device plays a GPU."""
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in _REPLACED:
            stack.enter_context(patch.object(owner, name, replacement, create=name == "meta"))
        yield


def _attend(q: Tensor, k: Tensor, v: Tensor, documents: DocumentMask | None, window: int = 0) -> Tensor:  # noqa: ARG001
    """`attend` as a GPU's kernels do it, whichever: scores are never there, and what is kept for the backward pass are
    q, k, v, the result and one float32 per query and head."""
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    out: Tensor = torch.ops.aten._scaled_dot_product_flash_attention.default(q, k, v, 0.0, True)[0]
    return out.transpose(1, 2)


def even_load(chosen: Tensor, count: int, *multiple: int) -> tuple[list[int], Selection]:
    """`group_by_expert` where every expert gets the same number of tokens."""
    sizes, selection = _even(tuple(chosen.shape), count, *multiple)
    return sizes, Selection(*(tensor.to(chosen.device) for tensor in selection))


@lru_cache(maxsize=8)
def _even(shape: tuple[int, ...], count: int, *multiple: int) -> tuple[list[int], Selection]:
    """All layers are alike, and to sort a hundred thousand numbers for each would take most of a plan's time."""
    return _group_by_expert(torch.arange(math.prod(shape)).remainder(count).view(shape), count, *multiple)


def even_counts(counts: list[int], group: Any, device: torch.device) -> list[int]:  # noqa: ARG001
    """`exchange_counts` where every device sends what this one sends."""
    size = dist.get_world_size(group)
    return counts[: len(counts) // size] * size


class _Stream:
    """Work is done when it is issued, so nothing waits."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None: ...

    def wait_stream(self, other: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def record_event(self, event: Any = None) -> _Event:  # noqa: ARG002
        return _Event()


class _Event:
    def __init__(self, *arguments: Any, **keywords: Any) -> None: ...

    def record(self, stream: Any = None) -> _Event:  # noqa: ARG002
        return self

    def synchronize(self) -> None: ...


_DEVICE_MODULE = SimpleNamespace(
    Stream=_Stream,
    Event=_Event,
    device_count=lambda: 1,
    current_device=lambda: 0,
    current_stream=lambda device=None: _Stream(),  # noqa: ARG005
    stream=lambda stream: contextlib.nullcontext(),  # noqa: ARG005
)
"""What FSDP2 and meshes use of `torch.cuda`."""


def _except_meta(real: Callable[..., Any], answer: Callable[[], Any]) -> Callable[..., Any]:
    return lambda *given, **named: answer() if given[:1] == ("meta",) else real(*given, **named)


class _RMSNorm(torch.autograd.Function):
    """`rms_norm` as one kernel, which keeps its input and one float32 per position. Of the right sizes, not values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        ctx.save_for_backward(x, weight, scale)
        return (x * scale.to(x.dtype)).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, scale = ctx.saved_tensors
        return (grads[0] * scale.to(x.dtype)).add_(x), grads[0].flatten(0, -2).sum(0).to(weight.dtype)


_group_by_expert = experts.group_by_expert
_REPLACED: tuple[tuple[Any, str, Any], ...] = (
    # FSDP2 and device meshes look for the module of a device type under `torch`; there is none for meta
    (torch, "meta", _DEVICE_MODULE),
    # where a layer was gathered for a backward pass that it has not, as that of a frozen embedding, FSDP2 waits for it
    (torch.accelerator, "current_stream", lambda device=None: _Stream()),  # noqa: ARG005
    # FSDP2 refuses to begin before parameters have left the meta device
    (FSDPParamGroup, "_validate_no_meta_params", lambda group: None),  # noqa: ARG005
    # the fused AdamW has shapes on meta, but a list of devices without it
    (optimizer, "_get_fused_kernels_supported_devices", lambda: ["meta", "cpu"]),
    # both raise for meta, which has no autocast; there is none to do, as FSDP2 gives parameters in bfloat16
    (torch, "is_autocast_enabled", _except_meta(torch.is_autocast_enabled, lambda: False)),
    (torch, "autocast", _except_meta(torch.autocast, contextlib.nullcontext)),
    # FlexAttention's kernels are compiled for a GPU, and its block mask is made of values
    (layers, "attend", _attend),
    (transformer, "prepare", lambda *given: None),  # noqa: ARG005
    # one kernel on GPUs; on meta several operations, which keep more
    (torch.nn.functional, "rms_norm", lambda x, shape, weight, eps: _RMSNorm.apply(x, weight)),  # noqa: ARG005
    # how many tokens an expert gets depends on values
    (experts, "group_by_expert", even_load),
    # and so does how many come from another device
    (expert_parallel, "exchange_counts", even_counts),
)
"""(owner, name, replacement), each with its reason."""
