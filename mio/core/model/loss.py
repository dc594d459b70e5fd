"""Cross-entropy of a linear head without the matrix of all logits.

With a joint vocabulary of 10^4 to 10^5 ids the logits are by far the largest tensor of a training step. Here they exist
for a few tokens at a time, and gradients are computed in the same pass as the loss, as in Liger Kernel (Hsu et al.,
2024, arXiv:2410.10989); compare Cut Cross-Entropy (Wijmans et al., 2024, arXiv:2411.09009). The head's rows may be
sharded over a process group, as in Megatron-LM (Shoeybi et al., 2019, arXiv:1909.08053, section 3).

T tokens, D width, V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

_CPU_LOGITS, _GPU_LOGITS = 48 * 2**20, 2**30
"""Bytes of logits alive at once. Every chunk of tokens adds to the whole gradient of the head, so few are better."""
_PIECE = 2**18
"""Logits whose softmax is taken at once on a CPU: their float32 copy stays in its cache."""
_SLICE = 4096
"""Vocabulary rows whose low-precision gradient is added to the float32 sum at once."""


class SoftTargets(NamedTuple):
    """What another model gives as probabilities of the next token, S positions of which it has seen."""

    hidden: Tensor
    """[S, D']: its hidden states after the final norm."""
    weight: Tensor
    """[V', D']: its head; where the head is sharded over a group, this rank's rows, as `linear_cross_entropy`'s are."""
    bias: Tensor | None
    """[V'], added to its scores."""
    size: int
    """Ids that it knows; a target beyond them is learnt as it is."""
    place: Tensor
    """int32 [T]: the position of each token among its own; -1 of a token whose target is learnt as it is."""
    share: float
    """Weight of its probabilities; the target itself has the rest."""


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor,
    size: int | None = None,
    group: dist.ProcessGroup | None = None,
    offset: int = 0,
    replaced: tuple[Tensor, Sequence[tuple[int, int]]] | None = None,
    bias: Tensor | None = None,
    soft: SoftTargets | None = None,
) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy of `softmax(hidden @ weight.T + bias)` against `targets`.

    Matrix products run in autocast's dtype where it is on, else in that of `hidden`; the softmax and the sum of
    `weight`'s gradient are in float32 (float64 for float64). Tokens of weight 0 cost nothing. The gradients are held
    from forward to backward, so one result can be differentiated once; scaling `weights` instead of the result saves
    a pass over them.

    With a `group`, each of its ranks holds some rows of the head and calls this with the same `hidden`, `targets` and
    `weights`. All get the same result and the same gradient of `hidden`, summed over the group, and each the gradient
    of its own rows. Communicated are three numbers per token, and that gradient.

    Args:
        hidden: [T, D].
        weight: [V, D], of any floating dtype; with a `group`, this rank's rows.
        targets: int64 [T], below `size`.
        weights: float32 [T].
        size: ids that can be predicted; rows of the whole head beyond it are padding. None: all rows; a `group` needs
            the number.
        group: ranks that share the head.
        offset: id of the first row of `weight`.
        replaced: rows [n, D] that take the place of rows of the whole head, and their ids, as (first, end) of each run
            of them; with a `group`, the same on every rank.
        bias: [V], added to the scores; with a `group`, of this rank's rows.
        soft: probabilities of another model, which take the place of some targets (Hinton et al. 2015,
            arXiv:1503.02531, at temperature 1). Nothing of it gets a gradient.

    Returns:
        The sum of `weights * nll`, a scalar that is differentiable in `hidden`, `weight`, the rows and `bias`, and the
        negative log-likelihoods of the targets float32 [T], detached, 0 where the weight is 0. In the sum, what has
        soft targets counts with its cross-entropy against these.

    Raises:
        ValueError: a `group` without `size`.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    if size is None:
        if group is not None:
            raise ValueError("a head that is sharded over a group needs `size`, the number of ids")
        size = weight.shape[0]
    rows, ids = replaced or (None, ())
    options = (size, dtype, torch.is_grad_enabled(), group, offset, ids, soft)
    with torch.autocast(device, enabled=False):
        return _LinearCrossEntropy.apply(hidden, weight, rows, bias, targets, weights, *options)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        rows: Tensor | None,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        *options: Any,
    ) -> tuple[Tensor, Tensor]:
        size, dtype, grad_enabled, group, offset, ids, soft = options
        by_hidden, by_weight, by_rows, by_bias = (grad_enabled and needed for needed in ctx.needs_input_grad[:4])
        full = torch.promote_types(dtype, torch.float32)
        kept = weights.nonzero().squeeze(1)
        head = weight[: max(0, size - offset)].to(dtype)
        added = None if bias is None else bias[: len(head)].to(dtype)
        places = list(_places(ids, offset, len(head)))
        if rows is not None:
            head = _with_rows(head, weight, rows, places)
        nll = hidden.new_zeros(len(targets), dtype=full)
        apart = hidden.new_zeros((), dtype=full)  # what soft targets cost beyond the targets themselves
        teacher = None if soft is None else _Teacher(soft, dtype, group, offset)
        grad_hidden = torch.zeros_like(hidden) if by_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=full) if by_weight else None
        grad_rows = torch.zeros_like(rows, dtype=full) if rows is not None and by_rows else None
        grad_bias = torch.zeros_like(bias, dtype=full) if bias is not None and by_bias else None
        for tokens, taught in _chunks(kept, targets, soft, _chunk(size, dtype, hidden.device, group)):
            h, target, w = hidden[tokens].to(dtype), targets[tokens] - offset, weights[tokens].to(full)
            if taught:
                assert teacher is not None
                losses, nll[tokens], grad_logits = teacher.loss_and_gradient(
                    F.linear(h, head, added), tokens, target, w
                )
                apart += (losses - nll[tokens]) @ w
            else:
                nll[tokens], grad_logits = _loss_and_gradient(F.linear(h, head, added), target, w, group)
            if grad_hidden is not None:
                grad_hidden[tokens] = (grad_logits @ head).to(hidden.dtype)
            if grad_weight is not None:
                _accumulate(grad_weight, grad_logits, h)
            if grad_rows is not None:
                for of_rows, of_head in places:
                    _accumulate(grad_rows[of_rows], grad_logits[:, of_head], h)
            if grad_bias is not None:
                grad_bias[: len(head)] += grad_logits.sum(0, dtype=full)
            del grad_logits  # frees its memory for the next tokens' logits
        if grad_hidden is not None and group is not None:
            dist.all_reduce(grad_hidden, group=group)
        if grad_weight is not None:
            for _, of_head in places:  # other rows stand there
                grad_weight[of_head] = 0
            grad_weight = grad_weight.to(weight.dtype)
        if grad_rows is not None:
            if group is not None:
                dist.all_reduce(grad_rows, group=group)
            assert rows is not None
            grad_rows = grad_rows.to(rows.dtype)
        if grad_bias is not None:
            assert bias is not None
            grad_bias = grad_bias.to(bias.dtype)
        ctx.grads = (grad_hidden, grad_weight, grad_rows, grad_bias)
        ctx.mark_non_differentiable(nll)
        return nll @ weights.to(full) + apart, nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError("linear_cross_entropy holds its gradients for one backward pass, which has already run")
        gradients, ctx.grads = ctx.grads, None
        scale = grads[0]
        if scale.device.type != "cpu" or scale != 1:
            for grad in gradients:
                if grad is not None:
                    grad.mul_(scale)
        return *gradients, *(None for _ in range(9))


