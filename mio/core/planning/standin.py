"""A stand-in for devices that are not here: the meta device in place of a GPU, and a process group that only counts.

FSDP2, tensor parallelism and the model then run as they are, without memory and without peers. What torch refuses to
do on the meta device, although nothing would go wrong, is allowed for as long as a plan is made: streams and events
that do nothing, parameters that stay there, the fused optimizer, autocast (off: parameters arrive in bfloat16).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.distributed._tools.fake_collectives
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed.fsdp._fully_shard import _fsdp_collectives, _fsdp_init, _fsdp_param_group, _fsdp_state
from torch.distributed.fsdp._fully_shard import _fully_shard as fully_shard_module
from torch.optim import optimizer as optimizer_module
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._pytree import tree_leaves

from mio.core.data.document_mask import DocumentMask
from mio.core.distributed.assignment import assign
from mio.core.model import layers
from mio.core.model import transformer as model
from mio.core.model.experts import SparseExperts

META = torch.device("meta")


@contextlib.contextmanager
def pretended_ranks(size: int) -> Iterator[None]:
    """`torch.distributed` as rank 0 of `size` sees it; collectives return at once. Rank 0 has the largest shards.

    Raises `RuntimeError` where a process group is there already.
    """
    if dist.is_initialized():
        raise RuntimeError("a plan needs a process group of its own, and one is there already")
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def pretended_gpu() -> Iterator[None]:
    """The meta device plays a GPU."""
    handle = _Handle()
    with contextlib.ExitStack() as stack:
        for module in (_fsdp_collectives, _fsdp_init, _fsdp_param_group, _fsdp_state):
            stack.enter_context(patch.object(module, "_get_device_handle", lambda kind="meta": handle))  # noqa: ARG005
        for module in (_fsdp_init, fully_shard_module):
            stack.enter_context(patch.object(module, "_get_device_from_mesh", lambda mesh: META))  # noqa: ARG005
        group = _fsdp_param_group.FSDPParamGroup
        stack.enter_context(patch.object(group, "_validate_no_meta_params", lambda self: None))  # noqa: ARG005
        stack.enter_context(
            patch.object(optimizer_module, "_get_fused_kernels_supported_devices", lambda: ["meta", "cpu"])
        )
        stack.enter_context(patch.object(torch, "is_autocast_enabled", _autocast_enabled(torch.is_autocast_enabled)))
        stack.enter_context(patch.object(torch, "autocast", _autocast(torch.autocast)))
        stack.enter_context(patch.object(layers, "attend", fused_attention))
        stack.enter_context(patch.object(model, "prepare", lambda *given: None))  # noqa: ARG005
        stack.enter_context(patch.object(torch.nn.functional, "rms_norm", _fused_norm))
        stack.enter_context(patch.object(SparseExperts, "forward", _even_experts))
        yield


@contextlib.contextmanager
def pretended_cpu(made: Callable[[Tensor], None]) -> Iterator[None]:
    """Tensors on CPUs without numbers in them, but for those that say which documents and ranks there are: `made` gets
    these."""

    def known(build: Callable[[], Any]) -> Any:
        with unset_fake_temporarily():
            result = build()
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                made(leaf)
        return result

    from_lengths, derive = DocumentMask.from_lengths.__func__, DocumentMask.derive  # type: ignore[attr-defined]
    with (
        patch.object(DocumentMask, "from_lengths", classmethod(lambda *given: known(lambda: from_lengths(*given)))),
        patch.object(DocumentMask, "derive", lambda self, key, build: derive(self, key, lambda: known(build))),
        patch("mio.core.training.muon.assign", lambda matrices: known(lambda: assign(matrices))),
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        yield


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: DocumentMask | None, window: int = 0) -> Tensor:  # noqa: ARG001
    """`attend` as a GPU's kernels do it, whichever: scores are never there, and what is kept for the backward pass are
    q, k, v, the result and one float32 per query and head."""
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    out: Tensor = torch.ops.aten._scaled_dot_product_flash_attention.default(q, k, v, 0.0, True)[0]
    return out.transpose(1, 2)


class _FusedNorm(torch.autograd.Function):
    """`rms_norm` as GPUs have it: one kernel, which keeps its input and one float32 per position.

    Elsewhere torch makes it of several operations that keep more. Sizes are right here, and numbers would not be.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        ctx.save_for_backward(x, weight, scale)
        return (x * scale.to(x.dtype)).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, scale = ctx.saved_tensors
        return (grads[0] * scale.to(x.dtype)).add_(x), grads[0].flatten(0, -2).sum(0).to(weight.dtype)


def _fused_norm(x: Tensor, shape: Sequence[int], weight: Tensor, eps: float) -> Tensor:  # noqa: ARG001
    out: Tensor = _FusedNorm.apply(x, weight)
    return out


def _even_experts(self: SparseExperts, x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    """`SparseExperts.forward` where every expert gets the same number of tokens, which else the tokens decide."""
    tokens = x.reshape(-1, x.shape[-1])
    probabilities = self.router(tokens).float().softmax(-1)
    weights, experts = probabilities.topk(self.chosen, dim=-1)
    weights = weights / weights.sum(-1, keepdim=True)
    order = experts.view(-1).argsort(stable=True)
    copies = tokens[:, None].expand(-1, self.chosen, -1).reshape(-1, x.shape[-1])
    parts = copies.index_select(0, order).tensor_split(len(self.experts))
    mixed = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])
    outs = mixed.index_select(0, order).view(-1, self.chosen, x.shape[-1])
    out = (outs * weights.to(outs.dtype).unsqueeze(-1)).sum(1)
    return out.view_as(x), torch.stack((probabilities.mean(0), probabilities.mean(0)))


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


class _Handle(SimpleNamespace):
    """What FSDP2 asks of `torch.cuda`."""

    Stream, Event = _Stream, _Event

    def current_stream(self, device: Any = None) -> _Stream:  # noqa: ARG002
        return _Stream()

    def stream(self, stream: Any) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        return contextlib.nullcontext()


def _autocast_enabled(real: Callable[..., bool]) -> Callable[..., bool]:
    return lambda *device: False if device and device[0] == "meta" else real(*device)


def _autocast(real: Callable[..., Any]) -> Callable[..., Any]:
    def autocast(device_type: str, *arguments: Any, **keywords: Any) -> Any:
        return contextlib.nullcontext() if device_type == "meta" else real(device_type, *arguments, **keywords)

    return autocast
