"""What happens to gradients between the backward pass and the optimizer: row masks, norm, scaling and clipping.

Works on plain tensors and on parameters that are split over devices (`DTensor`), whose norm is that of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate

from mio.core.distributed.regions import EXPERT_SHARD, is_elsewhere, local, local_region


class RowMask:
    """Leaves only some rows of the vocabulary a gradient: `ranges` of ids as (first, end), and of the first ids those
    that are `beside` them, a bool each."""

    def __init__(
        self, parameter: nn.Parameter, ranges: Iterable[tuple[int, int]], beside: Tensor | None = None
    ) -> None:
        self.parameter, self.beside = parameter, beside
        mask = torch.zeros(parameter.shape[0], device=parameter.device)
        if beside is not None:
            mask[: len(beside)] = beside.to(mask)
        for first, end in ranges:
            mask[first:end] = 1.0
        (rows, *_), (start, *_) = local_region(parameter)
        self._mask = mask[start : start + rows].reshape(-1, *[1] * (parameter.dim() - 1))

    def apply(self) -> None:
        if self.parameter.grad is not None:
            gradient = local(self.parameter.grad)
            gradient.mul_(self._mask.to(gradient.dtype))


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float:
    """2-norm of all gradients together. A collective call where parameters are split; the same on every rank then.

    Squares are added up in float64 and the result is rounded to float32, so that it does not show how the parameters
    are split: runs on other numbers of ranks clip by the same factor.
    """
    kinds: dict[tuple[object, tuple[int, ...]], list[Tensor]] = {}
    elsewhere: Tensor | None = None
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if is_elsewhere(gradient):
            elsewhere = gradient
            continue
        split: tuple[int, ...] = ()
        if isinstance(gradient, DTensor):
            assert not any(isinstance(placement, Partial) for placement in gradient.placements)
            split = tuple(d for d, placement in enumerate(gradient.placements) if not isinstance(placement, Replicate))
        kinds.setdefault((getattr(gradient, "device_mesh", None), split), []).append(gradient)
    sums: list[Tensor] = []
    of_experts: list[Tensor] = []
    for (mesh, split), gradients in kinds.items():
        norms = torch._foreach_norm([local(gradient) for gradient in gradients], 2, dtype=torch.float64)
        squares = torch.stack(norms).square().sum()
        if isinstance(mesh, DeviceMesh) and EXPERT_SHARD in (mesh.mesh_dim_names or ()):
            copies = math.prod(size for dimension, size in enumerate(mesh.shape) if dimension not in split)
            of_experts.append(squares / copies)
            continue
        for dimension in split:
            torch.distributed.all_reduce(squares, group=mesh.get_group(dimension))  # type: ignore[attr-defined]
        sums.append(squares)
    if elsewhere is not None:  # experts are split: all devices together have them, and each of them has other ones
        zero = torch.zeros((), dtype=torch.float64, device=elsewhere.device)
        squares = torch.stack([zero, *of_experts]).sum()
        torch.distributed.all_reduce(squares)
        sums.append(squares)
    # one wait for a GPU, however many kinds there are
    return torch.stack(sums).sum().sqrt().float().item() if sums else 0.0


def scale_gradients(parameters: Iterable[nn.Parameter], factor: float) -> None:
    """Multiplies every gradient in place."""
    gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    if gradients and factor != 1.0:
        torch._foreach_mul_(gradients, factor)


def drop_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Takes every gradient away: an optimizer then leaves weights and its own state as they are."""
    for parameter in parameters:
        parameter.grad = None
