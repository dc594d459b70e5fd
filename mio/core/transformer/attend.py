"""Attention among packed documents: one seam, `attend`, with a way for each kind of device.

On CPU the documents of a batch are gathered into a few buckets of nearly equal length, so that many short documents
cost one batched product per bucket. Bucket padding is harmless under a causal mask: it comes after what is real.
On CUDA one compiled FlexAttention kernel skips the blocks between documents (Dong et al., 2024, arXiv:2412.05496).

B batch rows, L positions of a row, H query heads, K key/value heads, E head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mio.core.errors import DataError
from mio.core.transformer.causal import causal_attention, causal_bias

_BUCKET_STEP = 16


class Documents:
    """The packed documents of a batch: which positions may see each other. Immutable; `to` copies it to a device."""

    def __init__(self, lengths: tuple[tuple[int, ...], ...], context: int, ids: Tensor) -> None:
        self.lengths = lengths
        self.context = context
        self.ids = ids
        """int32 [B, L]: index of the document within its row, -1 at padding."""
        self._derived: dict[Any, Any] = {}

    @classmethod
    def from_lengths(cls, rows: Sequence[Sequence[int]], context: int) -> Documents:
        """Documents from the lengths of each row's documents, in order; the rest of a row up to `context` is padding.

        Raises:
            DataError: a length is below 1, a row is longer than `context`, or there is no document at all.
        """
        lengths = tuple(tuple(int(length) for length in row) for row in rows)
        if not any(lengths):
            raise DataError("a batch needs at least one document")
        ids = torch.full((len(lengths), context), -1, dtype=torch.int32)
        for index, row in enumerate(lengths):
            if sum(row) > context or any(length < 1 for length in row):
                raise DataError(f"row {index}: documents of lengths {list(row)} do not fit a context of {context}")
            of_row = torch.tensor(row, dtype=torch.int64)
            ids[index, : sum(row)] = torch.arange(len(row), dtype=torch.int32).repeat_interleave(of_row)
        return cls(lengths, context, ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Documents:
        return Documents(self.lengths, self.context, self.ids.to(device, non_blocking=non_blocking))

    @property
    def valid(self) -> Tensor:
        """bool [B, L]: False at padding."""
        return self.derive("valid", lambda: self.ids >= 0)

    def derive(self, key: Any, build: Callable[[], Any]) -> Any:
        """A value computed from these documents once and shared by all layers."""
        if key not in self._derived:
            self._derived[key] = build()
        return self._derived[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_derived": {}}


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
        return _attend_flex(q, k, v, documents or _whole_rows(*q.shape[:2], q.device), window)
    return _attend_buckets(q, k, v, documents or _whole_rows(*q.shape[:2], q.device), window)


@lru_cache(maxsize=8)
def _whole_rows(batch: int, length: int, device: torch.device) -> Documents:
    return Documents.from_lengths([[length]] * batch, length).to(device)


def _attend_buckets(q: Tensor, k: Tensor, v: Tensor, documents: Documents, window: int) -> Tensor:
    B, L, H, E = q.shape
    K = k.shape[2]
    buckets = documents.derive("buckets", lambda: _buckets(documents))
    to_q: Selection = documents.derive(("heads", H), lambda: _heads(documents, buckets, H))
    to_kv: Selection = documents.derive(("heads", K), lambda: _heads(documents, buckets, K))
    sizes = [len(bucket) * bucket.width for bucket in buckets]
    qs = select(q.reshape(-1, E), to_q).split([size * H for size in sizes])
    ks = select(k.reshape(-1, E), to_kv).split([size * K for size in sizes])
    vs = select(v.reshape(-1, E), to_kv).split([size * K for size in sizes])
    longest = max(bucket.width for bucket in buckets)
    span = min(longest, window) if window else longest
    bias = documents.derive(("bias", window, q.dtype), lambda: causal_bias(span, window, q.dtype, q.device))
    outs = []
    for bucket, q_b, k_b, v_b in zip(buckets, qs, ks, vs, strict=True):
        N, M = len(bucket) * K, bucket.width
        out = causal_attention(q_b.view(N, H // K, M, E), k_b.view(N, M, E), v_b.view(N, M, E), bias, window)
        outs.append(out.view(-1, E))
    return select(torch.cat(outs), to_q.reversed()).view(B, L, H, E)


class _Bucket(NamedTuple):
    width: int
    starts: tuple[int, ...]
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.starts)


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


def document_mask(ids: Tensor, window: int) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """FlexAttention's `mask_mod` for packed documents: same document, causal, within the window."""

    def mask(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: ARG001
        visible = (ids[batch, query] == ids[batch, key]) & (ids[batch, query] >= 0) & (key <= query)
        return visible & (query - key < window) if window else visible

    return mask


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _attend_flex(q: Tensor, k: Tensor, v: Tensor, documents: Documents, window: int) -> Tensor:
    from torch.nn.attention.flex_attention import create_block_mask

    B, L = q.shape[:2]

    def build() -> Any:
        return create_block_mask(document_mask(documents.ids, window), B, None, L, L, device=str(q.device))

    block_mask = documents.derive(("block_mask", window), build)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return _compiled_flex()(q, k, v, block_mask=block_mask, enable_gqa=q.shape[1] != k.shape[1]).transpose(1, 2)
