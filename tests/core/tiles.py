"""A toy modality that networks read and make: tiles of four numbers from 0 to 9 in a file.

Its encoder makes maps, which adapters in every second layer read; its head learns to make the tile that comes next:
with the option `own` in positions of its own, which see each other, and otherwise of the positions before it.
A plugin for tests: `MIO_PLUGINS=tiles=.../tiles.py`, and `WORLD` a recipe for the files that `write` makes.
"""

import json
from pathlib import Path

import numpy as np

import mio

WORLD = """
name: tiles
plugins: {text: {tokenizer: bytes}, tiles: {}}
model: {width: 32, layers: 3, heads: 2}
data:
  groups:
    tiles: {sources: {lines: {dataset: jsonl, options: {path: tiles.jsonl}}}}
  packing: {context: 64, window: 8}
mixture: {ratios: {tiles: 1}}
train: {steps: 6, rows: 4, micro_rows: 2, loss: {heads: {tile: 2.0}}}
runtime: {threads: 1, accelerator: cpu, log_every: 2, checkpoint_every: 2}
"""
SIZE = 4


def write(folder, records=24):
    """Files of tiles, records of words and tiles in turn, some of words alone, and the recipe `tiles.yaml`."""
    draw = np.random.default_rng(0)
    (folder / "tiles.yaml").write_text(WORLD)
    lines = []
    for index in range(records):
        parts = []
        for turn in range(index % 4):
            name = f"{index}-{turn}.tile"
            (folder / name).write_text("".join(map(str, draw.integers(0, 10, SIZE))))
            parts += ["now " + "ab"[turn % 2], {"tile": name}]
        lines.append({"parts": [*parts, f"end {index}"]})
    (folder / "tiles.jsonl").write_text("\n".join(map(json.dumps, lines)))


def read(path):
    """uint8 `[SIZE]`."""
    digits = path.read_text().strip()
    if len(digits) != SIZE or not digits.isdigit():
        raise ValueError("is no tile")
    return np.array([int(digit) for digit in digits], np.uint8)


class TileEncoder:
    """Two positions for a tile; a map of four cells with three channels."""

    fingerprint = "tile-encoder"
    maps = (SIZE, 3)

    def __init__(self, together):
        self.together = together

    def positions(self, media):  # noqa: ARG002
        return 2

    def prepare(self, media):
        return {"tile": media[None].astype(np.uint8)}

    def dummy(self):
        return {"tile": np.zeros((1, SIZE), np.uint8)}

    def module(self, width):
        from torch import nn

        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.number = nn.Embedding(10, 3)
                self.out = nn.Linear(6, width)

            def forward(self, items):
                maps = self.number(items.arrays["tile"].long())
                return self.out(maps.view(-1, 6)), maps

        return Network()


class TileAdapter:
    """Attention of hidden states to all cells of the tiles that they see."""

    fingerprint = "tile-adapter"
    reads = "tile"

    def layers(self, count):
        return range(0, count, 2)

    def module(self, width):
        import torch
        from torch import nn

        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.query = nn.Linear(width, 3)
                self.out = nn.Linear(3, width)
                self.gate = nn.Parameter(torch.zeros(1))

            def forward(self, hidden, maps, visible):
                scores = torch.einsum("blc,bnsc->blns", self.query(hidden), maps)
                weights = scores.exp() * visible[..., None]
                read = torch.einsum("blns,bnsc->blc", weights, maps) / (1 + weights.sum((2, 3)))[..., None]
                return torch.tanh(self.gate) * self.out(read)

        return Network()


class TileHead:
    """Learns the noise in a tile, between the tile and noise."""

    drop = 0.25

    def __init__(self, own):
        self.maps = {"tile": 1}
        self.own = own
        self.fingerprint = f"tile-head-{own}"
        self.context = 0 if own else 8
        self.writes = SIZE if own else 0

    def positions(self, media):  # noqa: ARG002
        return self.writes

    def target(self, media):
        return {"tile": media[None].astype(np.float32) / 10}

    def noise(self, target, random):  # noqa: ARG002
        return {"noise": random.standard_normal((1, SIZE), np.float32), "time": random.random((1, 1), np.float32)}

    def example(self):
        return np.zeros(SIZE, np.uint8)

    def save(self, media, stem):
        path = stem.with_suffix(".tile")
        path.write_text("".join(map(str, media.tolist())))
        return path

    def module(self, width):
        return _network(width, self.own)


