"""A plugin that conforms, of which tests change one thing each."""

from __future__ import annotations

import numpy as np

import mio.testing
from mio import (
    DataModule,
    Frames,
    Media,
    Modality,
    hookimpl,
)
from mio.core.contract.discovery import Candidate
from mio.core.contract.plugins import PluginManager

DATA = [np.array([0.1, 0.5]), np.array([0.9, 0.2, 0.4])]


class Tokenizer:
    fingerprint = "tenths"

    def encode(self, media):
        return [(np.asarray(item) * 10).astype(np.int64)[None] for item in media]

    def frames(self, media):
        return len(media)


class Detokenizer:
    def decode(self, codes):
        return codes[0] / 10 + 0.05

    def save(self, media, stem):
        path = stem.with_name(f"{stem.name}.txt")
        path.write_text(str(media))
        return path


class Source:
    def __init__(self, split, options):
        self.options = split, options

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index >= 3:
            raise IndexError
        split = self.options[0]
        data = DATA[index % 2] * (1.0 if split == "train" else 0.9)
        return {"curve": Media("curve", data, key=f"{split}-{index}")}


class Plugin:
    """A plugin that conforms; tests change one thing each."""

    modality = Modality(
        name="curve", codebooks=(10,), begin="<c>", end="</c>", code_token="<c{}>", frames=Frames(maximum=3)
    )
    tokenizer = Tokenizer
    detokenizer = Detokenizer
    source = Source

    @hookimpl
    def mio_modalities(self):
        return [self.modality]

    @hookimpl
    def mio_tokenizer(self):
        return self.tokenizer()

    @hookimpl
    def mio_detokenizer(self):
        return self.detokenizer()

    @hookimpl
    def mio_datamodule(self):
        return DataModule()

    @hookimpl
    def mio_sources(self):
        return {"curves": self.source}


def outcomes(plugin, **options):
    manager = PluginManager([Candidate("acme", "test 1.0", "", lambda: plugin)])
    return {result.check: result for result in mio.testing.conformance("acme", manager=manager, **options)}


def failed(plugin, **options):
    return {name for name, result in outcomes(plugin, **options).items() if result.outcome == "failed"}


def changed(**attributes):
    return type("Changed", (Plugin,), attributes)()


def tokenizer(**attributes):
    return changed(tokenizer=type("Changed", (Tokenizer,), attributes))


class Written(Detokenizer):
    """It writes what `read_curve` reads."""

    def save(self, media, stem):
        path = stem.with_name(f"{stem.name}.txt")
        path.write_text(" ".join(map(str, media)))
        return path
