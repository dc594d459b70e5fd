"""Expert parallelism: the experts of a sparse mixture split over neighbouring devices, to which tokens travel.

Lepikhin et al. 2020 (GShard, arXiv 2006.16668, section 3); with sharding of each expert's parameters over the devices
that have it, as in torchtitan (`torchtitan/distributed/expert_parallel.py`). A parameter keeps its name and shape on
every device; those of experts that are elsewhere have an empty part (see `mio.core.distributed.regions`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import Replicate, Shard

from mio.core.distributed.regions import EXPERT_SHARD, empty_part, is_elsewhere, zeros_like
from mio.core.model import experts as mixture
from mio.core.model.attention import select
from mio.core.model.experts import Experts, SparseExperts
from mio.core.model.transformer import Transformer

_EXPERT = "expert"
"""Dimension of a mesh over which experts are split."""


class _AllToAll(torch.autograd.Function):
    """Rows to the devices of a group and from them; gradients go back the same way, times `scale`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sent: list[int], received: list[int], group: Any, scale: float) -> Tensor:
        ctx.way = received, sent, group, scale
        return _exchange_rows(x, sent, received, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        sent, received, group, scale = ctx.way
        return _exchange_rows(grads[0], sent, received, group).mul_(scale), None, None, None, None


def _exchange_rows(x: Tensor, sent: list[int], received: list[int], group: Any) -> Tensor:
    out = x.new_empty(sum(received), x.shape[1])
    dist.all_to_all_single(out, x.contiguous(), received, sent, group=group)
    return out


class ExpertExchange:
    """Takes the tokens of a layer to the devices of their experts and back.

    Args:
        group: process group of the devices that have the experts between them, in the order of the experts.
    """

    def __init__(self, group: Any) -> None:
        self.group = group
        self.size = dist.get_world_size(group)

    def __call__(self, experts: Experts, x: Tensor, counts: Sequence[int]) -> Tensor:
        """[N, D] -> [N, D]: rows by expert, `counts[e]` for expert e. A collective call, of every device of the group
        and also where no token is sent or comes; so is its backward pass."""
        if torch.is_grad_enabled() and not x.requires_grad:
            x = x.detach().requires_grad_()  # all devices of the group go through the backward pass, or none
        received = exchange_counts(list(counts), self.group, x.device)
        held = len(experts.held)
        sent = [sum(counts[first : first + held]) for first in range(0, len(counts), held)]
        arriving = [sum(received[first : first + held]) for first in range(0, len(received), held)]
        # Gradients are averaged over the devices that share a parameter. Those of an expert are sums over the tokens of
        # `size` devices already, and averaged over so many fewer. Powers of two leave all bits as they are.
        arrived = _AllToAll.apply(x, sent, arriving, self.group, float(self.size))
        # An expert on a CPU sees what each device sends by itself: the sums are then those that are taken where experts
        # are not split, and two devices end with the bits of one. On a GPU one large product is the quicker one.
        apart = x.device.type == "cpu"
        groups = arrivals(received, held, apart).to(x.device)
        sizes, selection = mixture.group_by_expert(groups.unsqueeze(1), len(received) if apart else held)
        out = select(experts(select(arrived, selection), sizes), selection.reversed())
        back: Tensor = _AllToAll.apply(out, arriving, sent, self.group, 1 / self.size)
        return back


def exchange_counts(counts: list[int], group: Any, device: torch.device) -> list[int]:
    """Rows that come from each device of a group for each expert that this one has, of the rows that each sends."""
    own = torch.tensor(counts, device=device)
    theirs = torch.empty_like(own)
    dist.all_to_all_single(theirs, own, group=group)
    received: list[int] = theirs.tolist()
    return received


def arrivals(received: list[int], held: int, apart: bool) -> Tensor:
    """int64 [rows]: the group that a row that has come belongs to, `received[d * held + e]` rows for expert e from
    device d. A group is an expert, or, `apart`, an expert with a device."""
    groups = torch.arange(len(received))
    return (groups if apart else groups % held).repeat_interleave(torch.tensor(received))


@dataclass(frozen=True)
class SplitExperts:
    """How the experts of a transformer are split."""

    mesh: DeviceMesh
    """Over which FSDP2 shards those of this device."""
    elsewhere: set[nn.Parameter]
    """Parameters of the others."""


def split_experts(transformer: Transformer, mesh: DeviceMesh, devices: int) -> SplitExperts:
    """Leaves each device its share of the experts, in place; to be called before FSDP2 shards them.

    Args:
        transformer: its matrices may be split by tensor parallelism.
        mesh: of all devices, with dimensions `replicate`, `shard` and `tensor`.
        devices: neighbours of the dimension `shard` that have the experts between them.
    """
    replicate, shard, tensor = mesh.shape
    with_experts = mesh._unflatten(1, (shard // devices, devices), (EXPERT_SHARD, _EXPERT))
    place = with_experts[_EXPERT].get_local_rank()
    # ranks by copy, part of an expert, experts, tensor parallelism
    ranks = torch.arange(mesh.size()).view(replicate, shard // devices, devices, tensor)
    elsewhere: set[nn.Parameter] = set()
    for layer in mixtures(transformer):
        share = len(layer.experts) // devices
        layer.experts.held = range(place * share, (place + 1) * share)
        layer.exchange = ExpertExchange(with_experts[_EXPERT].get_group())
        for number, expert in enumerate(layer.experts):
            if number not in layer.experts.held:
                elsewhere.update(_leave_out(expert, mesh.device_type, ranks[:, :, number // share]))
    data = ("replicate", EXPERT_SHARD) if replicate > 1 else EXPERT_SHARD
    return SplitExperts(with_experts[data], elsewhere)


def _leave_out(expert: nn.Module, device_type: str, ranks: Tensor) -> Iterator[nn.Parameter]:
    """Empties the parameters of an expert that this device does not have; `ranks` [copies, parts, tensor] have it."""
    sizes = dict(zip(("replicate", EXPERT_SHARD, "tensor"), ranks.shape, strict=True))
    sizes = {name: size for name, size in sizes.items() if size > 1 or name == EXPERT_SHARD}
    # it stands for the owners' mesh; nothing is sent over it from here
    mesh = DeviceMesh(device_type, ranks.reshape(*sizes.values()), mesh_dim_names=tuple(sizes), _init_backend=False)
    placements = tuple(Replicate() if name == "replicate" else Shard(0) for name in sizes)
    for module in expert.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            left: Any = empty_part(mesh, placements, parameter.shape, parameter.dtype, torch.device(device_type))
            left.requires_grad_(parameter.requires_grad)
            left._is_param = True  # as `nn.Parameter` does, which would make another by an operation: see `zeros_like`
            module.register_parameter(name, left)
            yield left
    # where modules are moved or given memory, these stay as they are, for the same reason
    expert._apply = lambda *given, **named: expert  # type: ignore[method-assign]  # noqa: ARG005


def empty_gradients(transformer: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    """Trained parameters of which this device has no part, with a gradient for each: with it they are to optimizers and
    checkpoints what any parameter is whose part on this device is empty, so that all devices have state for the same
    names, and exchange the same number of times."""
    return [(one, zeros_like(one)) for one in transformer.parameters() if one.requires_grad and is_elsewhere(one)]


def prefetch(transformer: Transformer) -> None:
    """Gathers each layer's parameters beside the computation of the layer before it, forth and back.

    FSDP2's own order would gather experts when the host comes to them, and it comes late: it has waited for the number
    of tokens that each device sends (as in torchtitan, `models/llama4/infra/parallelize.py`).
    """
    units: list[list[FSDPModule]] = [[block, block.ffn.experts] for block in transformer.layers]  # type: ignore[list-item,union-attr]
    if isinstance(transformer.embedding, FSDPModule):
        transformer.embedding.set_modules_to_forward_prefetch(units[0])
    for this, following in pairwise(units):
        this[0].set_modules_to_forward_prefetch(following)
        following[0].set_modules_to_backward_prefetch(this[::-1])


def mixtures(transformer: Transformer) -> list[SparseExperts]:
    """Of its layers, those that are sparse."""
    return [block.ffn for block in transformer.layers if isinstance(block.ffn, SparseExperts)]