def _network(width, own):
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.condition = nn.Linear(width, 8)
            self.empty = nn.Parameter(torch.zeros(8))
            self.mapped = nn.Linear(3 * SIZE, 8)
            self.first = nn.Linear(SIZE + 1, 8)
            self.out = nn.Linear(8, 1 if own else SIZE)
            self.into = nn.Linear(2, width) if own else None

        def forward(self, condition, items, kept):  # noqa: ARG002
            tile, noise, time = (items.arrays[name] for name in ("tile", "noise", "time"))
            noisy = time * tile + (1 - time) * noise
            return (self.velocity(condition, noisy, time, items.dropped) - (tile - noise)).square().mean(1)

        def velocity(self, condition, noisy, time, dropped):
            maps, there = condition.maps["tile"]
            seen = (self.mapped(maps.flatten(2)) * there[..., None]).sum(1)
            if own:
                x = self.condition(condition.own).view(-1, SIZE, 8) + self.first(torch.cat((noisy, time), 1))[:, None]
                return self.out(torch.tanh(x + torch.where(dropped[:, None, None], 0, seen[:, None]))).squeeze(-1)
            known = condition.context_mask[..., None]
            mean = (self.condition(condition.context) * known).sum(1) / known.sum(1)
            mean = torch.where(dropped[:, None], self.empty, mean + seen)
            return self.out(torch.tanh(mean + self.first(torch.cat((noisy, time), 1))))

        def sample(self, condition, sampling, run):
            steps, guidance = sampling.steps or 4, sampling.guidance or 2.0
            drawn = [np.random.default_rng(seed).standard_normal(SIZE, np.float32) for seed in sampling.seeds]
            x = torch.from_numpy(np.stack(drawn)).to(condition.own.device)
            no, yes = (torch.full((len(x),), value, device=x.device) for value in (False, True))
            for step in range(steps):
                time = torch.full((len(x), 1), step / steps, device=x.device)
                velocities = []
                for dropped in (no, yes):
                    one = condition
                    if own:
                        hidden = run(self.embedded(x, time), bool(dropped[0]))
                        one = condition._replace(own=hidden.flatten(0, 1))
                    velocities.append(self.velocity(one, x, time, dropped))
                x = x + (velocities[1] + guidance * (velocities[0] - velocities[1])) / steps
            return list((x * 10).round().clamp(0, 9).to(torch.uint8).cpu().numpy())

        def embedded(self, noisy, time):
            return self.into(torch.stack((noisy, time.expand_as(noisy)), -1))

    if own:

        def inputs(self, items):
            tile, noise, time = (items.arrays[name] for name in ("tile", "noise", "time"))
            return self.embedded(time * tile + (1 - time) * noise, time).flatten(0, 1), None

        Network.inputs = inputs
    return Network()


@mio.hookimpl
def mio_modalities():
    return [mio.Modality(name="tile", begin="<tile>", end="</tile>")]


@mio.hookimpl
def mio_encoder(modality, options):
    return TileEncoder(bool(options.get("together"))) if modality == "tile" else None


@mio.hookimpl
def mio_adapters(options):
    return TileAdapter() if options.get("adapters", True) else None


@mio.hookimpl
def mio_head(modality, options):
    return TileHead(bool(options.get("own"))) if modality == "tile" and options.get("head", True) else None


@mio.hookimpl
def mio_datamodule(modality):
    return mio.DataModule(read=read, suffixes=(".tile",)) if modality == "tile" else None


def plugins_path():
    """Value of `MIO_PLUGINS`."""
    return f"tiles={Path(__file__)}"


def opened(*overrides, tokenised=False):
    """The data of `tiles.yaml`, and the width of its model (see `open_data`)."""
    from opened_data import open_data  # not at hand where this file is a plugin of a process of its own

    return open_data("tiles.yaml", *overrides, tokenised=tokenised)
