"""The network: two convolutions, layers with relative positions, adapter.

N items; F frames of all of them, M bands; P hidden vectors of all items, T those of the longest; V width of the tower,
H heads, E width of a head; S positions of all items, D width of the transformer.

Items lie end to end and only attention sees them side by side, so that nothing is computed for padding, and none sees
another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, relu, scaled_dot_product_attention

from mio import EncoderInput
from mio.plugins.audio_tower.encoder import STRIDE
from mio.plugins.audio_tower.options import AudioTowerOptions, position_count

Indices = npt.NDArray[np.int64]


class AudioTower(nn.Module):
    """Log mel energies to embeddings of positions. `layers` is the `nn.ModuleList`."""

    def __init__(self, options: AudioTowerOptions, width: int) -> None:
        super().__init__()
        self.options = options
        size = options.width
        self.convolutions = nn.Sequential(nn.Conv2d(1, size, 3, 2), nn.ReLU(), nn.Conv2d(size, size, 3, 2), nn.ReLU())
        self.flatten = nn.Linear(size * options.convolved_bands, size)
        self.embed = nn.Sequential(nn.Linear(size, size), nn.LayerNorm(size), nn.ReLU())
        self.layers = nn.ModuleList(AudioLayer(options) for _ in range(options.layers))
        self.norm = nn.LayerNorm(size)
        self.adapter = Adapter(options, width)

    def forward(self, items: EncoderInput) -> Tensor:
        """Embeddings `[S, D]` of the positions of all items."""
        counts = [length // STRIDE - 1 for length in items.lengths["frames"]]
        embeddings: Tensor = self.adapter(self.hidden(items.arrays["frames"], counts), counts)
        return embeddings

    def hidden(self, frames: Tensor, counts: Sequence[int]) -> Tensor:
        """Frames `[F, M]`, of an item `4 * (count + 1)`, to hidden vectors `[P, V]` of the last layer."""
        device = frames.device
        lengths = np.asarray(counts)[:, None]
        number = np.arange(max(counts))
        within = number < lengths
        convolved = self.convolutions(self.normalised(frames)[None, None])[0]  # [V, F / 4 - 1, bands]
        kept = _on(device, (_starts(lengths + 1) + number)[within])
        hidden = self.flatten(convolved.transpose(0, 1).flatten(1).index_select(0, kept))
        hidden = self.embed(hidden) * math.sqrt(self.options.width)
        # side by side: where the hidden vectors of each item stand, one behind the last where an item has no more
        places = _on(device, np.where(within, _starts(lengths) + number, lengths.sum()))
        back = _on(device, np.flatnonzero(within))
        times = sinusoids(len(number), self.options.width, device).to(hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, times, places, back)
        normed: Tensor = self.norm(hidden)
        return normed

    def normalised(self, frames: Tensor) -> Tensor:
        """Frames `[F, M]` of mean 0 and standard deviation 1, in the type of the weights."""
        # numbers of the recipe, not buffers: a run folder holds parameters
        mean, std = (torch.tensor(values, device=frames.device) for values in self.options.statistics)
        return ((frames - mean) / std).to(self.flatten.weight.dtype)


class AudioLayer(nn.Module):
    """One layer, norms first."""

    def __init__(self, options: AudioTowerOptions) -> None:
        super().__init__()
        width = options.width
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = RelativeAttention(width, options.heads)
        self.up, self.down = nn.Linear(width, options.ffn_width), nn.Linear(options.ffn_width, width)
        self.concat = nn.Linear(2 * width, width) if options.concat else None

    def forward(self, hidden: Tensor, times: Tensor, places: Tensor, back: Tensor) -> Tensor:
        """Hidden vectors `[P, V]` to the same; see `AudioTower.hidden` for the rest."""
        normed = self.norm1(hidden)
        attended = self.attention(normed, times, places, back)
        if self.concat is not None:
            attended = self.concat(torch.cat([normed, attended], dim=-1))
        hidden = hidden + attended
        fed: Tensor = self.down(relu(self.up(self.norm2(hidden))))
        return hidden + fed


class RelativeAttention(nn.Module):
    """Attention with the position terms of Transformer-XL (arXiv 1901.02860, section 3.3), without their shift: a key
    has a term of its time in the item, as WeNet and VITA have it.

    The score of a query q and a key k at the time t, (q + u) k + (q + v) p_t, is q (k + p_t) plus a number of the key's
    own, u k + v p_t, which goes in as a mask does.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.time = nn.Linear(width, width, bias=False)
        self.key_bias, self.time_bias = (nn.Parameter(torch.empty(heads, width // heads)) for _ in range(2))
        nn.init.xavier_uniform_(self.key_bias)
        nn.init.xavier_uniform_(self.time_bias)

    def forward(self, hidden: Tensor, times: Tensor, places: Tensor, back: Tensor) -> Tensor:
        """Normed `[P, V]`, sinusoids `[T, V]`, rows of the items `[N, T]`, and where they stand in `[N * T]`, `[P]`."""
        query, key, value = (
            self._beside(project(hidden), places) for project in (self.query, self.key, self.value)
        )  # [N, H, T, E]
        time = self.time(times).view(len(times), self.heads, -1).transpose(0, 1)  # [H, T, E]
        own = torch.einsum("nhte,he->nht", key, self.key_bias) + torch.einsum("hte,he->ht", time, self.time_bias)
        absent = (places == len(hidden))[:, None]
        mask = (own / math.sqrt(key.shape[-1])).masked_fill(absent, -torch.inf)[:, :, None]  # [N, H, 1, T]
        attended = scaled_dot_product_attention(query, key + time, value, attn_mask=mask.to(query.dtype))
        joined = attended.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, back)
        out: Tensor = self.out(joined)
        return out

    def _beside(self, packed: Tensor, places: Tensor) -> Tensor:
        """Items end to end `[P, V]` side by side `[N, H, T, E]`, zeros behind them."""
        padded = torch.cat([packed, packed.new_zeros(1, packed.shape[1])])
        return padded[places].view(*places.shape, self.heads, -1).transpose(1, 2)


class Adapter(nn.Module):
    """One position of two hidden vectors, at the transformer's width: a convolution of stride 2, with zeros behind each
    item, norm, activation, linear layer."""

    def __init__(self, options: AudioTowerOptions, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(options.width, 2 * options.width, options.adapter_kernel, 2)
        self.norm = nn.LayerNorm(2 * options.width, eps=1e-3)
        self.activation = gelu if options.adapter_activation == "gelu" else relu
        self.out = nn.Linear(2 * options.width, width)

    def forward(self, hidden: Tensor, counts: Sequence[int]) -> Tensor:
        """Hidden vectors `[P, V]`, as many of each item as `counts` says, to embeddings `[S, D]`."""
        first = 0
        seen = []
        for count in counts:
            rows = 2 * np.arange(position_count(count))[:, None] + np.arange(self.conv.kernel_size[0])
            seen.append(np.where(rows < count, rows + first, sum(counts)))
            first += count
        padded = torch.cat([hidden, hidden.new_zeros(1, hidden.shape[1])])
        windows = padded[_on(hidden.device, np.concatenate(seen))].flatten(1)  # [S, kernel * V]
        convolved = linear(windows, self.conv.weight.transpose(1, 2).flatten(1), self.conv.bias)
        embeddings: Tensor = self.out(self.activation(self.norm(convolved)))
        return embeddings


def sinusoids(count: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines of the times 0 to `count` - 1, float32 `[count, width]`."""
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * -(math.log(10_000.0) / width))
    angles = torch.arange(count, dtype=torch.float32)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(device)


def _starts(lengths: Indices) -> Indices:
    """Where each item `[N, 1]` of these lengths begins, laid end to end."""
    return np.cumsum(lengths, axis=0) - lengths


def _on(device: torch.device, indices: Indices) -> Tensor:
    """Indices as a tensor. They are counted in NumPy, since on a meta device nothing can be."""
    return torch.from_numpy(np.ascontiguousarray(indices, np.int64)).to(device)
