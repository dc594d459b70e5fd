"""Static key-value cache for decoding a ragged batch."""

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
    ) -> None:
        shape = (config.layers, batch, config.kv_heads or config.heads, capacity, config.head_size)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)
        """int64 [B]: tokens of each sequence so far."""
        self.maps = maps
        self.hidden = torch.zeros(batch, capacity, width, device=device, dtype=dtype) if width else None
        """[B, S, D]: hidden states by position, where they are kept."""

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

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
        shape[1] = len(sequences)
        one.keys, one.values = (self.keys.new_zeros(*shape, used + room, E) for _ in range(2))
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
        used = S
        if positions.device.type == "cpu":
            used = int(positions.max()) + 1
            if used > S:
                raise ValueError(f"position {used - 1} lies beyond the cache's capacity of {S}")
        device = positions.device
        sequence, head = torch.arange(B, device=device)[:, None, None], torch.arange(K, device=device)
        slots = ((sequence * K + head) * S + positions[..., None]).view(-1)
        slot = torch.arange(used, device=device)
        past = positions[..., None] - slot
        groups = None if together is None else _groups(positions, together)
        masks = {}
        for window in windows:
            visible = (past >= 0) & (past < window) if window else past >= 0
            if groups is not None:
                alone, own = groups.alone, (slot >= groups.first) & (slot <= groups.last)
                visible = (visible & ~alone) | own
            bias = None
            if positions.shape[1] * used <= _MATERIALISED:
                bias = torch.zeros_like(visible, dtype=self.keys.dtype).masked_fill_(~visible, -torch.inf)
                bias = bias[:, None, None].expand(B, K, heads // K, -1, -1).reshape(B * K, -1, used)
            masks[window] = CacheMask(visible[:, None], bias)
        return CacheStep(self, slots, used, masks)


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
    bias: Tensor | None
    """The same as what is added to the scores, where they are small enough to exist."""


class CacheStep(NamedTuple):
    """One forward pass over a cache."""

    cache: KVCache
    slots: Tensor
    used: int
    masks: dict[int, CacheMask]
    """By window."""

    def attend(self, layer: int, window: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Stores k and v [B, L, K, E] and lets q [B, L, H, E] look at what is stored, `window` positions back or all if
        that is 0. Returns [B, L, H, E]."""
        B, L, H, E = q.shape
        K = k.shape[2]
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys.view(-1, E).index_copy_(0, self.slots, k.detach().reshape(-1, E).to(keys.dtype))
        values.view(-1, E).index_copy_(0, self.slots, v.detach().reshape(-1, E).to(keys.dtype))
        keys, values = keys[:, :, : self.used], values[:, :, : self.used]
        queries = q.transpose(1, 2).to(keys.dtype)
        visible, bias = self.masks[window]
        if bias is not None:
            grouped = queries.reshape(B * K, H // K * L, E)
            scores = torch.baddbmm(bias, grouped, keys.flatten(0, 1).transpose(1, 2), alpha=E**-0.5)
            out = torch.bmm(scores.softmax(-1), values.flatten(0, 1)).view(B, H, L, E)
        else:
            out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible, enable_gqa=H != K)
        return out.transpose(1, 2).to(q.dtype)
