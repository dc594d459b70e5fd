"""Blocks as `torch.compile` leaves them: the same operations, and fewer results kept for the backward pass.

No kernel is generated. What a compiled block keeps is decided before that, by AOTAutograd's min-cut partitioner, which
runs here on the block's real graph. Inside a block every operation's result is still counted, where fused kernels have
fewer: the working memory of the one block at work is an upper bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from functorch.compile import min_cut_rematerialization_partition, nop
from torch import Tensor, nn
from torch._functorch.aot_autograd import aot_function
from torch.func import functional_call
from torch.utils._python_dispatch import _disable_current_modes

from mio.core.model.layers import Shared
from mio.core.model.transformer import Transformer


def partition_blocks(transformer: Transformer) -> None:
    """Gives each block the partitioned form of its forward pass, in place; blocks that are alike share one graph.

    For dense blocks whose parameters are whole while they are used, and that hold no network of a plugin.
    """
    graphs: dict[Any, Any] = {}

    def plain(
        template: nn.Module, names: Sequence[str], parameters: list[Tensor], x: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor:
        shared = Shared(cos, sin, None, None)
        out: Tensor = functional_call(template, dict(zip(names, parameters, strict=True)), (x, shared))[0]
        return out

    def forward(block: nn.Module, template: nn.Module, x: Tensor, shared: Shared) -> tuple[Tensor, None]:
        names = tuple(name for name, _ in template.named_parameters())
        inputs = [*block.parameters(), x, shared.cos, shared.sin]
        key = names, tuple((tensor.shape, tensor.dtype, tensor.requires_grad) for tensor in inputs)
        if key not in graphs:
            graph = partial(plain, template, names)
            graphs[key] = aot_function(graph, nop, nop, min_cut_rematerialization_partition)
            with _disable_current_modes():  # making the graph is no part of what it does
                like = [
                    torch.empty_like(tensor, device="meta").requires_grad_(tensor.requires_grad) for tensor in inputs
                ]
                graphs[key](like[:-3], *like[-3:])
        return graphs[key](inputs[:-3], *inputs[-3:]), None

    for block in transformer.layers:
        if block.reads:  # counted as it is without compilation
            continue
        block.forward = partial(forward, block, deepcopy(block))
