"""Attention among packed documents on CUDA: FlexAttention (Dong et al., 2024, arXiv:2412.05496).

One compiled kernel skips the blocks of positions that no pair of one document lies in.

B batch rows, L positions of a row, H query heads, K key/value heads, E head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mio.core.model.documents import Documents

_BLOCK = 128
"""FlexAttention's block of positions."""


def attend_flex(q: Tensor, k: Tensor, v: Tensor, documents: Documents, window: int) -> Tensor:
    """`attend` on CUDA."""
    from torch.nn.attention.flex_attention import flex_attention

    # inside of a compiled block it is a part of that block's graph
    flex = flex_attention if torch.compiler.is_compiling() else _compiled_flex()
    mask = shared_mask(documents, window)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    out: Tensor = flex(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1])  # type: ignore[assignment]
    return out.transpose(1, 2)


def shared_mask(documents: Documents, window: int) -> Any:
    """The `BlockMask` of these documents, made once for all layers."""
    return documents.derive(("block_mask", window), lambda: block_mask(documents, window))


def block_mask(documents: Documents, window: int) -> Any:
    """FlexAttention's `BlockMask`: which blocks of keys a block of queries sees in part, and which in full.

    Documents lie in order, so the first and last positions of two blocks say whether any pair of theirs may see each
    other, and whether every pair does. Nothing of the size of L x L exists, as in torch's `create_block_mask`, and
    nothing waits for the device.
    """
    from torch.nn.attention.flex_attention import BlockMask

    ids = documents.ids
    B, L = ids.shape
    blocks = -(-L // _BLOCK)
    by_block = F.pad(ids, (0, blocks * _BLOCK - L), value=-1).view(B, blocks, _BLOCK)
    first, last, end = by_block[..., 0], by_block.amax(-1), by_block[..., -1]  # `end` is -1 if any is padding
    query = torch.arange(blocks, device=ids.device)[:, None]
    key = query.T
    some = (key <= query) & (last[:, None, :] >= first[:, :, None]) & (first[:, :, None] >= 0)
    full = (key < query) & (first[:, None, :] == end[:, :, None]) & (end[:, :, None] >= 0)
    if window:
        some &= (query - key - 1) * _BLOCK + 1 < window  # the nearest pair
        full &= (query - key + 1) * _BLOCK - 1 < window  # the farthest
    full &= some
    return BlockMask.from_kv_blocks(
        *_ordered(some & ~full), *_ordered(full), _BLOCK, document_mask(ids, window), seq_lengths=(L, L)
    )


def _ordered(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """int32 [B, 1, Q] and [B, 1, Q, K]: how many blocks of keys are chosen for each of queries; all, these first."""
    numbers = chosen[:, None].to(torch.int32)
    return numbers.sum(-1, dtype=torch.int32), numbers.argsort(dim=-1, descending=True, stable=True).to(torch.int32)


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
