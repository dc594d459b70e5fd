"""Attention among packed documents on CUDA: FlexAttention (Dong et al., 2024, arXiv:2412.05496).

One compiled kernel skips the blocks of positions that no pair of one document lies in.

B batch rows, L positions of a row, H query heads, K key/value heads, E head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from mio.core.data.document_mask import BLOCK, DROPPED, PRIVATE, DocumentMask, visible_blocks, window_positions


def attend_flex(q: Tensor, k: Tensor, v: Tensor, mask: DocumentMask, window: int) -> Tensor:
    """`attend` on CUDA."""
    from torch.nn.attention.flex_attention import flex_attention

    # inside of a compiled block it is a part of that block's graph
    flex = flex_attention if torch.compiler.is_compiling() else _compiled_flex()
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    out: Tensor = flex(q, k, v, block_mask=shared_mask(mask, window), enable_gqa=q.shape[1] != k.shape[1])  # type: ignore[assignment]
    return out.transpose(1, 2)


def shared_mask(mask: DocumentMask, window: int) -> Any:
    """The `BlockMask` of a window, made once for all layers."""
    return mask.derive(("block_mask", window), lambda: block_mask(mask, window))


def block_mask(mask: DocumentMask, window: int) -> Any:
    """FlexAttention's `BlockMask`. Nothing waits for the device, but for groups whose blocks were not made before."""
    from torch.nn.attention.flex_attention import BlockMask

    counts, indices = mask.blocks.get(window) or visible_blocks(mask.ids, window, mask.together)
    of_keys, of_keys_full, of_queries, of_queries_full = zip(counts, indices, strict=True)
    L = mask.ids.shape[1]
    groups = mask.together
    visible = document_mask(mask.ids, window) if groups is None else together_mask(mask.ids, window, groups)
    return BlockMask((L, L), *of_keys, *of_keys_full, *of_queries, *of_queries_full, (BLOCK, BLOCK), visible)


def document_mask(ids: Tensor, window: int) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """FlexAttention's `mask_mod` for packed documents: same document, causal, within the window."""

    def mask(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: ARG001
        visible = (ids[batch, query] == ids[batch, key]) & (ids[batch, query] >= 0) & (key <= query)
        return visible & (query - key < window) if window else visible

    return mask


def together_mask(ids: Tensor, window: int, groups: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """`document_mask` of documents with groups, numbered as `DocumentMask.together` has them."""
    at = window_positions(groups).to(torch.int32)

    def mask(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: ARG001
        of_query, of_key = groups[batch, query], groups[batch, key]
        before = (key <= query) & ((of_key & PRIVATE) == 0) & ((of_query & DROPPED) == 0)
        if window:
            before = before & (at[batch, query] - at[batch, key] < window)
        visible = before | ((of_query == of_key) & (of_query > 0))
        return visible & (ids[batch, query] == ids[batch, key]) & (ids[batch, query] >= 0)

    return mask


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
