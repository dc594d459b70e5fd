"""Log-likelihoods of continuations: of what comes after a beginning, which several continuations may share.

A beginning is computed once, into a key-value cache, and the cache of it is copied for each continuation. On a CPU with
packed matrices a likelihood does not depend, bit by bit, on what is computed beside it (see `mio.core.model.packed`);
elsewhere another shape of the same products may change its last bits.

S sequences, L positions, V ids of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mio.core.data.items import change_items, items_from_json, items_to_json, pack_items
from mio.core.errors import UserError
from mio.core.model.cache import KVCache
from mio.core.model.transformer import Transformer
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendered import Item
from mio.core.tokens.spans import TokenArray

PASS = 8192
"""Positions that are computed together at most, unless one item has more."""
_LOGITS = 1 << 24
"""Scores of the next token that exist at once."""


class Continuation(NamedTuple):
    """A sequence of tokens of which the last ones are scored."""

    tokens: TokenArray
    """int32 `[n]`."""
    items: tuple[Item, ...]
    """Media in it that encoders read, prepared."""
    first: int
    """The first token that is scored, of 1 ... n - 1."""


@dataclass(frozen=True)
class Branches:
    """Continuations that begin alike."""

    continuations: Sequence[Continuation]
    shared: int
    """Tokens that all begin with, before any that is scored; no item lies across."""

    @classmethod
    def of(cls, continuations: Sequence[Continuation]) -> Branches:
        """With as much shared as there is."""
        one, *others = continuations
        shared = min(each.first for each in continuations) - 1
        for other in others:
            size = min(shared, len(other.tokens))
            same = one.tokens[:size] == other.tokens[:size]
            shared = size if same.all() else int(same.argmin())
            shared = _alike(one.items, other.items, shared)
        for item in one.items:
            if item.first < shared < item.end:
                shared = item.first
        return cls(continuations, shared)

    @property
    def longest(self) -> int:
        """Positions of the longest: its last token is not fed."""
        return max(len(each.tokens) for each in self.continuations) - 1

    def pieces(self, positions: int) -> Iterator[Branches]:
        """The same in pieces, none of which needs more than so many positions, but for a single continuation's."""
        count = max(1, positions // self.longest)
        for start in range(0, len(self.continuations), count):
            yield Branches(self.continuations[start : start + count], self.shared)

    def to_json(self) -> dict[str, Any]:
        """As values that JSON can hold, for ranks that compute together."""
        every = [[each.tokens.tolist(), items_to_json(each.items), each.first] for each in self.continuations]
        return {"continuations": every, "shared": self.shared}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Branches:
        """What `to_json` has made."""
        every = [
            Continuation(np.array(tokens, np.int32), items_from_json(items), first)
            for tokens, items, first in content["continuations"]
        ]
        return cls(every, content["shared"])


def _alike(one: Sequence[Item], other: Sequence[Item], shared: int) -> int:
    """How many of the first `shared` tokens hold the same items."""
    for mine, theirs in zip(one, other, strict=False):
        at = min(mine.first, theirs.first)
        if at >= shared:
            break
        if mine.media is not theirs.media or (mine.first, mine.positions) != (theirs.first, theirs.positions):
            return at
    rest = one[len(other) :] or other[len(one) :]
    return min(shared, rest[0].first) if rest else shared


def batches(branches: Sequence[Branches], positions: int) -> Iterator[list[int]]:
    """Numbers of branches that are computed together, of like length, so that their cache has so many positions at
    most unless one of them needs more."""
    order = sorted(range(len(branches)), key=lambda number: (branches[number].shared, branches[number].longest))
    batch: list[int] = []
    rows = longest = 0
    for number in order:
        count, length = len(branches[number].continuations), branches[number].longest
        if batch and (rows + count) * max(longest, length) > positions:
            yield batch
            batch, rows, longest = [], 0, 0
        batch.append(number)
        rows, longest = rows + count, max(longest, length)
    if batch:
        yield batch


@torch.inference_mode()
def log_likelihoods(
    transformer: Transformer, codecs: Codecs, size: int, branches: Sequence[Branches]
) -> list[list[npt.NDArray[np.float32]]]:
    """Of each continuation of each of `branches`: natural logarithms of the probabilities of its scored tokens, each
    after those before it, float32 `[n - first]`. NaN or infinite where the model's scores are.

    Args:
        size: of the vocabulary.

    Raises:
        UserError: memory does not suffice.
    """
    try:
        with torch.autocast(transformer.head_weight.device.type, enabled=False):
            return _computed(transformer, codecs, size, branches)
    except RuntimeError as error:  # torch's error for too little memory, on a CPU
        if isinstance(error, torch.OutOfMemoryError) or "allocate" in str(error):
            count = sum(len(one.continuations) for one in branches)
            raise UserError(
                f"{count} sequences of up to {max(one.longest for one in branches)} tokens do not fit into memory; "
                "score fewer together (`evaluate.batch`)"
            ) from error
        raise


def _computed(
    transformer: Transformer, codecs: Codecs, size: int, branches: Sequence[Branches]
) -> list[list[npt.NDArray[np.float32]]]:
    feed = _Feed(transformer, codecs)
    cache = transformer.cache(len(branches), max(one.longest for one in branches) + 1)
    feed.rows(cache, [_Piece(one.continuations[0], 0, one.shared) for one in branches])
    every = [(place, one) for place, own in enumerate(branches) for one in range(len(own.continuations))]
    pieces = {}
    for place, one in every:
        own = branches[place]
        each = own.continuations[one]
        pieces[place, one] = _Piece(each, own.shared, len(each.tokens) - 1)
    cache.keep(torch.tensor([place for place, _ in every], device=cache.lengths.device))
    found = [np.empty(len(pieces[key].of.tokens) - pieces[key].of.first, np.float32) for key in every]

    def score(row: int, at: int, hidden: Tensor) -> None:
        """Of hidden states [n, D] of a row from position `at` on."""
        each = pieces[every[row]].of
        skipped = max(0, each.first - 1 - at)
        wanted = each.tokens[at + skipped + 1 : at + len(hidden) + 1]
        if len(wanted):
            start = at + skipped + 1 - each.first
            found[row][start : start + len(wanted)] = of_tokens(transformer, hidden[skipped:], wanted, size)

    feed.rows(cache, [pieces[key] for key in every], score)
    by_branch: list[list[npt.NDArray[np.float32]]] = [[] for _ in branches]
    for (place, _), likelihoods in zip(every, found, strict=True):
        by_branch[place].append(likelihoods)
    return by_branch


class _Piece(NamedTuple):
    """Tokens `start` ... `end - 1` of a sequence, which are fed."""

    of: Continuation
    start: int
    end: int


@dataclass(frozen=True)
class _Feed:
    transformer: Transformer
    codecs: Codecs

    def rows(
        self,
        cache: KVCache,
        pieces: Sequence[_Piece],
        take: Callable[[int, int, Tensor], None] = lambda row, at, hidden: None,  # noqa: ARG005
    ) -> None:
        """Computes a piece of each row, some neighbouring rows at a time and so many positions of them at a time;
        `take` is given hidden states [n, D] by row and first position."""
        row = 0
        while row < len(pieces):
            longest, end = 0, row
            while end < len(pieces):
                length = max(longest, min(PASS, pieces[end].end - pieces[end].start))
                if end > row and length * (end + 1 - row) > PASS:
                    break
                longest, end = length, end + 1
            self._some(cache.sequences(row, end), pieces[row:end], row, take)
            row = end

    def _some(
        self, cache: KVCache, pieces: Sequence[_Piece], row: int, take: Callable[[int, int, Tensor], None]
    ) -> None:
        while any(piece.start < piece.end for piece in pieces):
            cuts = [_cut(piece) for piece in pieces]
            hidden = self._pass(cache, pieces, cuts)
            for place, (piece, cut) in enumerate(zip(pieces, cuts, strict=True)):
                if cut > piece.start:
                    take(row + place, piece.start, hidden[place, : cut - piece.start])
            pieces = [piece._replace(start=cut) for piece, cut in zip(pieces, cuts, strict=True)]

    def _pass(self, cache: KVCache, pieces: Sequence[_Piece], cuts: Sequence[int]) -> Tensor:
        """Hidden states [S, L, D] of the tokens of each piece up to its cut, which are then counted in the cache. What
        a row has left is padding in the slot behind it, which nobody sees before a token of its own is there."""
        counts = [cut - piece.start for piece, cut in zip(pieces, cuts, strict=True)]
        L, device = max(counts) + 1, cache.lengths.device
        tokens = np.zeros((len(pieces), L), np.int64)
        placed = []
        for place, (piece, cut) in enumerate(zip(pieces, cuts, strict=True)):
            tokens[place, : counts[place]] = piece.of.tokens[piece.start : cut]
            inside = (item for item in piece.of.items if piece.start <= item.first < cut)
            placed += [(place * L - piece.start, item) for item in inside]
        items = change_items(pack_items(placed, self.codecs), lambda tensor: tensor.to(device))
        lengths = torch.tensor(counts, device=device)
        positions = torch.minimum(cache.positions(L), (cache.lengths + lengths)[:, None])
        output = self.transformer(torch.from_numpy(tokens).to(device), positions, cache=cache, items=items)
        cache.advance(lengths)
        hidden: Tensor = output.hidden
        return hidden


def _cut(piece: _Piece) -> int:
    """Up to which token of a piece the next pass goes; an item is read in one."""
    cut = min(piece.end, piece.start + PASS)
    for item in piece.of.items:
        if piece.start <= item.first < cut < item.end:
            return item.first if item.first > piece.start else min(piece.end, item.end)
    return cut


def of_tokens(transformer: Transformer, hidden: Tensor, tokens: TokenArray, size: int) -> npt.NDArray[np.float32]:
    """float32 `[n]` of tokens `[n]`, of the hidden states [n, D] before them. Scores are made of all rows alike."""
    rows = max(1, _LOGITS // size)
    wanted = torch.from_numpy(tokens.astype(np.int64)).to(hidden.device)
    found = [
        transformer.logits(states, size).log_softmax(-1).gather(1, own[:, None])[:, 0]
        for states, own in zip(hidden.split(rows), wanted.split(rows), strict=True)
    ]
    likelihoods: npt.NDArray[np.float32] = torch.cat(found).cpu().numpy()
    return likelihoods
