"""A plugin whose pictures are read by an encoder, and recipes that train on them in seconds."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import mio

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from small_encoder import PatchEncoder  # noqa: E402

SHOWN = mio.Template(direction="read", prompt="{picture}", response="{text}")
SHADES = ("black", "grey", "white")


class Pictures:
    """Grey squares of three sizes, and what they are called."""

    def __init__(self, split, every=1):
        self.split = split
        self.every = every

    def __len__(self):
        return 60

    def __getitem__(self, index):
        shade = index % 3
        side = 4 * (1 + index // 3 % 3)
        noise = np.random.default_rng([index, self.split == "test"]).integers(0, 40, (side, side))
        pixels = (noise + 100 * shade).astype(np.uint8)
        if index % self.every:
            return {"text": f"{SHADES[shade]} {index}"}
        return {"picture": mio.Media("picture", pixels, key=f"{self.split}{index}"), "text": SHADES[shade]}


@mio.hookimpl
def mio_modalities():
    return [mio.Modality(name="picture")]


@mio.hookimpl
def mio_encoder(modality, options):
    chosen = {key: value for key, value in options.items() if key in ("width", "layers")}
    return PatchEncoder(**chosen) if modality == "picture" else None


@mio.hookimpl
def mio_datamodule(modality):
    return mio.DataModule(templates={"pictures": (SHOWN,)}) if modality == "picture" else None


@mio.hookimpl
def mio_sources():
    return {"pictures/squares": lambda split, _options: Pictures(split)}


def judge(answers, records):
    return [answer.text.startswith(record["text"]) for answer, record in zip(answers, records, strict=True)]


@mio.hookimpl
def mio_tasks():
    squares = Pictures("test")
    return [
        mio.Task(
            name="shade",
            template=SHOWN,
            records=lambda count: [squares[index] for index in range(min(count, len(squares)))],
            output="text",
            judge=judge,
            decoding=mio.Decoding(max_tokens=6),
        )
    ]


RECIPE = """
name: pictures
plugins: {text: {tokenizer: bytes}, pictures: {}}
model: {width: 64, layers: 2, heads: 2, tied_embeddings: true}
data:
  groups:
    squares: {sources: {squares: {dataset: pictures/squares, templates: pictures}}}
    names: {sources: {lines: {dataset: jsonl, options: {path: names.jsonl}, templates: text}}}
  packing: {context: 48, window: 16}
mixture: {ratios: {squares: 1, names: 3}}
train: {steps: 12, rows: 2, micro_rows: 1, precision: fp32, optimizer: {kind: muon, lr: 3e-3}}
runtime: {threads: 1, accelerator: cpu, log_every: 1, checkpoint_every: 4, keep_last: 9}
"""
"""Forward passes of one row, of which some have no picture."""
PLAIN = """
include: [pictures.yaml]
name: plain
plugins: {_replace_: true, text: {tokenizer: bytes}}
data:
  groups:
    _replace_: true
    names: {sources: {lines: {dataset: jsonl, options: {path: names.jsonl}, templates: text}}}
mixture: {ratios: {_replace_: true, names: 1}}
train: {steps: 2}
"""
"""The same model without pictures."""


@contextmanager
def pictures_in(folder: Path):
    """Puts `pictures.yaml`, `plain.yaml` and their data into a folder and works there."""
    (folder / "pictures.yaml").write_text(RECIPE)
    (folder / "plain.yaml").write_text(PLAIN)
    lines = [f'{{"text": "line {index} of {index % 7}"}}' for index in range(40)]
    (folder / "names.jsonl").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MIO_PLUGINS", f"pictures={Path(__file__)}")
        yield
