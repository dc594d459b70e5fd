"""The causal transformer over the joint vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.networks import Networks
from mio.core.data.document_mask import DROPPED, DocumentMask
from mio.core.data.items import EncoderItems
from mio.core.data.made import MadeItems
from mio.core.model.attention import prepare
from mio.core.model.cache import KVCache
from mio.core.model.encoders import RowMaps, keep_maps, maps_of_rows, nothing_seen, seen_together, splice
from mio.core.model.experts import balance_loss
from mio.core.model.heads import begin, losses
from mio.core.model.initial import initialise
from mio.core.model.layers import Block, RMSNorm, Shared, compute_dtype
from mio.core.model.lora import TrainedRows
from mio.core.model.map_cache import MapCache
from mio.core.model.networks import factories, initialise_networks, make_network, plugin_networks, reach_all
from mio.core.model.rope import frequencies, tables
from mio.core.model.vocabulary_rows import Ranges


class Output(NamedTuple):
    """A tuple rather than a dataclass: FSDP finds the tensors of a module's output only in standard containers."""

    hidden: Tensor
    """[B, L, D] after the final norm, in the dtype that the head computes in."""
    auxiliary: Tensor
    """float32 scalar to add to the loss: the experts' load balancing times its weight; 0 without experts."""
    losses: dict[str, Tensor]
    """float32 [N] by modality: the loss of each item that a head learns to make."""


