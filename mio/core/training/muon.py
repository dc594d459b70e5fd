"""Muon on matrices that are split over devices (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Muon
from torch.optim._muon import _adjust_lr, _zeropower_via_newtonschulz

from mio.core.distributed.assignment import Round, assign
from mio.core.distributed.regions import is_elsewhere, local, zeros_like

_DTYPE = torch.bfloat16
"""What matrices travel in."""


class SplitMuon(Muon):
    """torch's `Muon`, whose update of a split matrix is that of the whole one, bit by bit.

    Each matrix is gathered on the rank that it is assigned to, which orthogonalises it and scatters the result. They
    travel in bfloat16, in which they are orthogonalised anyway. Left to `DTensor`, the products would be summed in
    parts, which moves weights by a hundredth of a step.
    """

    _assigned: tuple[tuple[int, ...], list[Round]] = ((), [])
    """The parameters that were assigned, by identity, and the rounds."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        split: list[tuple[Tensor, dict[str, Any]]] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if isinstance(parameter, DTensor) and parameter.device_mesh.size() > 1:
                    split.append((parameter, group))
                elif not is_elsewhere(parameter):
                    update = self._update(parameter, group)
                    _move(local(parameter), _orthogonal(update, group), parameter.shape, group)
                if is_elsewhere(parameter):
                    self._update(parameter, group)  # for the sake of its state
        for exchanged in self._rounds([parameter for parameter, _ in split]):
            updates = {matrix.index: self._update(*split[matrix.index]) for matrix in exchanged.matrices}
            device = local(split[0][0]).device
            wholes = exchanged.gather(updates, device, _DTYPE)
            orthogonal = {index: _orthogonal(whole, split[index][1]) for index, whole in wholes.items()}
            for index, part in exchanged.scatter(orthogonal, device, _DTYPE):
                parameter, group = split[index]
                _move(local(parameter), part, parameter.shape, group)
        return loss

    def _rounds(self, parameters: Sequence[Tensor]) -> list[Round]:
        identity = tuple(map(id, parameters))
        if self._assigned[0] != identity:
            self._assigned = identity, assign(parameters)
        return self._assigned[1]

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """This device's part of what is to be orthogonalised; takes the gradient into the momentum."""
        assert parameter.grad is not None
        gradient, state = parameter.grad, self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = zeros_like(gradient)
        momentum = local(state["momentum_buffer"])
        momentum.lerp_(local(gradient), 1 - group["momentum"])
        return local(gradient).lerp(momentum, group["momentum"]) if group["nesterov"] else momentum


def _orthogonal(update: Tensor, group: dict[str, Any]) -> Tensor:
    return _zeropower_via_newtonschulz(update, group["ns_coefficients"], group["ns_steps"], group["eps"])


def _move(part: Tensor, orthogonal: Tensor, shape: torch.Size, group: dict[str, Any]) -> None:
    """Decay and update of this device's part of a parameter whose whole has `shape`."""
    rate = _adjust_lr(group["lr"], group["adjust_lr_fn"], shape)
    part.mul_(1 - group["lr"] * group["weight_decay"]).add_(orthogonal, alpha=-rate)
