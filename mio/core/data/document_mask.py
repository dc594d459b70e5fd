"""Which positions of a batch may see each other, in the forms that attention reads: a function of the documents'
lengths and of the groups in them, made in the data workers.

B rows, L positions of a row, D documents, S slots, Q blocks of queries, K blocks of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from mio.core.errors import DataError

BLOCK = 128
"""FlexAttention's block of positions."""
_BUCKET_STEP = 16
_GROUPED = 2**40
"""More than any width of a bucket."""
PRIVATE, DROPPED = 1, 2
"""Kinds of a group: bits of its number."""


class Together(NamedTuple):
    """A group: positions of one document that see each other, and not those before themselves alone."""

    row: int
    first: int
    end: int
    """Its positions are first ... end - 1 of the row."""
    private: bool = False
    """Whether nobody else sees it. Windows then count positions as if it was not there."""
    dropped: bool = False
    """Whether it sees nothing but itself."""


@dataclass(eq=False)
class DocumentMask:
    """The packed documents of a batch. On CPUs attention gathers them into buckets of nearly equal length; each has
    slots for the positions of its bucket's longest. On CUDA it skips blocks of positions that share no document.

    A position sees those of its document up to itself and, in a group, all of the group (see `Together`). A window
    limits what it sees, but for its own group.
    """

    ids: Tensor
    """int32 [B, L]: number of the document within the batch, -1 at padding."""
    starts: Tensor
    """int32 [3, D]: first position of each document in the flattened batch, its first slot, and its number of slots."""
    slots: Tensor
    """int32 [S]: the position in the flattened batch that each slot takes, -1 for none."""
    buckets: list[tuple[int, int]]
    """(documents, slots of each) of each bucket, in the order of the slots."""
    blocks: dict[int, tuple[Tensor, Tensor]]
    """By window of attention: see `visible_blocks`."""
    together: Tensor | None = None
    """int32 [B, L]: of a position in a group, the group's number, from 1 on, times 4 plus its kinds; 0 elsewhere. None
    where there is no group."""
    grouped: int = 0
    """How many buckets, the last ones, consist of documents with groups; the others' have none."""
    _derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_lengths(
        cls,
        rows: Sequence[Sequence[int]],
        context: int,
        windows: Sequence[int] = (),
        together: Sequence[Together] = (),
    ) -> DocumentMask:
        """The mask of rows of documents of these lengths; the rest of a row up to `context` is padding.

        Args:
            windows: of the layers, where attention runs on CUDA; 0 is a layer without one.
            together: groups of positions that see each other.

        Raises:
            DataError: a length is below 1, a row is longer than `context`, or there is no document at all; a group is
                empty, shares a position with another, or does not lie inside of one document.
        """
        lengths = np.fromiter(chain.from_iterable(rows), np.int64)
        if not len(lengths):
            raise DataError("a batch needs at least one document")
        used = [sum(row) for row in rows]
        for index, row in enumerate(rows):
            if used[index] > context or min(row, default=1) < 1:
                raise DataError(f"row {index}: documents of lengths {list(row)} do not fit a context of {context}")
        number = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        ids = np.full((len(rows), context), -1, np.int32)
        ids[np.arange(context) < np.array(used)[:, None]] = number
        groups = _numbered(ids, together) if together else None
        before = np.cumsum(lengths) - lengths
        free = np.cumsum([0, *(context - length for length in used[:-1])])  # padding before each row
        starts = before + np.repeat(free, [len(row) for row in rows])
        # Coarser with length: at most an eighth is padding beyond the first step, and there are few buckets.
        bits = np.frexp(lengths - 1)[1].astype(np.int64)
        step = np.maximum(_BUCKET_STEP, 1 << np.maximum(bits - 3, 0))
        widths = -(-lengths // step) * step
        kinds = widths  # of buckets: by length, those of documents with groups last
        if groups is not None:
            grouped = np.zeros(len(lengths), np.int64)
            grouped[ids[groups > 0]] = _GROUPED
            kinds = widths + grouped
        order = np.argsort(kinds, kind="stable")
        first = np.empty_like(widths)
        first[order] = np.cumsum(widths[order]) - widths[order]
        token = np.arange(len(number))
        slots = np.full(widths.sum(), -1, np.int32)
        slots[token + (first - before)[number]] = token + (starts - before)[number]
        kind, count = np.unique(kinds, return_counts=True)
        numbers = None if groups is None else torch.from_numpy(groups)
        return cls(
            torch.from_numpy(ids),
            torch.from_numpy(np.stack((starts, first, widths)).astype(np.int32)),
            torch.from_numpy(slots),
            list(zip(count.tolist(), (kind % _GROUPED).tolist(), strict=True)),
            {window: visible_blocks(torch.from_numpy(ids), window, numbers) for window in windows},
            numbers,
            int((kind >= _GROUPED).sum()),
        )

    def change(self, function: Callable[[Tensor], Tensor]) -> DocumentMask:
        """The mask with the results of `function` in place of its tensors."""
        # not asked of `together`, which is None for a while too where a batch becomes one tensor
        groups = function(cast(Tensor, self.together)) if self.grouped else None
        return DocumentMask(
            function(self.ids),
            function(self.starts),
            function(self.slots),
            self.buckets,
            {window: (function(counts), function(indices)) for window, (counts, indices) in self.blocks.items()},
            groups,
            self.grouped,
        )

    @property
    def valid(self) -> Tensor:
        """bool [B, L]: False at padding."""
        return self.derive("valid", lambda: self.ids >= 0)

    def derive(self, key: Any, build: Callable[[], Any]) -> Any:
        """A value computed from the mask once and shared by all layers."""
        if key not in self._derived:
            self._derived[key] = build()
        return self._derived[key]


def _numbered(ids: npt.NDArray[np.int32], together: Sequence[Together]) -> npt.NDArray[np.int32]:
    """Groups as `DocumentMask.together` has them. Raises as `DocumentMask.from_lengths`."""
    groups = np.zeros_like(ids)
    for number, (row, first, end, private, dropped) in enumerate(together, 1):
        inside = 0 <= row < len(ids) and 0 <= first < end <= ids.shape[1] and ids[row, first] >= 0
        if not inside or ids[row, first] != ids[row, end - 1]:
            raise DataError(f"row {row}: positions {first} to {end} are to see each other, but are not in one document")
        place = groups[row, first:end]
        if place.any():
            raise DataError(
                f"row {row}: positions {first} to {end} are to see each other, but some are in another group"
            )
        place[:] = number << 2 | PRIVATE * private | DROPPED * dropped
    return groups


def runs(groups: Tensor) -> tuple[Tensor, Tensor]:
    """int64 [..., L] twice: of each position the first of its group and the one behind it, of groups int32 [..., L] as
    `DocumentMask.together` has them; what is in none is a group of its own."""
    index = torch.arange(groups.shape[-1], device=groups.device).expand(groups.shape)
    begins = torch.ones_like(groups, dtype=torch.bool)
    begins[..., 1:] = (groups[..., 1:] != groups[..., :-1]) | (groups[..., 1:] == 0)
    ends = begins.roll(-1, -1)
    first = index.where(begins, 0).cummax(-1).values
    last = index.where(ends, groups.shape[-1]).flip(-1).cummin(-1).values.flip(-1)
    return first, last + 1


def window_positions(groups: Tensor) -> Tensor:
    """int64 [..., L]: positions as windows count them, of groups int32 [..., L]. What follows a private group goes on
    as if it was not there: in a cache, such a group is overwritten."""
    counted = (groups & PRIVATE) ^ 1
    before = counted.cumsum(-1) - counted
    index = torch.arange(groups.shape[-1], device=groups.device)
    return before + (index - runs(groups)[0]).where(counted == 0, 0)


def visible_blocks(ids: Tensor, window: int, groups: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """int32 [4, B, 1, Q] and [4, B, 1, Q, K]: FlexAttention's numbers of blocks and their indices, those that count
    first, of the keys that a block of queries sees in part, those that it sees in full, the queries that see a block of
    keys in part, and those that see it in full.

    Documents lie in order, so the first and last positions of two blocks say whether any pair of theirs may see each
    other, and whether every pair does. Nothing of the size of L x L exists, as in torch's `create_block_mask`.
    """
    some, full = _blocks(ids, window) if groups is None else _blocks_with_groups(ids, window, groups)
    part = some & ~full
    chosen = torch.stack((part, full, part.mT, full.mT))[:, :, None].to(torch.int32)
    return chosen.sum(-1, dtype=torch.int32), chosen.argsort(dim=-1, descending=True, stable=True).to(torch.int32)


def _blocks(ids: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """bool [B, Q, K] twice: whether any pair of positions may see each other, and whether every pair does."""
    B, L = ids.shape
    blocks = -(-L // BLOCK)
    by_block = F.pad(ids, (0, blocks * BLOCK - L), value=-1).view(B, blocks, BLOCK)
    first, last, end = by_block[..., 0], by_block.amax(-1), by_block[..., -1]  # `end` is -1 if any is padding
    query = torch.arange(blocks, device=ids.device)[:, None]
    key = query.T
    some = (key <= query) & (last[:, None, :] >= first[:, :, None]) & (first[:, :, None] >= 0)
    full = (key < query) & (first[:, None, :] == end[:, :, None]) & (end[:, :, None] >= 0)
    if window:
        some &= (query - key - 1) * BLOCK + 1 < window  # the nearest pair
        full &= (query - key + 1) * BLOCK - 1 < window  # the farthest
    return some, full & some


def _blocks_with_groups(ids: Tensor, window: int, groups: Tensor) -> tuple[Tensor, Tensor]:
    """`_blocks` of documents with groups, computed where no device waits. Rows are cut where blocks, documents and
    groups begin. All of a piece's positions are alike, so its first and its last say what they all see."""
    place = window_positions(groups)
    shape = (len(ids), *[-(-ids.shape[1] // BLOCK)] * 2)
    some, full = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for row, values in enumerate(zip(ids.cpu().numpy(), groups.cpu().numpy(), place.cpu().numpy(), strict=True)):
        document, group, at = values
        cut = np.flatnonzero(np.diff(document, prepend=-2) | np.diff(group, prepend=-1))
        first = np.union1d(cut, np.arange(0, len(document), BLOCK))
        last = np.append(first[1:], len(document)) - 1
        any_pair, every_pair = _pieces(
            document[first], group[first], np.stack((first, last, at[first], at[last])), window
        )
        blocks = np.searchsorted(first, np.arange(0, len(document), BLOCK))
        for out, pairs, reduce in ((some, any_pair, np.logical_or), (full, every_pair, np.logical_and)):
            out[row] = reduce.reduceat(reduce.reduceat(pairs, blocks, axis=0), blocks, axis=1)
    if ids.shape[1] % BLOCK:
        full[:, -1] = full[:, :, -1] = False  # what is behind a row's end sees nothing
    return torch.from_numpy(some).to(ids.device), torch.from_numpy(full).to(ids.device)


def _pieces(
    document: npt.NDArray[Any], group: npt.NDArray[Any], borders: npt.NDArray[Any], window: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """bool [P, P] twice for P pieces of a row: whether any pair of positions, and whether every pair, of a piece of
    queries and a piece of keys may see each other. `borders` [4, P]: first and last position, also as windows count."""
    first, last, first_at, last_at = borders
    within = (document[:, None] == document) & (document >= 0)
    grouped = within & (group[:, None] == group) & (group > 0)
    before = within & ((group & DROPPED) == 0)[:, None] & ((group & PRIVATE) == 0)
    some, full = before & (first <= last[:, None]), before & (last <= first[:, None])
    if window:  # of two pieces the nearest and the farthest pair; a piece always sees something of itself
        same = np.eye(len(document), dtype=np.bool_)
        some &= same | (first_at[:, None] - last_at < window)
        full &= last_at[:, None] - first_at < window
    return some | grouped, full | grouped
