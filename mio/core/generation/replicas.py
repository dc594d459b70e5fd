"""Copies of a transformer that decode: whole on every device, or split over as few devices as can hold one.

Training spreads a model so that it takes little memory, and gathers every layer again at each pass. Decoding makes a
pass per token, so the weights are gathered once instead, in the dtype that is computed in: devices then need nothing of
each other, and what is computed does not depend on how the model was trained or on how many devices there are. A model
that is too large for one device is split over a few: each has some heads and hidden units of every layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mio.core.distributed.devices import free_memory
from mio.core.distributed.ranks import Ranks
from mio.core.distributed.regions import gathered
from mio.core.distributed.work import Channel
from mio.core.errors import UserError
from mio.core.model.layers import Block
from mio.core.model.lora import plain_parameters
from mio.core.model.networks import assign_buffers, buffers, exact_parameters, plugin_networks
from mio.core.model.packed import can_pack, pack
from mio.core.model.transformer import Transformer
from mio.core.runs.run import Run

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
"""Dtypes by the names that recipes have for them."""
_WEIGHTS = 0.5
"""Share of the free memory of a device that weights may take: the rest is for keys, values and activations."""


@dataclass(frozen=True)
class Replicas:
    """The copies that the ranks have between them."""

    ranks: Ranks
    size: int = 1
    """Ranks that hold one copy together, neighbours."""
    prompts: Channel = field(default_factory=lambda: Channel(None, ""))
    """From the rank that leads a copy to those that hold it with it."""

    @property
    def leads(self) -> bool:
        """Whether this rank asks: it makes the prompts of its copy and takes the answers. The others only compute."""
        return self.ranks.rank % self.size == 0


@torch.no_grad()
def decoding_copy(
    source: Transformer, device: torch.device, dtype: torch.dtype, ranks: Ranks | None = None, split: int = 0
) -> tuple[Transformer, Replicas]:
    """A copy of `source`, which stays as it is, however it is spread: whole or split, in evaluation mode.

    A collective call of all ranks, in whose process group `source` is spread. Weights that are there already, whole and
    in this dtype, are shared, but for the matrices that a CPU has packed (see `mio.core.model.packed`).

    Args:
        split: devices that hold a copy together; 0: as few as can. Raises `UserError` where the model cannot be split
            over so many.
    """
    ranks = ranks or Ranks()
    size = _devices_per_copy(source, device, dtype, ranks, split)
    copy = _share(source, size)
    exact = exact_parameters(source)
    kept = {id(parameter) for parameter in exact.values()}

    def whole(parameter: Tensor) -> Tensor:
        # what is folded is rounded once, when it is
        own = source.frozen or id(parameter) in kept
        return gathered(parameter.detach(), parameter.dtype if own else dtype, device)

    state, shapes = {}, {name: parameter.shape for name, parameter in copy.named_parameters()}
    for name, value in plain_parameters(source, whole):
        offset = _offset(value.shape, shapes[name], ranks.rank % size)
        box = tuple(slice(at, at + count) for at, count in zip(offset, shapes[name], strict=True))
        part = value if value.shape == shapes[name] else value[box].clone()
        state[name] = part if name in exact else part.to(dtype)
    own_buffers = {name: buffer.to(device) for name, buffer in buffers(source).items()}
    return _ready(copy, state | own_buffers, device, dtype, ranks, size)


@torch.no_grad()
def loaded_copy(
    run: Run, device: torch.device, dtype: torch.dtype, ranks: Ranks | None = None, split: int = 0
) -> tuple[Transformer, Replicas]:
    """As `decoding_copy`, of a run, of whose files each device reads its own part: no process holds the whole of a
    model that is split. A collective call of all ranks."""
    ranks = ranks or Ranks()
    source, saved = run.blank(), run.saved
    size = _devices_per_copy(source, device, dtype, ranks, split)
    copy = _share(source, size)
    exact, whole = exact_parameters(source), {name: info.shape for name, info in saved.infos().items()}
    state = {}
    for name, parameter in copy.named_parameters():
        shape = tuple(parameter.shape)
        part = saved.part(name, shape, _offset(whole[name], shape, ranks.rank % size))
        state[name] = part.float().to(device, torch.float32 if name in exact else dtype)
    own_buffers = {name: saved.read(name).to(device) for name in buffers(source)}
    return _ready(copy, state | own_buffers, device, dtype, ranks, size)


def _share(source: Transformer, size: int) -> Transformer:
    """What one of `size` devices holds of a transformer, on the meta device: some of its heads and hidden units."""
    config = source.config
    heads = config.kv_heads or config.heads
    share = replace(
        config,
        heads=config.heads // size,
        kv_heads=heads // size,
        head_width=config.head_size,
        ffn_width=config.ffn_size // size,
    )
    with torch.device("meta"):
        return Transformer(share, source.embedding.num_embeddings, source.networks)


def _offset(whole: Sequence[int], shape: Sequence[int], place: int) -> tuple[int, ...]:
    """Where in a parameter the part of this shape begins that one of the devices of a copy keeps. Heads and hidden
    units are what devices share: the dimension that is shorter than in the whole is theirs."""
    return tuple(place * size if size < all_of_it else 0 for size, all_of_it in zip(shape, whole, strict=True))


def _ready(
    copy: Transformer, state: dict[str, Tensor], device: torch.device, dtype: torch.dtype, ranks: Ranks, size: int
) -> tuple[Transformer, Replicas]:
    """A copy with its parameters and buffers, as it decodes."""
    assign_buffers(copy, state)
    copy.load_state_dict(state, strict=False, assign=True)
    copy.devices, summed = size, None
    if size > 1:
        group = ranks.neighbours(size)

        def summed(output: Tensor) -> None:
            torch.distributed.all_reduce(output, group=group)

    if can_pack(device, dtype):
        pack(copy, summed)
    elif summed is not None:
        _sum_by_hooks(copy, summed)
    return copy.requires_grad_(False).eval(), Replicas(ranks, size, ranks.channel(f"{ranks.rank // size}"))


def _sum_by_hooks(copy: Transformer, summed: Callable[[Tensor], None]) -> None:
    """Sums the outputs of attention and feed-forward networks, of which each device has its heads' and hidden units'
    part, over the devices of a copy (Shoeybi et al. 2019, arXiv 1909.08053, section 3)."""

    def total(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
        summed(output[0] if isinstance(output, tuple) else output)

    for block in copy.layers:
        assert isinstance(block, Block)
        for module in (block.attention, block.ffn):
            module.register_forward_hook(total)


def _devices_per_copy(source: Transformer, device: torch.device, dtype: torch.dtype, ranks: Ranks, split: int) -> int:
    """Those that were asked for, or else the fewest devices that can hold a copy, among the numbers that divide heads,
    hidden units and the devices of a node; the same on all ranks."""
    if ranks.size == 1:
        return 1
    config = source.config
    allowed = [
        size
        for size in range(1, ranks.local_size + 1)
        if not any(count % size for count in (ranks.local_size, config.heads, config.kv_heads or config.heads,
                                              config.ffn_size))
    ]  # fmt: skip
    if split:
        if split not in allowed:
            raise UserError(
                f"{split} devices cannot share this model: its {config.kv_heads or config.heads} heads of keys and "
                f"values and {config.ffn_size} hidden units are divided by {', '.join(map(str, allowed))} of "
                f"{ranks.local_size}"
            )
        return split
    room = ranks.least(free_memory(device, ranks.local_size)) * _WEIGHTS
    whole = sum(one.numel() for _, network in plugin_networks(source) for one in network.parameters()) * dtype.itemsize
    needed = sum(parameter.numel() for parameter in source.parameters()) * dtype.itemsize - whole
    return next((size for size in allowed if whole + needed / size <= room), allowed[-1])
