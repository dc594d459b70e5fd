"""Cross-entropy of a linear head without the matrix of all logits.

With a joint vocabulary of 10^4 to 10^5 ids the logits are by far the largest tensor of a training step. Here they exist
for a few tokens at a time, and gradients are computed in the same pass as the loss, as in Liger Kernel (Hsu et al.,
2024, arXiv:2410.10989); compare Cut Cross-Entropy (Wijmans et al., 2024, arXiv:2411.09009).

T tokens, D width, V vocabulary rows.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_LOGITS = 12 * 1024 * 1024
"""Logits alive at once (48 MiB of float32)."""
_SLICE = 4096
"""Vocabulary rows whose low-precision gradient is added to the float32 sum at once."""


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor, size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy of `softmax(hidden @ weight.T)` against `targets`.

    Matrix products run in autocast's dtype where it is on, else in that of `hidden`; the softmax and the sum of
    `weight`'s gradient are in float32 (float64 for float64). Tokens of weight 0 cost nothing. The gradients are held
    from forward to backward, so one result can be differentiated once; scaling `weights` instead of the result saves
    a pass over them.

    Args:
        hidden: [T, D].
        weight: [V, D], of any floating dtype.
        targets: int64 [T], below `size`.
        weights: float32 [T].
        size: ids that can be predicted; rows of `weight` beyond it are padding. None: all of them.

    Returns:
        The sum of `weights * nll`, a scalar that is differentiable in `hidden` and `weight`, and the negative
        log-likelihoods float32 [T], detached, 0 where the weight is 0.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    size = weight.shape[0] if size is None else size
    with torch.autocast(device, enabled=False):
        return _LinearCrossEntropy.apply(hidden, weight, targets, weights, size, dtype, torch.is_grad_enabled())


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor, *options: Any
    ) -> tuple[Tensor, Tensor]:
        size, dtype, grad_enabled = options
        by_hidden, by_weight = (grad_enabled and needed for needed in ctx.needs_input_grad[:2])
        full = torch.promote_types(dtype, torch.float32)
        kept = weights.nonzero().squeeze(1)
        head = weight[:size].to(dtype)
        nll = hidden.new_zeros(len(targets), dtype=full)
        grad_hidden = torch.zeros_like(hidden) if by_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=full) if by_weight else None
        for tokens in kept.split(max(1, _LOGITS // size)):
            h, target = hidden[tokens].to(dtype), targets[tokens].unsqueeze(1)
            nll[tokens], probabilities = _predict(h, head, target, full)
            if by_hidden or by_weight:
                w = weights[tokens].unsqueeze(1).to(full)
                by_logits = probabilities.mul_(w).scatter_add_(1, target, -w).to(dtype)
            if grad_hidden is not None:
                grad_hidden[tokens] = (by_logits @ head).to(hidden.dtype)
            if grad_weight is not None:
                _accumulate(grad_weight, by_logits, h)
            # Frees the memory before the next tokens' logits take as much.
            probabilities = by_logits = h
        ctx.grads = (grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype))
        ctx.mark_non_differentiable(nll)
        return nll @ weights.to(full), nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError("linear_cross_entropy holds its gradients for one backward pass, and it is over")
        (by_hidden, by_weight), ctx.grads = ctx.grads, None
        scale = grads[0]
        if scale.device.type != "cpu" or scale != 1:
            for grad in (by_hidden, by_weight):
                if grad is not None:
                    grad.mul_(scale)
        return by_hidden, by_weight, None, None, None, None, None


def _predict(h: Tensor, head: Tensor, target: Tensor, full: torch.dtype) -> tuple[Tensor, Tensor]:
    """Negative log-likelihoods [T] and probabilities [T, V]."""
    logits = F.linear(h, head).to(full)
    highest, of_target = logits.amax(-1, keepdim=True), logits.gather(1, target)
    probabilities = torch.softmax(logits, -1, out=logits if logits.device.type == "cpu" else None)
    # The softmax of the highest logit is never tiny, so its logarithm recovers the normaliser exactly.
    normaliser = highest - probabilities.amax(-1, keepdim=True).log()
    return (normaliser - of_target).squeeze(1), probabilities


def _accumulate(total: Tensor, by_logits: Tensor, h: Tensor) -> None:
    """Adds `by_logits.T @ h` to the first rows of `total`."""
    rows = total[: by_logits.shape[1]]
    if rows.dtype == h.dtype:
        rows.addmm_(by_logits.T, h)
        return
    for part, grads in zip(rows.split(_SLICE), by_logits.split(_SLICE, dim=1), strict=True):
        part.add_(grads.T @ h)
