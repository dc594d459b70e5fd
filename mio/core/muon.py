"""Muon on matrices that are split over devices (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Muon
from torch.optim._muon import _adjust_lr, _zeropower_via_newtonschulz

from mio.core.parallel import local
from mio.core.transformer.initial import local_region


class SplitMuon(Muon):
    """torch's `Muon`, whose update of a split matrix is that of the whole one, bit by bit.

    The update is gathered before it is orthogonalised, which every rank does by itself. Left to `DTensor`, the products
    would be summed in parts; in bfloat16 that moves weights by a hundredth of a step.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient, memory_format=torch.preserve_format)
        momentum: Tensor = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        whole = update.full_tensor() if isinstance(update, DTensor) else update
        turned = _zeropower_via_newtonschulz(whole, group["ns_coefficients"], group["ns_steps"], group["eps"])
        shape, offset = local_region(parameter)
        part = turned[tuple(slice(at, at + size) for at, size in zip(offset, shape, strict=True))]
        rate = _adjust_lr(group["lr"], group["adjust_lr_fn"], parameter.shape)
        local(parameter).mul_(1 - group["lr"] * group["weight_decay"]).add_(part, alpha=-rate)