class Transformer(nn.Module):
    """Decoder of the Llama family.

    Construction under `torch.device("meta")` allocates nothing; `to_empty` and `reset_parameters` finish it.

    Args:
        config: architecture. Raises `UserError` where it is inconsistent.
        rows: rows of the embedding and the head: the vocabulary's size, padded.
        networks: of plugins, which read and make media.
    """

    def __init__(
        self,
        config: TransformerConfig,
        rows: int,
        networks: Networks = Networks(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        config.check()
        self.config = config
        # drawing what `reset_parameters` replaces takes, on the meta device, torch's compiler: half a second to import
        self.embedding = nn.Embedding.from_pretrained(torch.empty(rows, config.width), freeze=False)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = None if config.tied_embeddings else nn.Linear(config.width, rows, bias=config.head_bias)
        self.networks = networks
        """What plugins supply, of which `encoders`, `heads` and the layers' `adapters` are the networks."""
        self.encoders, self.heads = nn.ModuleDict(), nn.ModuleDict()
        for name, factory in factories(networks, config.layers):
            self._add(name, make_network(name, factory, config.width))
        self.rows: TrainedRows | None = None
        self.frozen: frozenset[str] = frozenset()
        """Parameters that adapters keep as they are (see `mio.core.model.lora`)."""
        self.windows = tuple(dict.fromkeys(config.windows))
        """Windows of attention that any layer has."""
        # Not a buffer: it is made of the configuration alone, and must survive `to_empty` and a change of dtype.
        self._frequencies = frequencies(config.head_size, config.rope_theta, config.rope_scaling)
        self._turns: dict[torch.dtype, tuple[Tensor, Tensor]] = {}
        """Rotary tables of all positions of the largest cache so far, by dtype."""
        self.packed_head: Callable[[Tensor, int, int], Tensor] | None = None
        """The head of a copy that decodes with packed matrices (see `mio.core.model.packed`)."""
        self.devices = 1
        """Those that hold this copy together (see `mio.core.generation.replicas`)."""
        self.reset_parameters()

    def _add(self, name: str, network: nn.Module) -> None:
        """Puts a plugin's network in the place that its name says."""
        kind, _, own = name.partition(".")
        if kind in ("encoders", "heads"):
            getattr(self, kind)[own] = network
            if kind == "heads":
                reach_all(network)
        else:
            layer, _, plugin = own.split(".")
            block = self.layers[int(layer)]
            assert isinstance(block, Block)
            block.add_adapter(plugin, self.networks.adapters[plugin].reads, network)

    def reset_parameters(self, seed: int = 0) -> None:
        """Initial weights of a seed (see `mio.core.model.initial`)."""
        initialise(self, self.config.layers, self.config.init_std, seed)
        initialise_networks(self, seed)

    def train(self, mode: bool = True) -> Transformer:
        """Networks of plugins stay in evaluation mode: without dropout and statistics of a batch, what they make of an
        item is the same whatever else is trained on beside it, and in whatever order."""
        super().train(mode)
        for _, network in plugin_networks(self):
            network.eval()
        return self

    @property
    def head_weight(self) -> Tensor:
        """[rows, D]: the matrix that scores the next token."""
        return self.embedding.weight if self.head is None else self.head.weight

    @property
    def head_bias(self) -> Tensor | None:
        """[rows]: what is added to the scores."""
        return None if self.head is None else self.head.bias

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: DocumentMask | None = None,
        cache: KVCache | None = None,
        embeddings: Tensor | None = None,
        items: Mapping[str, EncoderItems] = MappingProxyType({}),
        together: Tensor | None = None,
        made: Mapping[str, MadeItems] = MappingProxyType({}),
    ) -> Output:
        """
        Args:
            tokens: int64 [B, L].
            positions: int64 [B, L]: position of each token within its document.
            mask: packed documents; None: each row is one.
            cache: decode: store these tokens at `positions` and let them see what is stored. Excludes `mask`.
            embeddings: [B, L, D] in place of the tokens' own.
            items: media that encoders read, by modality: their embeddings take the places of the tokens'.
            together: with a cache: int32 [B, L], tokens that see each other (see `KVCache.step`), by default those of
                items whose encoder says so. A mask has its own.
            made: media that heads learn to make, by modality.

        Raises:
            ValueError: both `mask` and `cache`, or a position beyond the cache.
            PluginError: a network of a plugin gave something else than it had said.
        """
        if cache is not None and mask is not None:
            raise ValueError("a cache holds one document per sequence: give `mask` or `cache`, not both")
        x = self.embed(tokens) if embeddings is None else embeddings
        x, maps = splice(x, self.encoders, self.networks.encoders, items)
        x, kept = begin(x, self.heads, made)
        if mask is not None:
            mask, config = replace(mask), self.config  # what is derived lasts as long as this pass
            prepare(mask, config.heads, config.kv_heads or config.heads, self.windows)
        if self._frequencies.device != tokens.device:  # moved once: a copy would wait for the work that is queued
            with torch.inference_mode(False):
                self._frequencies = self._frequencies.to(tokens.device)
        step, turning = None, compute_dtype(x) if self.packed_head is None else torch.float32
        if cache is not None:
            if together is None:
                together = seen_together(self.networks.encoders, items, tokens)
            if cache.maps is not None:
                keep_maps(cache.maps, maps, items, positions)
            step = cache.step(positions, self.config.heads, self.windows, together)
            cos, sin = (one[positions] for one in self._rotary(cache.capacity + 1, turning))
        else:
            cos, sin = tables(positions, self._frequencies, turning)
        shared = Shared(cos, sin, mask, step, frozenset(name for name, one in items.items() if one.dummy))
        read = self._maps(x, maps, items, cache, positions) if self.networks.adapters else {}
        if read and (alone := _alone(mask, together)) is not None:
            read = {name: (own, visible & ~alone[..., None]) for name, (own, visible) in read.items()}
        balances = []
        for layer in self.layers:
            x, balance = layer(x, shared, read) if layer.reads else layer(x, shared)
            if balance is not None:
                balances.append(balance)
        if balances and self.config.router_aux_weight:
            auxiliary = self.config.router_aux_weight * balance_loss(balances)
        else:
            auxiliary = x.new_zeros((), dtype=torch.float32)
        hidden = self.norm(x)
        if cache is not None:
            cache.keep_hidden(positions, hidden)
        return Output(hidden, auxiliary, losses(hidden, self.heads, made, maps, kept))

    def decode(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Hidden states [B, D] of a further token, int64 [B], of each sequence of a cache, which is stored but not yet
        counted: what `forward` gives, with less around it, which takes as long as the layers of a small model."""
        if self.packed_head is None or self.networks.adapters:
            hidden: Tensor = self(tokens[:, None], cache.positions(1), cache=cache).hidden[:, 0]
            return hidden
        positions, x = cache.lengths[:, None], self.embedding(tokens[:, None])
        step = cache.next(self.config.heads, self.windows)
        cos, sin = self._rotary(cache.capacity + 1, torch.float32)
        shared = Shared(cos[positions], sin[positions], None, step)
        for layer in self.layers:
            x, _ = layer.forward(x, shared)
        x = self.norm(x)
        if cache.hidden is not None:
            cache.keep_hidden(positions, x)
        return x[:, 0]

    def _rotary(self, capacity: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Tables [S, 1, E] of the positions of a cache, made once. An angle's cosine is then the same in every step,
        which it is not, in the last bit, where it is computed among others."""
        made = self._turns.get(dtype)
        if made is None or len(made[0]) < capacity or made[0].device != self._frequencies.device:
            with torch.inference_mode(False), torch.no_grad():
                every = torch.arange(max(1024, 1 << (capacity - 1).bit_length()), device=self._frequencies.device)
                made = self._turns[dtype] = tables(every, self._frequencies, dtype)
        return made

    def _maps(
        self,
        x: Tensor,
        maps: Mapping[str, Tensor],
        items: Mapping[str, EncoderItems],
        cache: KVCache | None,
        positions: Tensor,
    ) -> RowMaps:
        """What layers read of media, by modality, beside the embeddings [B, L, D]."""
        names = {adapter.reads for adapter in self.networks.adapters.values()}
        if cache is None:
            read = maps_of_rows(maps, items, x.shape[1])
        else:
            kept = cache.maps
            read = {} if kept is None else {name: kept.read(name, positions) for name in names & set(kept.modalities)}
        for name in names - set(read):
            read[name] = nothing_seen(self.networks.encoders[name], x)
        return read

    def cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache of so many sequences, of so many tokens each, on the device of the weights and in their dtype,
        or in float32 where matrices are packed, with all that this transformer has to keep beside keys and values.
        Raises `RuntimeError` for too little memory.
        """
        weight, networks = self.head_weight, self.networks
        read = {adapter.reads for adapter in networks.adapters.values()}
        read |= {name for head in networks.heads.values() for name in head.maps}
        shapes = {name: getattr(one, "maps", None) for name, one in networks.encoders.items() if name in read}
        maps = MapCache({name: shape for name, shape in shapes.items() if shape}, batch, weight.device)
        width = self.config.width if any(head.context for head in networks.heads.values()) else 0
        dtype = weight.dtype if self.packed_head is None else torch.float32
        kept = maps if shapes else None
        return KVCache(self.config, batch, capacity, weight.device, dtype, kept, width, weight.dtype)

    def embed(self, tokens: Tensor) -> Tensor:
        """[B, L, D] of int64 [B, L]."""
        x: Tensor = self.embedding(tokens)
        return x if self.rows is None else self.rows.embed(tokens, x)

    @property
    def replaced_head_rows(self) -> tuple[Tensor, Ranges] | None:
        """Rows [n, D] that take the place of rows of `head_weight`, and their ids; None where there are none."""
        if self.rows is None:
            return None
        rows = self.rows.embedding if self.head is None else self.rows.head
        return None if rows is None else (rows, self.rows.ranges)

    def logits(self, hidden: Tensor, size: int, first: int = 0) -> Tensor:
        """float32 [..., size - first] of hidden [..., D]: scores of the ids from `first` up to `size`. The vocabulary's
        `size` leaves out the padding rows."""
        if self.packed_head is not None:
            return self.packed_head(hidden, first, size)
        dtype, start = compute_dtype(hidden), 0
        bias = None if self.head_bias is None else self.head_bias[first:size].to(dtype)
        scores = F.linear(hidden, self.head_weight[first:size].to(dtype), bias).float()
        if (replaced := self.replaced_head_rows) is not None:
            rows = replaced[0].to(dtype)
            for begin, end in replaced[1]:
                low, high = max(begin, first), min(end, size)
                if low < high:
                    own = rows[start + low - begin : start + high - begin]
                    biases = None if bias is None else bias[low - first : high - first]
                    scores[..., low - first : high - first] = F.linear(hidden, own, biases).float()
                start += end - begin
        return scores


def _alone(mask: DocumentMask | None, together: Tensor | None) -> Tensor | None:
    """bool [B, L]: positions that see nothing but each other, of packed documents or of what is written to a cache;
    None where there are none."""
    if mask is not None:
        return None if mask.together is None else mask.together & DROPPED != 0
    return None if together is None else together < 0
