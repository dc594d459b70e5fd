"""Static key-value cache for decoding a ragged batch.

On a CPU what a token sees of its past is computed in products whose results do not depend, bit by bit, on what else is
computed: of slots in whole steps of 16, which is what vectors hold, for at least four queries, as MKL multiplies fewer
in another order, and for 128 positions and of 128 slots at a time. On Intel's processors MKL must be in its strict mode
(`mio.core.products`).

B sequences, L positions, H query heads, K key/value heads, E head width, S slots.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mio.core.contract.backbone import TransformerConfig
from mio.core.model.map_cache import MapCache

_MATERIALISED = 512 * 512
_STEP, _ROWS, _BLOCK = 16, 4, 128


class KVCache:
    """Keys and values of each layer by absolute position, one document per sequence.

    A token at position p is stored in slot p and sees the slots up to p, so sequences of unequal length need no
    bookkeeping beyond their positions: right padding of a prompt lands in slots that nobody can see until the
    sequence's own tokens overwrite them. For inference: no gradient flows through what is stored.

        cache = KVCache(config, batch=2, capacity=64)
        model(prompts, cache.positions(prompts.shape[1]), cache=cache)   # prompts int64 [2, L], right-padded
        cache.advance(torch.tensor([3, 5]))                              # true lengths
        model(tokens, cache.positions(1), cache=cache)                   # one token each
        cache.advance(1)

    Args:
        maps: what layers read of the items of these sequences, which comes and goes with their keys and values.
        width: of the transformer, where its hidden states are kept too; 0: they are not.
        hidden_dtype: of these, by default that of keys and values.
    """

    def __init__(
        self,
        config: TransformerConfig,
        batch: int,
        capacity: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        maps: MapCache | None = None,
        width: int = 0,
        hidden_dtype: torch.dtype | None = None,
    ) -> None:
        self.capacity = capacity
        spare = torch.device(device or "cpu").type != "cpu"  # for what static steps compute of full sequences
        slots = _whole(capacity + spare)
        shape = (config.layers, batch, config.kv_heads or config.heads, slots, config.head_size)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)
        """int64 [B]: tokens of each sequence so far."""
        self.maps = maps
        self._constants: dict[str, Tensor] = {}
        """What `next` needs at every step."""
        kept = hidden_dtype or dtype
        self.hidden = torch.zeros(batch, capacity + spare, width, device=device, dtype=kept) if width else None
        """[B, S, D]: hidden states by position, where they are kept."""

    def positions(self, count: int) -> Tensor:
        """int64 [B, count]: positions of each sequence's next `count` tokens."""
        return self.lengths[:, None] + torch.arange(count, device=self.lengths.device)

    def advance(self, counts: Tensor | int) -> None:
        """Counts the tokens just written, `counts` int64 [B] or one number for all, as part of their sequences."""
        self.lengths += counts

    def keep(self, sequences: Tensor) -> None:
        """Keeps the sequences of these indices (int64 [N]), in this order; an index may repeat."""
        self.keys, self.values = self.keys[:, sequences], self.values[:, sequences]
        self.lengths = self.lengths[sequences]
        if self.maps is not None:
            self.maps.keep(sequences)
        if self.hidden is not None:
            self.hidden = self.hidden[sequences]

    def keep_hidden(self, positions: Tensor, hidden: Tensor) -> None:
        """Keeps hidden states [B, L, D] of tokens at these positions, int64 [B, L], where that is wanted."""
        if self.hidden is not None:
            sequence = torch.arange(len(positions), device=positions.device)[:, None]
            self.hidden[sequence, positions] = hidden.detach().to(self.hidden.dtype)

    def newest(self, most: int) -> tuple[Tensor, Tensor]:
        """Hidden states [B, C, D] of each sequence's last positions, the newest first, `most` at most, and bool [B, C],
        false where a sequence has no more; C is what the longest sequence has of them."""
        assert self.hidden is not None
        count = min(most, int(self.lengths.max()))
        place = self.lengths[:, None] - 1 - torch.arange(count, device=self.lengths.device)
        there = place >= 0
        found = self.hidden.gather(1, place.clamp(min=0)[..., None].expand(-1, -1, self.hidden.shape[2]))
        return torch.where(there[..., None], found, 0), there

    def taken(self, sequences: Sequence[int], room: int) -> KVCache:
        """A copy of some sequences, with room for so many further tokens of each. Their maps are not copied: what is
        appended there is appended here."""
        index = torch.tensor(sequences, device=self.lengths.device)
        one = copy.copy(self)
        one.lengths = self.lengths[index]
        used = int(one.lengths.max())
        *shape, _, E = self.keys.shape
        shape[1], one.capacity, one._constants = len(sequences), used + room, {}
        one.keys, one.values = (self.keys.new_zeros(*shape, _whole(used + room), E) for _ in range(2))
        one.keys[..., :used, :], one.values[..., :used, :] = (
            self.keys[:, index, :, :used],
            self.values[:, index, :, :used],
        )
        if self.maps is not None:
            one.maps = self.maps.sequences(sequences)
        if self.hidden is not None:
            one.hidden = F.pad(self.hidden[index, :used], (0, 0, 0, room))
        return one

    def put(self, sequences: Sequence[int], copied: KVCache) -> None:
        """Has sequences be what their copy (see `taken`) has become."""
        index = torch.tensor(sequences, device=self.lengths.device)
        count = min(copied.capacity, self.capacity)
        self.keys[:, index, :, :count], self.values[:, index, :, :count] = (
            part[..., :count, :] for part in (copied.keys, copied.values)
        )
        self.lengths[index] = copied.lengths
        if self.hidden is not None and copied.hidden is not None:
            self.hidden[index, :count] = copied.hidden[:, :count]

    def sequence(self, index: int) -> KVCache:
        """The cache of one sequence, in the memory of this one: what is written and counted there counts here."""
        return self.sequences(index, index + 1)

    def sequences(self, start: int, end: int) -> KVCache:
        """The same of neighbouring sequences."""
        some = copy.copy(self)
        some.keys, some.values = self.keys[:, start:end], self.values[:, start:end]
        some.lengths = self.lengths[start:end]
        if self.maps is not None:
            some.maps = self.maps.sequences(range(start, end))
        if self.hidden is not None:
            some.hidden = self.hidden[start:end]
        return some

    def swap(self, first: int, second: int, count: int) -> None:
        """Has two sequences change places; `count`: tokens of the longer one."""
        both, turned = [first, second], [second, first]
        for part in (self.keys, self.values):
            part[:, both, :, :count] = part[:, turned, :, :count]
        self.lengths[both] = self.lengths[turned]
        if self.maps is not None:
            self.maps.swap(first, second)
        if self.hidden is not None:
            self.hidden[both, :count] = self.hidden[turned, :count]

    def begin_with(self, index: int, source: int, count: int) -> None:
        """Has a sequence consist of the first `count` tokens of another, or of its own."""
        if source != index:
            self.keys[:, index, :, :count] = self.keys[:, source, :, :count]
            self.values[:, index, :, :count] = self.values[:, source, :, :count]
            if self.hidden is not None:
                self.hidden[index, :count] = self.hidden[source, :count]
        if self.maps is not None:
            self.maps.begin_with(index, source, count)
        self.lengths[index] = count

    def step(self, positions: Tensor, heads: int, windows: Iterable[int], together: Tensor | None = None) -> CacheStep:
        """What all layers, each of one of `windows`, need to write and read tokens at `positions` int64 [B, L].

        Args:
            together: int32 [B, L]: tokens of one number, of 1 ... L, are a group and see each other, besides what is
                before them; 0: none; negative: a group that sees nothing else. A group is written as a whole.

        Raises:
            ValueError: a position lies beyond the capacity (checked where it costs no synchronisation: on CPU).
        """
        _, B, K, S, _ = self.keys.shape
        device, on_cpu, L = positions.device, positions.device.type == "cpu", positions.shape[1]
        groups = None if together is None else _groups(positions, together)
        blocks = [Queries(slice(0, L), S)]
        if on_cpu:
            if (last := int(positions.max())) >= self.capacity:
                raise ValueError(f"position {last} lies beyond the cache's capacity of {self.capacity}")
            reach = positions if groups is None else torch.maximum(positions, groups.last.squeeze(-1))
            ends = [int(part.max()) + 1 for part in reach.split(_BLOCK, 1)]
            blocks = [Queries(slice(i * _BLOCK, min((i + 1) * _BLOCK, L)), _whole(end)) for i, end in enumerate(ends)]
        used = max(block.used for block in blocks)
        sequence, head = torch.arange(B, device=device)[:, None, None], torch.arange(K, device=device)
        slots = ((sequence * K + head) * S + positions[..., None]).view(-1)
        slot = torch.arange(used, device=device)
        past = positions[..., None] - slot
        masks = {}
        for window in windows:
            visible = (past >= 0) & (past < window) if window else past >= 0
            if groups is not None:
                alone, own = groups.alone, (slot >= groups.first) & (slot <= groups.last)
                visible = (visible & ~alone) | own
            mask = CacheMask(visible, K, heads // K, self.keys.dtype)
            if L * used <= _MATERIALISED:
                mask = mask._replace(kept=[mask.bias(block) for block in blocks])
            masks[window] = mask
        return CacheStep(self, slots, blocks, masks)

    def next(self, heads: int, windows: Iterable[int]) -> NextStep:
        """As `step`, for the next token of each sequence, on a CPU: with what is done once instead of in every layer.

        Raises:
            ValueError: a sequence is full.
        """
        _, B, K, S, _ = self.keys.shape
        if (last := int(self.lengths.max())) >= self.capacity:
            raise ValueError(f"position {last} lies beyond the cache's capacity of {self.capacity}")
        if not self._constants:
            self._constants["slot"] = torch.arange(S)
            self._constants["hidden"] = torch.tensor(-torch.inf, dtype=self.keys.dtype)
            self._constants["seen"] = torch.tensor(0.0, dtype=self.keys.dtype)
            self._constants["first"] = torch.empty(0, K, dtype=torch.int64)
        if len(self._constants["first"]) < B:
            self._constants["first"] = (torch.arange(B * K) * S).view(B, K)
        used, at = _whole(last + 1), self.lengths[:, None]
        slot = self._constants["slot"][:used]
        biases = {}
        for window in windows:
            unseen = slot > at
            if window:
                unseen |= slot <= at - window
            bias = torch.where(unseen, self._constants["hidden"], self._constants["seen"])
            rows = heads // K if self.keys.dtype != torch.float32 else max(_ROWS, heads // K)
            biases[window] = bias[:, None, None].expand(B, K, rows, used).reshape(B * K, rows, used)
        keys, values = (part.flatten(1, 2)[:, :, :used] for part in (self.keys, self.values))
        return NextStep(
            (self._constants["first"][:B] + at).view(-1),
            self.keys.flatten(1, 3).unbind(0),
            self.values.flatten(1, 3).unbind(0),
            keys.transpose(2, 3).unbind(0),
            values.unbind(0),
            biases,
        )


def _whole(slots: int) -> int:
    """So many slots or a few more, in whole steps."""
    return -(-slots // _STEP) * _STEP


class Queries(NamedTuple):
    """Queries whose scores exist at once, and the slots that any of them sees."""

    at: slice
    used: int


class _Groups(NamedTuple):
    """Of each token [B, L, 1]: the first and the last position of its group, itself where it is in none, and whether it
    sees nothing else."""

    first: Tensor
    last: Tensor
    alone: Tensor


def _groups(positions: Tensor, together: Tensor) -> _Groups:
    number = together.abs().long()
    first, last = (
        positions.new_zeros(len(positions), positions.shape[1] + 1)
        .scatter_reduce_(1, number, positions, reduce, include_self=False)
        .gather(1, number)
        .where(number > 0, positions)[..., None]
        for reduce in ("amin", "amax")
    )
    return _Groups(first, last, (together < 0)[..., None])


class CacheMask(NamedTuple):
    """What the layers of one window see of a cache."""

    visible: Tensor
    """bool [B, L, slots]."""
    kv_heads: int
    grouped: int
    """Query heads for each head of keys and values."""
    dtype: torch.dtype
    kept: Sequence[Tensor] = ()
    """Of each block of queries what is added to the scores, where it is small enough to be shared by all layers."""

    def bias(self, block: Queries) -> Tensor:
        """[B * K, queries, slots], of `H / K * L` queries or the four that are computed at least: what is added to the
        scores of a block."""
        seen = self.visible[:, block.at, : block.used]
        B, L, used = seen.shape
        bias = torch.zeros(seen.shape, dtype=self.dtype, device=seen.device).masked_fill_(~seen, -torch.inf)
        spread = bias[:, None, None].expand(B, self.kv_heads, self.grouped, L, used)
        return _at_least(spread.reshape(B * self.kv_heads, -1, used))


def _at_least(rows: Tensor) -> Tensor:
    """[N, queries, n] with as many queries as MKL computes alike."""
    count = rows.shape[1]
    needed = count < _ROWS and rows.device.type == "cpu" and rows.dtype == torch.float32
    return F.pad(rows, (0, 0, 0, _ROWS - count)) if needed else rows


def _weighted(shares: Tensor, values: Tensor) -> Tensor:
    """[N, queries, E]: sums of values [N, slots, E] by shares [N, queries, slots]. On a CPU of a block of slots at a
    time: how a longer sum is cut in pieces depends on the number of queries and slots."""
    slots = values.shape[1]
    if values.device.type != "cpu" or slots <= _BLOCK:
        return torch.bmm(shares, values)
    total = torch.bmm(shares[..., :_BLOCK], values[:, :_BLOCK])
    for start in range(_BLOCK, slots, _BLOCK):
        total += torch.bmm(shares[..., start : start + _BLOCK], values[:, start : start + _BLOCK])
    return total


class CacheStep(NamedTuple):
    """One forward pass over a cache."""

    cache: KVCache
    slots: Tensor
    blocks: Sequence[Queries]
    masks: dict[int, CacheMask]
    """By window."""

    def attend(self, layer: int, window: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Stores k and v [B, L, K, E] and lets q [B, L, H, E] look at what is stored, `window` positions back or all if
        that is 0. Returns [B, L, H, E]."""
        B, _, H, E = q.shape
        K = k.shape[2]
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys.view(-1, E).index_copy_(0, self.slots, k.detach().reshape(-1, E).to(keys.dtype))
        values.view(-1, E).index_copy_(0, self.slots, v.detach().reshape(-1, E).to(keys.dtype))
        queries, mask = q.transpose(1, 2).to(keys.dtype), self.masks[window]
        if not mask.kept and keys.device.type != "cpu":
            seen = mask.visible[:, None]
            out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, enable_gqa=H != K)
            return out.transpose(1, 2).to(q.dtype)
        outs = []
        for number, block in enumerate(self.blocks):
            grouped = queries[:, :, block.at].reshape(B * K, -1, E)
            bias = mask.kept[number] if mask.kept else mask.bias(block)
            of_keys, of_values = keys[:, :, : block.used].flatten(0, 1), values[:, :, : block.used].flatten(0, 1)
            scores = torch.baddbmm(bias, _at_least(grouped), of_keys.transpose(1, 2), alpha=E**-0.5)
            out = _weighted(scores.softmax(-1), of_values)[:, : grouped.shape[1]]
            outs.append(out.reshape(B, H, -1, E))
        out = outs[0] if len(outs) == 1 else torch.cat(outs, 2)
        return out.transpose(1, 2).to(q.dtype)


class NextStep(NamedTuple):
    """One forward pass of the next token of each sequence of a cache; lists are by layer."""

    slots: Tensor
    written_keys: Sequence[Tensor]
    written_values: Sequence[Tensor]
    keys: Sequence[Tensor]
    """[B * K, E, slots]."""
    values: Sequence[Tensor]
    biases: dict[int, Tensor]
    """By window what is added to the scores."""

    def attend(self, layer: int, window: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As `CacheStep.attend`, of one position."""
        B, _, H, E = q.shape
        bias = self.biases[window]
        self.written_keys[layer].index_copy_(0, self.slots, k.reshape(-1, E).to(bias.dtype))
        self.written_values[layer].index_copy_(0, self.slots, v.reshape(-1, E).to(bias.dtype))
        products, rows, _ = bias.shape
        queries = q.reshape(products, -1, E).to(bias.dtype)
        grouped = queries.shape[1]
        if grouped == 1 < rows:
            queries = torch.cat((queries,) * rows, 1)
        elif grouped < rows:
            queries = F.pad(queries, (0, 0, 0, rows - grouped))
        scores = torch.baddbmm(bias, queries, self.keys[layer], alpha=E**-0.5)
        return _weighted(scores.softmax(-1), self.values[layer])[:, :grouped].reshape(B, 1, H, E).to(q.dtype)
