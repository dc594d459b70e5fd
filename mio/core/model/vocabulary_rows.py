"""Moves the rows of an embedding or head from one vocabulary to another, block by block and by name.

New rows are drawn around the mean of the trained rows, with their covariance scaled down (Hewitt 2021, "Initializing
new word embeddings for pretrained language models"; `resize_token_embeddings(mean_resizing=True)` of transformers). At
the mean, a new token's logit is the average logit, so that n new tokens beside m old ones take at most about n / m of
the probability that the trained model gave its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mio.core.errors import VocabularyError
from mio.core.recipe.rules import asked_blocks
from mio.core.tokens.vocabulary import Vocabulary

COVARIANCE_SCALE = 1e-2
"""Scale of the trained rows' covariance. A tenth of their spread keeps Hewitt's bound within exp(variance / 2), a few
percent, and yet distinguishes the codes of one codebook from the first step on. The 1e-9 of transformers does not: it
is lost when the rows are rounded to bfloat16, and all new tokens start as the same input."""

_SAMPLE = 1024
"""Trained rows that new rows are combined from."""

Ranges = tuple[tuple[int, int], ...]
"""Ids as (first, end), in order."""


def block_ranges(vocabulary: Vocabulary, patterns: Sequence[str], known: int) -> Ranges:
    """Ids of the blocks that match any of `patterns`, of a stage that starts with `known` ids: later blocks are `new`.

    A vocabulary only grows at its end and a stage keeps its own, so that `new` are the same blocks however often the
    stage is interrupted. Neighbouring blocks are one range.
    """
    ranges: list[tuple[int, int]] = []
    for block in asked_blocks(vocabulary.blocks, patterns, known):
        first, end = block.start, block.start + block.size
        if ranges and ranges[-1][1] == first:
            ranges[-1] = ranges[-1][0], end
        else:
            ranges.append((first, end))
    return tuple(ranges)


@dataclass(frozen=True)
class RowReport:
    """Rows of the new matrix by origin."""

    kept: int
    """Copied bit by bit, those of absent plugins included."""
    new: int
    """Drawn around the mean of the trained rows."""
    absent: int
    """Of `kept`: rows of blocks whose plugin is not in use."""


@torch.no_grad()
def migrate_rows(weight: Tensor, old: Vocabulary, new: Vocabulary, seed: int) -> tuple[Tensor, RowReport]:
    """Rows of vocabulary `new` made from `weight` `[>= old.size, D]`, the rows of vocabulary `old`, or a bias
    `[>= old.size]`, each number of which is a row.

    Returns the matrix `[new.rows, D]`, or the bias `[new.rows]`, in the same dtype on the same device, and the counts.
    Blocks are matched by name and need not keep their place, so that this also reads the rows of a foreign checkpoint.
    A new block's rows depend on the trained rows, `seed` and the block's name alone, not on what else is new.

    Raises VocabularyError when `weight` has too few rows, or a block of `old` is not in `new` or has another size.
    """
    if weight.dim() == 1:
        rows, report = migrate_rows(weight[:, None], old, new, seed)
        return rows[:, 0], report
    if weight.shape[0] < old.size:
        raise VocabularyError(
            f"the matrix has {weight.shape[0]} rows, its vocabulary {old.size} ids: they do not belong together"
        )
    sources = {block.name: block for block in old.blocks}
    lost = sources.keys() - {block.name for block in new.blocks}
    if lost:
        raise VocabularyError(
            f"trained blocks would be lost: {', '.join(sorted(lost))}; grow the old vocabulary instead"
        )
    rows = weight.new_zeros(new.rows, weight.shape[1])
    kept = absent = 0
    trained = weight[: old.size]
    mean = trained.mean(dim=0, dtype=torch.float32)
    for block in new.blocks:
        here = slice(block.start, block.start + block.size)
        source = sources.get(block.name)
        if source is None:
            rows[here] = _draw(trained, mean, block.size, seed, block.name).to(rows)
            continue
        if source.size != block.size:
            raise VocabularyError(
                f"block `{block.name}` has {source.size} trained rows, the new vocabulary {block.size}"
            )
        rows[here] = weight[source.start : source.start + source.size]
        kept += block.size
        absent += block.size if block.absent else 0
    return rows, RowReport(kept=kept, new=new.size - kept, absent=absent)


def _draw(trained: Tensor, mean: Tensor, count: int, seed: int, name: str) -> Tensor:
    """`count` normal rows around `mean`, float32 `[count, D]`.

    With z standard normal over n trained rows x, mean + sum_i z_i (x_i - mean) / sqrt(n) has exactly their covariance:
    no `[D, D]` matrix and no factorisation of it. The n are a random subset, whose expectation is the full covariance.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    total = trained.shape[0]
    picked = torch.randint(total, (_SAMPLE,), generator=generator) if total > _SAMPLE else torch.arange(total)
    noise = torch.randn(count, len(picked), generator=generator).to(trained.device)
    spread = trained[picked.to(trained.device)].float() - mean
    return torch.addmm(mean, noise, spread, alpha=(COVARIANCE_SCALE / len(picked)) ** 0.5)
