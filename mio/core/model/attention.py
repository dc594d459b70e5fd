"""Attention among packed documents: one seam, `attend`, with a way for each kind of device.

On CPU the documents of a batch are gathered into the buckets of its `DocumentMask`, so that many short documents cost
one batched product per bucket. Bucket padding is harmless under a causal mask: it comes after what is real. Documents
with positions that see each other are buckets of their own. On CUDA it is FlexAttention (`mio.core.model.flex`).

B batch rows, L positions of a row, H query heads, K key/value heads, E head width.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mio.core.data.document_mask import DROPPED, PRIVATE, DocumentMask, runs, window_positions
from mio.core.model import causal
from mio.core.model.causal import BLOCK, Reach, causal_attention, causal_bias
from mio.core.model.flex import attend_flex, shared_mask


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


def prepare(mask: DocumentMask, heads: int, kv_heads: int, windows: Iterable[int]) -> None:
    """Derives what all layers of one of `windows` share, once, and outside of what is compiled."""
    if mask.ids.is_cuda:
        for window in windows:
            shared_mask(mask, window)
    else:
        for count in {heads, kv_heads}:
            _bucketed(mask, count)
        for window in windows:
            _grouped(mask, window)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: DocumentMask | None, window: int = 0) -> Tensor:
    """Causal attention within each document, but for positions that see each other (see `DocumentMask`).

    Args:
        q: [B, L, H, E].
        k, v: [B, L, K, E], H a multiple of K (grouped-query attention, arXiv:2305.13245).
        mask: None: each row is one document.
        window: positions that a query sees back, itself included; 0 means all.

    Returns:
        [B, L, H, E], zero at padding.
    """
    on_cuda = q.device.type == "cuda"
    if on_cuda and mask is None and (not window or window >= q.shape[1]):
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped).transpose(1, 2)
    mask = mask or _whole_rows(*q.shape[:2], q.device, torch.is_inference_mode_enabled())
    return (attend_flex if on_cuda else _attend_buckets)(q, k, v, mask, window)


@lru_cache(maxsize=8)
def _whole_rows(batch: int, length: int, device: torch.device, inference: bool) -> DocumentMask:  # noqa: ARG001
    """One document per row. What a pass in inference mode derives from the mask is of no use to a backward pass, hence
    one of each."""
    return DocumentMask.from_lengths([[length]] * batch, length).change(lambda tensor: tensor.to(device))


def _attend_buckets(q: Tensor, k: Tensor, v: Tensor, mask: DocumentMask, window: int) -> Tensor:
    B, L, H, E = q.shape
    K = k.shape[2]
    to_q, to_kv = _bucketed(mask, H), _bucketed(mask, K)
    slots = [count * width for count, width in mask.buckets]
    qs = select(q.reshape(-1, E), to_q).split([size * H for size in slots])
    ks = select(k.reshape(-1, E), to_kv).split([size * K for size in slots])
    vs = select(v.reshape(-1, E), to_kv).split([size * K for size in slots])
    longest = max(width for _, width in mask.buckets)
    span = min(longest, window) if window else longest
    bias = mask.derive(("bias", window, q.dtype), lambda: causal_bias(span, window, q.dtype, q.device))
    outs = []
    sees = iter(_grouped(mask, window))
    plain = len(mask.buckets) - mask.grouped
    for number, ((N, M), q_b, k_b, v_b) in enumerate(zip(mask.buckets, qs, ks, vs, strict=True)):
        inputs = q_b.view(N * K, H // K, M, E), k_b.view(N * K, M, E), v_b.view(N * K, M, E)
        if number < plain:
            out = causal_attention(*inputs, bias, window)
        else:
            out = causal.together_attention(*inputs, *next(sees))
        outs.append(out.view(-1, E))
    return select(torch.cat(outs), to_q.reversed()).view(B, L, H, E)


def _grouped(mask: DocumentMask, window: int) -> list[tuple[Tensor, Reach]]:
    """Of each bucket of documents with groups what `together_attention` needs to know."""
    return mask.derive(("together", window), lambda: _sees(mask, window)) if mask.grouped else []


def _sees(mask: DocumentMask, window: int) -> list[tuple[Tensor, Reach]]:
    assert mask.together is not None
    found = []
    slots = mask.slots.split([count * width for count, width in mask.buckets])
    for shape, places in list(zip(mask.buckets, slots, strict=True))[-mask.grouped :]:
        groups = mask.together.view(-1)[places].masked_fill_(places < 0, 0).view(shape)
        first, end = runs(groups)
        start = torch.zeros_like(first)
        if window:
            at = window_positions(groups)
            private = groups & PRIVATE
            monotone = (1 - private).cumsum(1) - (1 - private)
            start = torch.searchsorted(monotone, at - window + 1)
        start = torch.where((groups & DROPPED) > 0, first, torch.minimum(start, first))
        sees = torch.stack((start, end, torch.where((groups & PRIVATE) > 0, groups, 0))).to(torch.int32)
        blocks = [(int(a.min()), int(b.max())) for a, b in zip(start.split(BLOCK, 1), end.split(BLOCK, 1), strict=True)]
        found.append((sees, tuple(blocks)))
    return found


def _bucketed(mask: DocumentMask, heads: int) -> Selection:
    """How [B * L * heads, E] is taken into the buckets, each of (document, head, slot)."""
    return mask.derive(("heads", heads), lambda: _heads(mask, heads))


def _heads(mask: DocumentMask, heads: int) -> Selection:
    device = mask.ids.device
    head = torch.arange(heads, device=device)
    rows = torch.empty(len(mask.slots) * heads, dtype=torch.int64, device=device)
    sizes = [count * width for count, width in mask.buckets]
    parts = zip(mask.buckets, mask.slots.split(sizes), rows.split([size * heads for size in sizes]), strict=True)
    for (count, width), slots, out in parts:
        torch.add(head[:, None], slots.view(count, 1, width), alpha=heads, out=out.view(count, heads, width))
    blank = (rows < 0).nonzero().squeeze(1)
    rows[blank] = 0
    ids = mask.ids.view(-1)
    padding = (ids < 0).nonzero().squeeze(1)
    start, slot, width = mask.starts.long()
    back = (slot * heads - start)[ids] + torch.arange(len(ids), device=device)
    back_rows = torch.addcmul(back[:, None], width[ids][:, None], head)
    back_rows[padding] = 0
    return Selection(rows, blank, back_rows.view(-1), (padding[:, None] * heads + head).view(-1))


def complete(index: Tensor, real: Tensor, total: int, device: torch.device) -> Selection:
    """The selection that takes rows `index` of `total` where `real` and blanks elsewhere, with its inverse."""
    slots = real.nonzero().squeeze(1)
    inverse = torch.full((total,), -1, dtype=torch.int64, device=index.device)
    inverse[index[slots]] = slots
    missing = (inverse < 0).nonzero().squeeze(1)
    inverse[missing] = 0
    return Selection(*(t.to(device) for t in (index, (~real).nonzero().squeeze(1), inverse, missing)))
