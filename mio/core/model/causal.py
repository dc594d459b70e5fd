"""Attention on a CPU, causal or with positions that see each other: scores exist for a block of queries at a time.

torch's flash kernel for CPUs takes two to five times as long in bfloat16, and its products of scores in one piece
compute the half that nobody may see. Here a block of queries meets only the keys up to its end.

N products at once, G query heads that share keys and values, M positions, E head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCK = 128
"""Queries whose scores exist at once."""
Reach = tuple[tuple[int, int], ...]
"""Of each block of queries the first key that any of them sees, and the one behind the last."""
_KEPT = 512
"""Longest documents whose probabilities are kept for the backward pass; those of longer ones are computed again, so
that memory grows with the length and not with its square."""


def causal_bias(span: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[BLOCK, span + BLOCK]: what is added to the scores of a block's queries against the keys from `span` before its
    first query on: 0 where a query may look, -inf elsewhere. `window` 0 means all."""
    query = torch.arange(BLOCK, device=device)[:, None]
    back = query - torch.arange(-span, BLOCK, device=device)
    hidden = (back < 0) | (back >= window) if window else back < 0
    return torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, window: int = 0) -> Tensor:
    """Each query sees its own position and those before it, `window` of them in all, or all if that is 0.

    Differentiable once.

    Args:
        q: [N, G, M, E].
        k, v: [N, M, E].
        bias: of `causal_bias`, with a span of at least M.

    Returns:
        [N, G, M, E].
    """
    out: Tensor = _CausalAttention.apply(q, k, v, bias, window)
    return out


def together_attention(q: Tensor, k: Tensor, v: Tensor, sees: Tensor, reach: Reach) -> Tensor:
    """Each query sees keys as its document says. Differentiable once.

    Args:
        q: [N, G, M, E], N a multiple of the number of documents, whose products lie one after the other.
        k, v: [N, M, E].
        sees: int32 [3, documents, M]: of a query the first key that it sees and the one behind the last; of a key the
            number of those who alone see it, and of a query the same number where it is one of them; 0 for everybody.
        reach: see `Reach`.

    Returns:
        [N, G, M, E].
    """
    out: Tensor = _CausalAttention.apply(q, k, v, sees, 0, reach)
    return out


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, shown: Tensor, window: int, reach: Reach = ()) -> Tensor:
        _, _, M, _ = q.shape
        kept = M <= _KEPT and any(ctx.needs_input_grad)
        out, probabilities = torch.empty_like(q), []
        for start in range(0, M, BLOCK):
            queries, keys = _ranges(start, M, window, reach)
            p = _probabilities(q, k, shown, queries, keys)
            out[:, :, queries] = torch.bmm(p, v[:, keys]).view_as(out[:, :, queries])
            if kept:
                probabilities.append(p)
        ctx.save_for_backward(q, k, v, shown, *probabilities)
        ctx.window, ctx.reach = window, reach
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, shown, *probabilities = ctx.saved_tensors
        N, _, M, E = q.shape
        by_q, by_k, by_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for start in range(0, M, BLOCK):
            queries, keys = _ranges(start, M, ctx.window, ctx.reach)
            p = probabilities[start // BLOCK] if probabilities else _probabilities(q, k, shown, queries, keys)
            by_out = grads[0][:, :, queries].reshape(N, -1, E)
            by_v[:, keys].baddbmm_(p.transpose(1, 2), by_out)
            by_p = torch.bmm(by_out, v[:, keys].transpose(1, 2))
            by_scores = torch._softmax_backward_data(by_p, p, -1, p.dtype)
            of_block = q[:, :, queries]
            by_q[:, :, queries] = torch.bmm(by_scores, k[:, keys]).mul_(E**-0.5).view_as(of_block)
            by_k[:, keys].baddbmm_(by_scores.transpose(1, 2), of_block.reshape(N, -1, E), alpha=E**-0.5)
        return by_q, by_k, by_v, None, None, None


def _ranges(start: int, length: int, window: int, reach: Reach) -> tuple[slice, slice]:
    """A block's queries, and the keys that any of them sees."""
    stop = min(start + BLOCK, length)
    if reach:
        return slice(start, stop), slice(*reach[start // BLOCK])
    return slice(start, stop), slice(max(0, start - window + 1) if window else 0, stop)


def _probabilities(q: Tensor, k: Tensor, shown: Tensor, queries: slice, keys: slice) -> Tensor:
    """[N, G * queries, keys]."""
    N, G, _, E = q.shape
    of_block, of_keys = q[:, :, queries].reshape(N, -1, E), k[:, keys].transpose(1, 2)
    if shown.dim() == 2:
        span = shown.shape[1] - BLOCK
        bias = shown[
            : queries.stop - queries.start, span + keys.start - queries.start : span + keys.stop - queries.start
        ]
        scores = torch.baddbmm(bias.repeat(G, 1), of_block, of_keys, alpha=E**-0.5)
    else:
        scores = _spread(_bias(shown, queries, keys, q.dtype), N, G).baddbmm_(of_block, of_keys, alpha=E**-0.5)
    return scores.softmax(-1)


def _bias(sees: Tensor, queries: slice, keys: slice, dtype: torch.dtype) -> Tensor:
    """[documents, queries, keys]: what is added to the scores, of `sees` [3, documents, M]."""
    first, end, private = sees[:, :, queries, None]
    key = torch.arange(keys.start, keys.stop, dtype=sees.dtype)
    of_key = sees[2, :, None, keys]
    hidden = (key < first).logical_or_(key >= end)
    hidden.logical_or_((of_key != private).logical_and_(of_key != 0))
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf)


def _spread(bias: Tensor, products: int, groups: int) -> Tensor:
    """[N, G * queries, keys] of [documents, queries, keys], to write upon."""
    documents, queries, keys = bias.shape
    spread = bias.new_empty(documents, products // documents, groups, queries, keys).copy_(bias[:, None, None])
    return spread.view(products, groups * queries, keys)
