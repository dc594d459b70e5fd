"""A plugin for mio: swatches of nine shades, which a network reads and another makes, with adapters between them."""

import numpy as np

import mio

CELLS, CHANNELS = 9, 8


def networks():
    """The networks of this package by name; torch is imported here, and not with the plugin."""
    import torch
    from torch import nn

    class Reads(nn.Module):  # of a swatch one embedding, which knows its mean alone, and a map of its cells
        def __init__(self, width):
            super().__init__()
            self.shade, self.mean = nn.Linear(1, CHANNELS), nn.Linear(1, width)
            self.place = nn.Parameter(torch.randn(CELLS, CHANNELS))

        def forward(self, items):
            shades = items.arrays["shades"][..., None]  # [N, CELLS, 1]
            return self.mean(shades.mean(1)), self.shade(shades) + self.place

    class Looks(nn.Module):  # hidden states attend to the maps of the swatches that they see
        def __init__(self, width):
            super().__init__()
            self.key, self.value = nn.Linear(CHANNELS, width), nn.Linear(CELLS * CHANNELS, width)
            self.gate = nn.Parameter(torch.zeros(width))  # so that it begins as nothing

        def forward(self, hidden, maps, visible):  # [B, L, D], [B, N, CELLS, CHANNELS], [B, L, N]
            scores = hidden @ self.key(maps.mean(2)).transpose(1, 2) / hidden.shape[-1] ** 0.5
            weights = scores.exp() * visible  # who sees nothing reads 0
            return self.gate * (weights / (1e-6 + weights.sum(-1, keepdim=True)) @ self.value(maps.flatten(2)))

    class Paints(nn.Module):
        # a swatch from noise and the hidden state before it: flow matching (Lipman et al. 2022, arXiv 2210.02747)
        def __init__(self, width):
            super().__init__()
            self.empty = nn.Parameter(torch.zeros(width))  # in place of the condition of items that are dropped
            self.layers = nn.ModuleList([nn.Linear(width + CELLS + 1, 64), nn.Linear(64, CELLS)])

        def velocity(self, told, x, time):
            return self.layers[1](nn.functional.gelu(self.layers[0](torch.cat((told, x, time), 1))))

        def forward(self, condition, items, kept):  # noqa: ARG002
            shades, noise, time = (items.arrays[name] for name in ("shades", "noise", "time"))
            told = torch.where(items.dropped[:, None], self.empty, condition.context[:, 0])
            return (self.velocity(told, noise + time * (shades - noise), time) - (shades - noise)).square().mean(1)

        def sample(self, condition, sampling, run):  # noqa: ARG002
            told, steps, guidance = condition.context[:, 0], sampling.steps or 10, sampling.guidance or 1.0
            draws = (torch.Generator().manual_seed(seed) for seed in sampling.seeds)
            x = torch.stack([torch.randn(CELLS, generator=draw) for draw in draws]).to(told.device)
            for step in range(steps):
                time = torch.full((len(x), 1), step / steps, device=x.device)
                free = self.velocity(self.empty.expand_as(told), x, time)
                x = x + (free + guidance * (self.velocity(told, x, time) - free)) / steps
            return list(x.clamp(-1, 1).cpu().numpy())

    return {"Reader": Reads, "Look": Looks, "Painter": Paints}


class Reader:
    """Swatches are float32 `[9]`, from -1 to 1. Each takes one position."""

    fingerprint, maps = "swatch-reader-1", (CELLS, CHANNELS)

    def positions(self, media):  # noqa: ARG002
        return 1

    def prepare(self, media):
        return {"shades": media[None]}

    def dummy(self):
        return {"shades": np.zeros((1, CELLS), np.float32)}

    def module(self, width):
        return networks()[type(self).__name__](width)


class Look:
    fingerprint, reads, module = "swatch-look-1", "swatch", Reader.module

    def layers(self, count):
        return range(count // 2, count)  # the upper half


class Painter:
    # is given the hidden state of the token that opens a swatch, and needs no positions of its own
    fingerprint, context, maps, drop, writes = "swatch-painter-1", 1, {}, 0.1, 0
    target, module = Reader.prepare, Reader.module

    def positions(self, media):  # noqa: ARG002
        return 0

    def noise(self, target, draw):  # noqa: ARG002
        return {"noise": draw.standard_normal((1, CELLS), np.float32), "time": draw.random((1, 1), np.float32)}

    def example(self):
        return np.zeros(CELLS, np.float32)

    def save(self, media, stem):
        (path := stem.with_name(f"{stem.name}.swatch")).write_text(" ".join(f"{shade:.3f}" for shade in media.tolist()))
        return path


def turn(name, how):
    """A record: a swatch, how it is turned, and what comes of it. Drawn anew, the same for the same name."""
    swatch = np.random.default_rng(list(name.encode())).uniform(-1, 1, CELLS).astype(np.float32)
    made = swatch if how == "same" else swatch[::-1].copy()
    return {"swatch": mio.Media("swatch", swatch, name), "how": how, "made": mio.Media("swatch", made, f"{name}-{how}")}


def read(path):
    return np.array(path.read_text().split(), np.float32).reshape(CELLS)


@mio.hookimpl
def mio_modalities():
    return [mio.Modality(name="swatch", begin="<swatch>", end="</swatch>")]


@mio.hookimpl
def mio_encoder(modality):
    return Reader() if modality == "swatch" else None


@mio.hookimpl
def mio_adapters(options):
    if unknown := options.keys() - {"look"}:
        raise mio.UserError(f"plugins.swatch has no option `{min(unknown)}`; it has `look`")
    return Look() if options.get("look", True) else None


@mio.hookimpl
def mio_head(modality):
    return Painter() if modality == "swatch" else None


@mio.hookimpl
def mio_datamodule(modality):
    templates = {"swatch": (mio.Template(direction="paint", prompt="{swatch} {how}:", response="{made}"),)}
    return mio.DataModule(read=read, suffixes=(".swatch",), templates=templates) if modality == "swatch" else None


@mio.hookimpl
def mio_sources():
    return {"swatch/turns": lambda split, _: [turn(f"{split}-{i}", ("same", "turned")[i % 2]) for i in range(1000)]}
