"""A small encoder with what real ones have, for benchmarks and tests: attention within items of any length, norms, a
convolution, a table of places, a buffer. Also a plugin: pictures are read by it."""

from __future__ import annotations

from typing import Any

import numpy as np

import mio


class PatchEncoder:
    """Pictures uint8 `[H, W]` whose sides are multiples of 4, a position per patch of 4 x 4."""

    def __init__(self, width: int = 32, layers: int = 2, fingerprint: str = "patches") -> None:
        self.width = width
        self.layers = layers
        self.fingerprint = f"{fingerprint}-{width}-{layers}"

    def positions(self, media: Any) -> int:
        return int(np.asarray(media).size // 16)

    def prepare(self, media: Any) -> dict[str, np.ndarray]:
        pixels = np.asarray(media, np.uint8)
        height, width = pixels.shape
        patches = pixels.reshape(height // 4, 4, width // 4, 4).swapaxes(1, 2).reshape(-1, 1, 4, 4)
        return {"patches": np.ascontiguousarray(patches)}

    def dummy(self) -> dict[str, np.ndarray]:
        return self.prepare(np.zeros((8, 8), np.uint8))

    def module(self, width: int) -> Any:
        import torch
        import torch.nn.functional as F
        from torch import Tensor, nn

        own, layers = self.width, self.layers

        class Layer(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm, self.after = nn.LayerNorm(own), nn.LayerNorm(own)
                self.projections = nn.Linear(own, 3 * own)
                self.output = nn.Linear(own, own)
                self.network = nn.Sequential(nn.Linear(own, 4 * own), nn.GELU(), nn.Linear(4 * own, own))

            def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
                q, k, v = self.projections(self.norm(x)).view(len(x), 3, -1, 16).permute(1, 2, 0, 3)
                mixed = F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask)[0]
                x = x + self.output(mixed.transpose(0, 1).flatten(1))
                return x + self.network(self.after(x))

        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.patch = nn.Conv2d(1, own, 4)
                self.place = nn.Parameter(torch.randn(64, own) * 0.02)
                self.layers = nn.ModuleList(Layer() for _ in range(layers))
                self.norm = nn.LayerNorm(own)
                self.projector = nn.Linear(own, width)
                self.register_buffer("mean", torch.full((1,), 0.5), persistent=False)
                self.register_buffer("scale", torch.tensor(2.0))
                self.register_buffer("seen", torch.tensor(0))

            def forward(self, items: mio.EncoderInput) -> Tensor:
                patches = items.arrays["patches"]
                x = self.patch((patches.float() / 255 - self.mean) * self.scale).flatten(1)
                lengths = items.lengths["patches"]
                # counted in NumPy: a plan runs this on tensors without values
                place = np.concatenate([np.arange(length) for length in lengths]) % len(self.place)
                item = np.repeat(np.arange(len(lengths)), lengths)
                x = x + self.place[torch.from_numpy(place).to(x.device)]
                mask = torch.from_numpy(item[:, None] == item).to(x.device)
                for layer in self.layers:
                    x = layer(x, mask=mask)
                return self.projector(self.norm(x))

        return Network()


@mio.hookimpl
def mio_encoder(modality: str, options: Any) -> PatchEncoder | None:
    return PatchEncoder(**options) if modality == "image" else None