def _chunks(kept: Tensor, targets: Tensor, soft: SoftTargets | None, size: int) -> Iterator[tuple[Tensor, bool]]:
    """Numbers of at most `size` tokens, and whether they have soft targets: all of them or none."""
    if soft is None:
        yield from ((tokens, False) for tokens in kept.split(size))
        return
    taught = (soft.place[kept] >= 0) & (targets[kept] < soft.size)
    for mask, whether in ((~taught, False), (taught, True)):
        chosen = kept[mask.nonzero().squeeze(1)]
        # the other model's logits, and probabilities of both in float32, exist beside them
        yield from ((tokens, whether) for tokens in chosen.split(max(1, size // 4) if whether else size) if len(tokens))


class _Teacher:
    """Soft targets and what they are compared with, a few tokens at a time."""

    def __init__(self, soft: SoftTargets, dtype: torch.dtype, group: dist.ProcessGroup | None, offset: int) -> None:
        self._soft, self._dtype, self._group = soft, dtype, group
        known = max(0, soft.size - offset)
        self._head = soft.weight[:known].to(dtype)
        self._bias = None if soft.bias is None else soft.bias[:known].to(dtype)

    def loss_and_gradient(
        self, logits: Tensor, tokens: Tensor, target: Tensor, w: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses float32 [T], negative log-likelihoods of the targets float32 [T], and the gradient [T, V] of the sum
        of `w` times the losses by the logits. Each rank of a group has some columns of the logits, or none, and
        `target` counts from its first."""
        soft, full = self._soft, torch.promote_types(logits.dtype, torch.float32)
        seen = soft.hidden[soft.place[tokens].long()].to(self._dtype)
        wanted = self._log_probabilities(F.linear(seen, self._head, self._bias).to(full)).exp_().mul_(soft.share)
        here = ((target >= 0) & (target < logits.shape[1])).nonzero().squeeze(1)
        scores = self._log_probabilities(logits.to(full))
        nll = scores.new_zeros(len(scores))
        nll[here] = -scores[here, target[here]]
        losses = -(wanted * scores[:, : wanted.shape[1]]).sum(-1)
        if self._group is not None:
            both = torch.stack((nll, losses))
            dist.all_reduce(both, group=self._group)
            nll, losses = both.unbind()
        losses = losses + (1 - soft.share) * nll
        gradient = scores.exp_()
        gradient[:, : wanted.shape[1]] -= wanted
        gradient[here, target[here]] -= 1 - soft.share
        return losses, nll, logits.copy_(gradient.mul_(w.unsqueeze(1)))

    def _log_probabilities(self, scores: Tensor) -> Tensor:
        """Float32 scores [T, V] turned into log-probabilities, of the columns of all ranks together."""
        if self._group is None:
            return torch.log_softmax(scores, -1)
        highest = scores.amax(-1, True) if scores.shape[1] else scores.new_full((len(scores), 1), -torch.inf)
        dist.all_reduce(highest, dist.ReduceOp.MAX, self._group)
        scores = scores - highest
        total = scores.exp().sum(-1, keepdim=True)
        dist.all_reduce(total, group=self._group)
        return scores.sub_(total.log())


def _places(ids: Sequence[tuple[int, int]], offset: int, count: int) -> Iterator[tuple[slice, slice]]:
    """Where replaced rows lie among each other, and in a head of `count` rows whose first has the id `offset`."""
    at = 0
    for first, end in ids:
        low, high = max(first, offset), min(end, offset + count)
        if low < high:
            yield slice(at + low - first, at + high - first), slice(low - offset, high - offset)
        at += end - first


def _with_rows(head: Tensor, weight: Tensor, rows: Tensor, places: Sequence[tuple[slice, slice]]) -> Tensor:
    """`head`, a part of `weight` in another type or the same, with other rows in some places."""
    if places and head.dtype == weight.dtype:  # it shares the weight's memory
        head = head.clone()
    for of_rows, of_head in places:
        head[of_head] = rows[of_rows].to(head.dtype)
    return head


def _chunk(size: int, dtype: torch.dtype, device: torch.device, group: dist.ProcessGroup | None) -> int:
    """Tokens whose logits exist at once; the same on every rank of a group, which work through them in step."""
    columns = size if group is None else -(-size // group.size())
    return max(1, (_CPU_LOGITS if device.type == "cpu" else _GPU_LOGITS) // (columns * dtype.itemsize))


def _loss_and_gradient(
    logits: Tensor, target: Tensor, w: Tensor, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor]:
    """Negative log-likelihoods float32 [T], and the gradient [T, V] of `w @ nll` by the logits. The gradient is written
    over the logits, which nothing needs any more."""
    if group is not None:
        return _loss_and_gradient_of_shard(logits, target, w, group)
    full = torch.promote_types(logits.dtype, torch.float32)
    on_cpu = logits.device.type == "cpu"
    count = max(1, _PIECE // logits.shape[1]) if on_cpu else len(logits)
    nll = []
    for part, index, weight in zip(
        logits.split(count), target.unsqueeze(1).split(count), w.unsqueeze(1).split(count), strict=True
    ):
        scores = part.to(full)
        highest, of_target = scores.amax(-1, keepdim=True), scores.gather(1, index)
        probabilities = torch.softmax(scores, -1, out=scores if on_cpu else None)
        # The softmax of the highest logit is never tiny, so its logarithm recovers the normaliser exactly.
        nll.append(highest - probabilities.amax(-1, keepdim=True).log() - of_target)
        part.copy_(probabilities.mul_(weight).scatter_add_(1, index, -weight))
    return torch.cat(nll).squeeze(1), logits


def _loss_and_gradient_of_shard(
    logits: Tensor, target: Tensor, w: Tensor, group: dist.ProcessGroup
) -> tuple[Tensor, Tensor]:
    """`_loss_and_gradient` where each rank has some columns of the logits, or none; `target` counts from its first."""
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    columns = scores.shape[1]
    here = ((target >= 0) & (target < columns)).nonzero().squeeze(1)
    highest = scores.amax(-1) if columns else scores.new_full((len(scores),), -torch.inf)
    dist.all_reduce(highest, dist.ReduceOp.MAX, group)
    sums = scores.new_zeros(2, len(scores))  # of exponentials, and the target's score
    sums[1, here] = scores[here, target[here]] - highest[here]
    sums[0] = scores.sub_(highest.unsqueeze(1)).exp_().sum(-1)
    dist.all_reduce(sums, group=group)
    scores.mul_((w / sums[0]).unsqueeze(1))
    scores[here, target[here]] -= w[here]
    logits.copy_(scores)
    return sums[0].log() - sums[1], logits


def _accumulate(total: Tensor, grad_logits: Tensor, h: Tensor) -> None:
    """Adds `grad_logits.T @ h` to the first rows of `total`."""
    rows = total[: grad_logits.shape[1]]
    if rows.dtype == h.dtype:
        rows.addmm_(grad_logits.T, h)
        return
    for part, grads in zip(rows.split(_SLICE), grad_logits.split(_SLICE, dim=1), strict=True):
        part.add_(grads.T @ h)
