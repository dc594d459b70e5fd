"""The synchroniser in a layer of the language model.

B rows, L positions, D width, N images, S cells of all levels of an image, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mio.plugins.mm_interleaved.norms import RMSNorm
from mio.plugins.mm_interleaved.options import MMInterleavedOptions
from mio.plugins.mm_interleaved.sampling import starts
from mio.plugins.mm_interleaved.synchroniser import FeatureSynchroniser, sight, spread


class LayerSynchroniser(nn.Module):
    """What a position takes from the maps of the images before it; every query looks around an image's centre.

    (`LlamaMMFSAttention` of `mm_interleaved/models/decoders/modeling_llama_mmfs.py`: norms, synchroniser, and a gate
    that begins at 0.)
    """

    def __init__(self, options: MMInterleavedOptions, width: int) -> None:
        super().__init__()
        vision, sync = options.vision, options.layers
        self.first = starts(vision.sides)[-sync.levels - 1]
        """First cell of the levels that are read."""
        self.gate = nn.Parameter(torch.zeros(1))
        self.attn = FeatureSynchroniser(
            width,
            vision.width,
            sync.width,
            sync.heads,
            sync.points,
            vision.sides[-sync.levels :],
            base=vision.grid,
            magnitude=sync.magnitude,
            images=sync.images,
        )
        self.norm1 = RMSNorm(width, eps=sync.epsilon)
        self.norm2 = RMSNorm(vision.width, eps=sync.epsilon)

    def forward(self, hidden: Tensor, maps: Tensor, visible: Tensor) -> Tensor:
        """`[B, L, D]` for `hidden` `[B, L, D]`, `maps` `[B, N, S, C]` and bool `visible` `[B, L, N]`."""
        sees = sight(visible)
        query = self.norm1(hidden[sees.queries])
        seen = self.norm2(maps[:, :, self.first :][sees.images])
        found = self.attn(query, query.new_full((1, 2), 0.5, dtype=torch.float32), seen, sees.seen, sees.there)
        return spread(found, sees, hidden.shape, self.attn.output_proj.bias) * self.gate.tanh()
