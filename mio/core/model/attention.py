"""Attention among packed documents: one seam, `attend`, with a way for each kind of device.

On CPU the documents of a batch are gathered into a few buckets of nearly equal length, so that many short documents
cost one batched product per bucket. Bucket padding is harmless under a causal mask: it comes after what is real.
On CUDA it is FlexAttention (`mio.core.model.flex`).

B batch rows, L positions of a row, H query heads, K key/value heads, E head width.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mio.core.model.causal import causal_attention, causal_bias
from mio.core.model.documents import Documents
from mio.core.model.flex import attend_flex, shared_mask

_BUCKET_STEP = 16


class Selection(NamedTuple):
    """Rows to take from a tensor, those of the result to blank, and the same for the way back."""

    rows: Tensor
    blank: Tensor
    back_rows: Tensor
    back_blank: Tensor

    def reversed(self) -> Selection:
        return Selection(self.back_rows, self.back_blank, self.rows, self.blank)


class _Select(torch.autograd.Function):
    # A partial permutation: its adjoint is the inverse selection, several times faster than the scatter-add that
    # autograd would use for an arbitrary index.
    @staticmethod
    def forward(ctx: Any, x: Tensor, *selection: Tensor) -> Tensor:
        rows, blank, back_rows, back_blank = selection
        ctx.save_for_backward(back_rows, back_blank)
        return _take(x, rows, blank)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _take(grads[0].contiguous(), *ctx.saved_tensors), None, None, None, None


def _take(x: Tensor, rows: Tensor, blank: Tensor) -> Tensor:
    taken = x.index_select(0, rows)
    return taken.index_fill_(0, blank, 0) if len(blank) else taken


def select(x: Tensor, selection: Selection) -> Tensor:
    """Rows of `x` [N, E] rearranged; differentiable. No row is taken twice; blanked rows of the result are zero."""
    return _Select.apply(x, *selection)


def prepare(documents: Documents, heads: int, kv_heads: int, windows: Iterable[int]) -> None:
    """Derives what all layers of one of `windows` share, once, and outside of what is compiled."""
    if documents.ids.is_cuda:
        for window in windows:
            shared_mask(documents, window)
        return
    for count in {heads, kv_heads}:
        _bucketed(documents, count)


def attend(q: Tensor, k: Tensor, v: Tensor, documents: Documents | None, window: int = 0) -> Tensor:
    """Causal attention within each document.

    Args:
        q: [B, L, H, E].
        k, v: [B, L, K, E], H a multiple of K (grouped-query attention, arXiv:2305.13245).
        documents: what may see what; None: each row is one document.
        window: positions that a query sees back, itself included; 0 means all.

    Returns:
        [B, L, H, E], zero at padding.
    """
    if q.device.type == "cuda":
        if documents is None and (not window or window >= q.shape[1]):
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            grouped = q.shape[1] != k.shape[1]
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped).transpose(1, 2)
        return attend_flex(q, k, v, documents or _whole_rows(*q.shape[:2], q.device), window)
    return _attend_buckets(q, k, v, documents or _whole_rows(*q.shape[:2], q.device), window)


@lru_cache(maxsize=8)
def _whole_rows(batch: int, length: int, device: torch.device) -> Documents:
    return Documents.from_lengths([[length]] * batch, length).to(device)


def _attend_buckets(q: Tensor, k: Tensor, v: Tensor, documents: Documents, window: int) -> Tensor:
    B, L, H, E = q.shape
    K = k.shape[2]
    buckets, to_q = _bucketed(documents, H)
    _, to_kv = _bucketed(documents, K)
    sizes = [len(bucket.starts) * bucket.width for bucket in buckets]
    qs = select(q.reshape(-1, E), to_q).split([size * H for size in sizes])
    ks = select(k.reshape(-1, E), to_kv).split([size * K for size in sizes])
    vs = select(v.reshape(-1, E), to_kv).split([size * K for size in sizes])
    longest = max(bucket.width for bucket in buckets)
    span = min(longest, window) if window else longest
    bias = documents.derive(("bias", window, q.dtype), lambda: causal_bias(span, window, q.dtype, q.device))
    outs = []
    for bucket, q_b, k_b, v_b in zip(buckets, qs, ks, vs, strict=True):
        N, M = len(bucket.starts) * K, bucket.width
        out = causal_attention(q_b.view(N, H // K, M, E), k_b.view(N, M, E), v_b.view(N, M, E), bias, window)
        outs.append(out.view(-1, E))
    return select(torch.cat(outs), to_q.reversed()).view(B, L, H, E)


class _Bucket(NamedTuple):
    width: int
    starts: tuple[int, ...]
    lengths: tuple[int, ...]


def _bucketed(documents: Documents, heads: int) -> tuple[list[_Bucket], Selection]:
    """The buckets, and how [B * L * heads, E] is taken into them."""
    buckets: list[_Bucket] = documents.derive("buckets", lambda: _buckets(documents))
    return buckets, documents.derive(("heads", heads), lambda: _heads(documents, buckets, heads))


def _buckets(documents: Documents) -> list[_Bucket]:
    """Documents by padded length; `starts` count over the flattened batch [B * L]."""
    members: dict[int, list[tuple[int, int]]] = {}
    for row, lengths in enumerate(documents.lengths):
        start = row * documents.context
        for length in lengths:
            # Coarser with length: at most an eighth is padding beyond the first step, and there are few buckets.
            step = max(_BUCKET_STEP, 1 << max((length - 1).bit_length() - 3, 0))
            members.setdefault(-(-length // step) * step, []).append((start, length))
            start += length
    return [_Bucket(width, *zip(*members[width], strict=True)) for width in sorted(members)]


def _heads(documents: Documents, buckets: list[_Bucket], heads: int) -> Selection:
    """From rows (position, head) of [B * L * heads, E] to the buckets' (document, head, offset), and back."""
    device = documents.ids.device
    total = documents.ids.numel() * heads
    index, real = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.bool)]
    head = torch.arange(heads)[:, None]
    for bucket in buckets:
        lengths, offset = torch.tensor(bucket.lengths)[:, None], torch.arange(bucket.width)
        position = torch.tensor(bucket.starts)[:, None] + torch.minimum(offset, lengths - 1)
        index.append((position[:, None] * heads + head).view(-1))
        real.append((offset < lengths)[:, None].expand(-1, heads, -1).reshape(-1))
    return complete(torch.cat(index), torch.cat(real), total, device)


def complete(index: Tensor, real: Tensor, total: int, device: torch.device) -> Selection:
    """The selection that takes rows `index` of `total` where `real` and blanks elsewhere, with its inverse."""
    slots = real.nonzero().squeeze(1)
    inverse = torch.full((total,), -1, dtype=torch.int64, device=index.device)
    inverse[index[slots]] = slots
    missing = (inverse < 0).nonzero().squeeze(1)
    inverse[missing] = 0
    return Selection(*(t.to(device) for t in (index, (~real).nonzero().squeeze(1), inverse, missing)))
