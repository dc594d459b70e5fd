"""Small networks that read maps and make pictures, for `adapters.py` and the tests beside it.

They do what real ones may: compute what can be seen and nothing else, no graph where nothing can; parts of an encoder
that serve its maps alone; a learned empty condition that a pass without dropped items never touches. Beside each other
on several devices they must still be gathered and summed up equally often.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from small_encoder import PatchEncoder

CELLS, CHANNELS = 4, 6
SIDE = 4
"""Of the picture that a head learns to make."""


class MapEncoder(PatchEncoder):
    """`PatchEncoder` with a map of four cells, each computed by a unit of its own."""

    maps = (CELLS, CHANNELS)

    def __init__(self, together: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.fingerprint += "-maps"
        self.together = together

    def module(self, width: int) -> Any:
        import torch
        from torch import Tensor, nn

        class Network(nn.Module):
            def __init__(self, inner: nn.Module) -> None:
                super().__init__()
                self.inner = inner
                self.cells = nn.ModuleList(nn.Linear(16, CHANNELS) for _ in range(CELLS))

            def forward(self, items: Any) -> tuple[Tensor, Tensor]:
                pixels = (items.arrays["patches"].float() / 255).flatten(1)
                mean = torch.stack([one.mean(0) for one in pixels.split(list(items.lengths["patches"]))])
                return self.inner(items), torch.stack([cell(mean) for cell in self.cells], 1)

        return Network(super().module(width))


class PatchAdapter:
    """In every second layer, what gates of a position let through of the maps that it sees."""

    fingerprint = "patch-adapter"
    reads = "image"

    def layers(self, count: int) -> range:
        return range(0, count, 2)

    def module(self, width: int) -> Any:
        import torch
        from torch import Tensor, nn

        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm = nn.LayerNorm(width)
                self.gates = nn.Linear(width, CELLS * CHANNELS)
                self.out = nn.Linear(CELLS * CHANNELS, width)
                self.scale = nn.Parameter(torch.zeros(width))

            def forward(self, hidden: Tensor, maps: Tensor, visible: Tensor) -> Tensor:
                if not visible.any():
                    return torch.zeros_like(hidden)
                rows, places, items = visible.nonzero(as_tuple=True)
                gates = self.gates(self.norm(hidden[rows, places])).sigmoid()
                read = self.out(gates * maps[rows, items].flatten(1)) * self.scale
                return torch.zeros_like(hidden, dtype=read.dtype).index_put((rows, places), read, accumulate=True)

        return Network()


class PictureHead:
    """Learns the way from noise to a picture of 4 x 4 in one step, in positions of its own or of those before it."""

    drop = 0.25

    def __init__(self, own: bool) -> None:
        self.own = own
        self.fingerprint = f"picture-head-{own}"
        self.context = 0 if own else 6
        self.maps = {"image": 2}
        self.writes = SIDE if own else 0

    def positions(self, media: Any) -> int:  # noqa: ARG002
        return self.writes

    def target(self, media: Any) -> dict[str, np.ndarray]:
        pixels = np.asarray(media, np.float32)
        height, width = (side // SIDE for side in pixels.shape)
        return {"picture": pixels.reshape(SIDE, height, SIDE, width).mean((1, 3)).reshape(1, -1) / 255}

    def noise(self, target: Any, random: np.random.Generator) -> dict[str, np.ndarray]:
        noise = random.standard_normal(target["picture"].shape, np.float32)
        return {"noise": noise, "time": random.random((1, 1), np.float32)}

    def example(self) -> np.ndarray:
        return np.zeros((SIDE, SIDE), np.uint8)

    def module(self, width: int) -> Any:
        return _head_network(width, self.own)


def _head_network(width: int, own: bool) -> Any:
    import torch
    from torch import Tensor, nn

    inner = 24

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(inner)
            self.network = nn.Sequential(nn.Linear(inner, 2 * inner), nn.GELU(), nn.Linear(2 * inner, inner))

        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            return x + self.network(self.norm(x) + condition)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into = nn.Linear(SIDE + 1, width) if own else nn.Linear(SIDE * SIDE + 1, inner)
            self.condition = nn.Linear(width, inner)
            self.empty = nn.Parameter(torch.zeros(inner))
            self.map = nn.Linear(CELLS * CHANNELS, inner)
            self.layers = nn.ModuleList(Layer() for _ in range(2))
            self.out = nn.Linear(inner, SIDE if own else SIDE * SIDE)
            self.register_buffer("scale", torch.tensor(2.0))

        def noisy(self, items: Any) -> tuple[Tensor, Tensor, Tensor]:
            picture, noise, time = (items.arrays[name] for name in ("picture", "noise", "time"))
            picture = picture * self.scale - 1
            return time * picture + (1 - time) * noise, picture - noise, time

        def forward(self, condition: Any, items: Any, kept: Any) -> Tensor:
            noisy, due, time = self.noisy(items)
            maps, there = condition.maps["image"]
            seen = maps.new_zeros(len(due), inner)
            for number in range(maps.shape[1]):  # of passes without items before one, none
                seen = seen + self.map(maps[:, number].flatten(1)) * there[:, number, None]
            if own:
                given = self.condition(condition.own).view(-1, SIDE, inner) + kept.view(-1, 1, inner)
                x, given = given, (seen * ~items.dropped[:, None])[:, None]
            else:
                known = condition.context_mask[..., None]
                given = (self.condition(condition.context) * known).sum(1) / known.sum(1) + seen
                if items.dropped.any():
                    given = torch.where(items.dropped[:, None], self.empty, given)
                x = self.into(torch.cat((noisy, time), 1))
            for layer in self.layers:
                x = layer(x, given)
            return (self.out(x).flatten(1) - due).square().mean(1)

    def inputs(self: Any, items: Any) -> tuple[Tensor, Tensor]:
        noisy, _, time = self.noisy(items)
        lines = torch.cat((noisy.view(-1, SIDE, SIDE), time[:, None].expand(-1, SIDE, 1)), 2)
        return self.into(lines).flatten(0, 1), self.empty * time

    if own:
        Network.inputs = inputs  # type: ignore[attr-defined]
    return Network()
