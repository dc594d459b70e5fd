"""A toy modality that is only read, by an encoder: beads on a string, a digit each. With strings of them, as an item of
parts, and melodies (see `tests/packages/mio-melody`) that are read by an encoder too and written as codes.

A plugin for tests: `MIO_PLUGINS=beads=.../beads.py`, and `WORLD` a recipe for the files that `write` makes.
"""

import json
import os
from pathlib import Path

import numpy as np

import mio

WORLD = """
name: beads
plugins: {text: {tokenizer: bytes}, melody: {}, beads: {}}
model: {width: 32, layers: 1, heads: 2}
data:
  templates:
    beads:
      - {direction: read, prompt: "{beads} end with", response: " {last}"}
    strings:
      - {direction: read, prompt: "{string} and {beads}:", response: " {last}"}
  groups:
    beads: {sources: {lines: {dataset: jsonl, options: {path: beads.jsonl}, templates: beads}}}
    strings: {sources: {lines: {dataset: jsonl, options: {path: strings.jsonl}, templates: strings}}}
    melody: {sources: {tunes: {dataset: melody/tunes, templates: melody}}}
  packing: {context: 64, window: 8}
mixture: {ratios: {beads: 2, strings: 1, melody: 2}}
train: {steps: 6, rows: 4, micro_rows: 2}
runtime: {threads: 1, accelerator: cpu, log_every: 2, checkpoint_every: 2}
"""


def write(folder, records=24):
    """Files of beads and strings, the records that name them, and the recipe `beads.yaml`."""
    draw = np.random.default_rng(0)
    (folder / "beads.yaml").write_text(WORLD)
    beads, strings = [], []
    for index in range(records):
        digits = "".join(map(str, draw.integers(0, 10, draw.integers(1, 12))))
        (folder / f"{index}.beads").write_text(digits)
        beads.append({"beads": f"{index}.beads", "last": digits[-1]})
        (folder / f"{index}.string").write_text("\n".join(digits[: 1 + at] for at in range(1 + index % 3)))
        strings.append({"string": f"{index}.string", "beads": f"{index}.beads", "last": digits[-1]})
    for name, rows in (("beads", beads), ("strings", strings)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def read(path):
    """uint8 `[n]`."""
    digits = path.read_text().strip()
    if not digits.isdigit():
        raise ValueError("is no row of digits")
    return np.array([int(digit) for digit in digits], np.uint8)


class Beads:
    """A position for every two beads. What an item is to a network must not depend on others: see `module`."""

    def __init__(self, **mistakes):
        self.mistakes = mistakes
        self.fingerprint = f"beads-{mistakes}"

    def positions(self, media):
        return self.mistakes.get("positions", -(-len(media) // 2))

    def prepare(self, media):
        beads = np.asarray(media, self.mistakes.get("dtype", "uint8"))
        pairs = np.pad(beads, (0, len(beads) % 2)).reshape(-1, 2)
        return {self.mistakes.get("name", "pairs"): pairs, "size": np.array([len(beads)], np.int64)}

    def dummy(self):
        if self.mistakes.get("dummy") == "none":
            raise NotImplementedError
        return {"pairs": np.zeros((1, 2), np.uint8), "size": np.ones(1, np.int64)}

    def module(self, width):
        import torch
        from torch import nn

        mistakes = self.mistakes

        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.bead = nn.Embedding(10, width)
                self.layers = nn.ModuleList([nn.Linear(width, width)])

            def forward(self, items):
                x = self.bead(items.arrays["pairs"].long()).sum(1)
                if mistakes.get("looks"):  # at values, which there are none of on the meta device
                    assert items.arrays["size"].sum().item() > 0
                x = x + self.layers[0](torch.tanh(x))
                return x[: len(x) - mistakes.get("lacks", 0)]

        return Network()


class Strings:
    """Takes strings apart: a file has a row of beads in each line."""

    def split(self, media):
        return [mio.Media("beads", beads, f"{media.key}#{at}") for at, beads in enumerate(media.data)]


def read_string(path):
    return [np.array([int(digit) for digit in line], np.uint8) for line in path.read_text().split()]


@mio.hookimpl
def mio_modalities():
    return [
        mio.Modality(name="beads", begin="<beads>"),
        mio.Modality(name="string", parts="beads", frames=mio.Frames(minimum=1, maximum=3)),
    ]


@mio.hookimpl
def mio_encoder(modality, options):
    if options.get("encodes") == "nothing":
        return None
    return Beads(**options) if modality in ("beads", "melody") else None


@mio.hookimpl
def mio_tokenizer(modality):
    return Strings() if modality == "string" else None


@mio.hookimpl
def mio_datamodule(modality):
    if modality == "beads":
        return mio.DataModule(read=read, suffixes=(".beads",))
    if modality == "string":
        return mio.DataModule(read=read_string, suffixes=(".string",))
    return None


@mio.hookimpl
def mio_tasks(options):
    """A task that no model can do, if the option `task` names a modality of this plugin."""
    if "task" not in options:
        return []
    template = mio.Template(direction="thread", prompt="Thread:", response="{string}")
    return [mio.Task(name="thread", template=template, records=lambda _: [], output=options["task"], judge=len)]


def plugins_path():
    """Value of `MIO_PLUGINS`."""
    melody = Path(__file__).parents[1] / "packages" / "mio-melody" / "mio_melody.py"
    return f"melody={melody}{os.pathsep}beads={Path(__file__)}"


def opened(*overrides, tokenised=False):
    """The data of `beads.yaml`, and the width of its model (see `open_data`)."""
    from opened_data import open_data  # not at hand where this file is a plugin of a process of its own

    return open_data("beads.yaml", *overrides, tokenised=tokenised)
