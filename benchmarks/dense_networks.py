"""Networks that read maps and make pictures, for `plan.py`: an encoder with maps, adapters that read them, and a head
with own positions or without. They compute the same whatever there is to be seen, and a good part of the memory of a
step is theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
from small_encoder import PatchEncoder

SHAPE = (16, 32)
"""Of every picture."""
CELLS, CHANNELS = 32, 256


class DenseEncoder(PatchEncoder):
    """`PatchEncoder` with a map of a cell per patch, for pictures of one size."""

    maps = (CELLS, CHANNELS)

    together = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.fingerprint += "-dense"

    def dummy(self) -> dict[str, np.ndarray]:
        return self.prepare(np.zeros(SHAPE, np.uint8))

    def module(self, width: int) -> Any:
        from torch import Tensor, nn

        class Network(nn.Module):
            def __init__(self, inner: nn.Module) -> None:
                super().__init__()
                self.inner = inner
                self.map = nn.Linear(width, CHANNELS)

            def forward(self, items: Any) -> tuple[Tensor, Tensor]:
                embeddings = self.inner(items)
                return embeddings, self.map(embeddings).view(-1, CELLS, CHANNELS)

        return Network(super().module(width))


class DenseAdapter:
    """In every second layer, cross-attention to the maps that a position sees."""

    fingerprint = "dense-adapter"
    reads = "picture"

    def layers(self, count: int) -> range:
        return range(0, count, 2)

    def module(self, width: int) -> Any:
        import torch
        import torch.nn.functional as F
        from torch import Tensor, nn

        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm = nn.LayerNorm(width)
                self.query = nn.Linear(width, width)
                self.read = nn.Linear(CHANNELS, 2 * width)
                self.nothing = nn.Parameter(torch.zeros(1, 1, CHANNELS))
                self.out = nn.Linear(width, width)
                self.gate = nn.Parameter(torch.zeros(width))

            def forward(self, hidden: Tensor, maps: Tensor, visible: Tensor) -> Tensor:
                rows = len(hidden)
                read = torch.cat((self.nothing.expand(rows, 1, -1), maps.flatten(1, 2)), 1)
                seen = F.pad(visible.repeat_interleave(CELLS, 2), (1, 0), value=True)
                q = self.query(self.norm(hidden)).unflatten(2, (-1, 32)).transpose(1, 2)
                k, v = self.read(read).unflatten(2, (2, -1, 32)).permute(2, 0, 3, 1, 4)
                mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])
                return self.out(mixed.transpose(1, 2).flatten(2)) * self.gate

        return Network()


class DenseHead:
    """Learns the way from noise to a picture in one step: in positions of its own, one a patch, or of the positions and
    the map before it."""

    drop = 0.1

    def __init__(self, own: bool) -> None:
        self.fingerprint = f"dense-head-{own}"
        self.context = 0 if own else 64
        self.maps = {} if own else {"picture": 1}
        self.writes = CELLS if own else 0

    def positions(self, media: Any) -> int:  # noqa: ARG002
        return self.writes

    def target(self, media: Any) -> dict[str, np.ndarray]:
        patches = np.asarray(media, np.float32).reshape(4, 4, 8, 4).swapaxes(1, 2).reshape(CELLS, 16)
        return {"picture": patches / 127.5 - 1}

    def noise(self, target: Any, random: np.random.Generator) -> dict[str, np.ndarray]:
        noise = random.standard_normal(target["picture"].shape, np.float32)
        return {"noise": noise, "time": np.full((CELLS, 1), random.random(), np.float32)}

    def example(self) -> Any:
        return np.zeros(SHAPE, np.uint8)

    def save(self, media: Any, stem: Any) -> Any:
        np.save(stem.with_suffix(".npy"), media)
        return stem.with_suffix(".npy")

    def module(self, width: int) -> Any:
        return _head_network(width, self.writes > 0)


def _head_network(width: int, own: bool, layers: int = 4, heads: int = 8) -> Any:
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.query, self.read, self.out = (nn.Linear(width, size * width) for size in (1, 2, 1))

        def forward(self, x: Tensor, given: Tensor, mask: Tensor | None) -> Tensor:
            q = self.query(self.norm(x)).unflatten(2, (heads, -1)).transpose(1, 2)
            k, v = self.read(given).unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            return x + self.out(mixed.transpose(1, 2).flatten(2))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.among, self.across = Attention(), Attention()
            self.network = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
            )

        def forward(self, x: Tensor, given: Tensor, mask: Tensor | None) -> Tensor:
            x = self.across(self.among(x, x, None), given, mask)
            return x + self.network(x)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into = nn.Linear(17, width)
            self.empty = nn.Parameter(torch.zeros(width))
            self.map = nn.Linear(CHANNELS, width)
            self.layers = nn.ModuleList(Layer() for _ in range(layers))
            self.out = nn.Linear(width, 16)

        def inputs(self, items: Any) -> tuple[Tensor, None]:
            return self.noisy(items), None

        def noisy(self, items: Any) -> Tensor:
            time, picture, noise = (items.arrays[name] for name in ("time", "picture", "noise"))
            return self.begun(time * picture + (1 - time) * noise, time)

        def begun(self, patches: Tensor, time: Tensor) -> Tensor:
            found: Tensor = self.into(torch.cat((patches, time), -1))
            return found

        def forward(self, condition: Any, items: Any, kept: Any) -> Tensor:  # noqa: ARG002
            due = (items.arrays["picture"] - items.arrays["noise"]).view(-1, CELLS, 16)
            begun = condition.own if own else self.noisy(items)
            return (self.way(begun, condition, items.dropped) - due).square().mean((1, 2))

        def way(self, begun: Tensor, condition: Any, dropped: Tensor) -> Tensor:
            x, given, mask = begun.float().view(-1, CELLS, width), begun.float().view(-1, CELLS, width), None
            if not own:
                context = torch.where(dropped[:, None, None], self.empty, condition.context.float())
                maps, there = condition.maps["picture"]
                given = torch.cat((context, self.map(maps).flatten(1, 2)), 1)
                mask = torch.cat((condition.context_mask, there.repeat_interleave(CELLS, 1)), 1)[:, None, None]
            for layer in self.layers:
                x = layer(x, given, mask)
            found: Tensor = self.out(x)
            return found

        def sample(self, condition: Any, sampling: Any, run: Any) -> list[Any]:
            count, device = len(sampling.seeds), self.empty.device
            draws = [np.random.default_rng(seed).standard_normal((CELLS, 16), np.float32) for seed in sampling.seeds]
            noise = torch.from_numpy(np.stack(draws)).to(device)
            begun = self.begun(noise, noise.new_zeros(count, CELLS, 1))
            begun = run(begun, False) if own else begun
            made = noise + self.way(begun, condition, torch.zeros(count, dtype=torch.bool, device=device))
            pixels = made.add(1).mul(127.5).clamp(0, 255).byte().cpu().numpy()
            return list(pixels.reshape(-1, 4, 8, 4, 4).swapaxes(2, 3).reshape(-1, *SHAPE))

    if not own:
        del Network.inputs  # without it no positions are asked for
    return Network()
