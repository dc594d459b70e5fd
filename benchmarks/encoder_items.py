"""The data path of media that an encoder reads, from files and from shards to batches.

    python benchmarks/encoder_items.py [--records 1000] [--side 224] [--rounds 5]

Made pictures as PNG files, with captions that are learnt. One process reads them, without a network: as codes from
shards (the columns of an untrained tokenizer), and by an encoder of 14 x 14 patches from files and from shards that
keep them. Printed are CPU microseconds per document, the share of them that goes into reading files, preparing arrays
and packing them into batches, and prepared bytes per CPU second.

The last line is one JSON object: `encoded_over_codes`, CPU time per document of the encoder from shards over that of
codes; `own_share`, the share of mio's own work (all but reading files and the encoder's `prepare`) in it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from mio.core.contract.plugins import PluginManager
from mio.core.data import batch as batches
from mio.core.data.loader import MioDataModule
from mio.core.data.shards.store import TokenStore
from mio.core.recipe.compose import compose
from mio.core.stages.tokenize import load_tokenizers, tokenize
from mio.core.tokens import encoding
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.item_encoders import ItemEncoder
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

PATCH = 14
RECIPE = """
name: items
plugins: {text: {tokenizer: bytes}, image: {tokenizer: patch_vq, size: 32, patch: 4, codebook_size: 256}}
model: {width: 64, layers: 1, heads: 1}
data:
  groups:
    pictures:
      sources:
        pictures:
          {dataset: jsonl, options: {path: pictures.jsonl}, templates: image_text, directions: {image_to_text: 1}}
  packing: {context: 1024, window: 16}
mixture: {ratios: {pictures: 1}}
train: {steps: 100000, rows: 8, micro_rows: 8}
runtime: {accelerator: cpu, threads: 1}
"""
PLUGIN = """
import numpy as np

import mio


class Patches:
    fingerprint = "patches"

    def positions(self, media):
        height, width = np.shape(media)[:2]
        return (height // 14) * (width // 14)

    def prepare(self, media):
        pixels = np.asarray(media, np.uint8)
        height, width = (side // 14 for side in pixels.shape[:2])
        pixels = pixels[: height * 14, : width * 14].reshape(height, 14, width, 14, -1)
        return {"patches": pixels.swapaxes(1, 2).reshape(height * width, 14, 14, -1)}

    def dummy(self):
        return {"patches": np.zeros((1, 14, 14, 3), np.uint8)}

    def module(self, width):
        raise NotImplementedError


@mio.hookimpl
def mio_encoder(modality, options):
    return Patches() if modality == "image" else None
"""


def write(folder: Path, records: int, side: int) -> None:
    """Pictures with some structure, so that files are of an ordinary size, and their table."""
    draw, ramp = np.random.default_rng(0), np.linspace(0, 160, side)
    rows = []
    for index in range(records):
        plain = ramp[:, None, None] * (index % 7 / 7) + ramp[None, :, None] * (index % 11 / 11) / 2
        noisy = plain + draw.integers(0, 90, 3) + draw.integers(0, 8, (side, side, 3))
        Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{index}.png")
        rows.append({"image": f"{index}.png", "caption": f"picture number {index}, one of many"})
    (folder / "pictures.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "items.yaml").write_text(RECIPE)
    (folder / "patches.py").write_text(PLUGIN)


class Clock:
    """CPU seconds by what they are spent on, without those of calls inside."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.bytes = 0
        self._inner = [0.0]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Counts calls that read files, prepare arrays and pack them."""
        kept = [(encoding, "opened"), (ItemEncoder, "prepare"), (batches, "pack_items")]
        originals = [getattr(owner, name) for owner, name in kept]
        for (owner, name), function in zip(kept, originals, strict=True):
            setattr(owner, name, self._timed(name, function))
        try:
            yield
        finally:
            for (owner, name), function in zip(kept, originals, strict=True):
                setattr(owner, name, function)

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **others: Any) -> Any:
            start = time.process_time()
            self._inner.append(0.0)
            result = function(*arguments, **others)
            spent = time.process_time() - start
            self.seconds[name] += spent - self._inner.pop()
            self._inner[-1] += spent
            if name == "prepare":
                self.bytes += sum(array.nbytes for array in result.values())
            return result

        return call


def opened(manager: PluginManager, overrides: list[str], tokenised: bool) -> MioDataModule:
    recipe = compose(["items.yaml"], overrides, manager)
    plugins = manager.enable(recipe.plugins)
    codecs = Codecs(plugins)
    load_tokenizers(recipe, None, plugins, codecs, Console(quiet=True))
    vocabulary = Vocabulary.build(codecs.text, plugins.modalities())
    renderer = Renderer(vocabulary, codecs, recipe.train.loss)
    store = TokenStore.of(recipe, plugins, codecs) if tokenised else None
    return MioDataModule(recipe, plugins, renderer, vocabulary.specials.pad, store)


def speed(data: MioDataModule, documents: int, rounds: int) -> dict[str, float]:
    """Medians over rounds of so many documents, lengths learnt before."""
    for stream in data.streams:
        for n in range(len(stream)):
            stream.length(n)
    made = iter(data.train_dataloader())
    next(made)
    found = []
    for _ in range(rounds):
        clock, count, start = Clock(), 0, time.process_time()
        with clock.watching():
            while count < documents:
                count += sum(map(len, next(made).lengths))
        total = time.process_time() - start
        parts = {name: seconds / total for name, seconds in clock.seconds.items()}
        found.append(
            {
                "us_per_document": total / count * 1e6,
                "reading": parts.get("opened", 0.0),
                "preparing": parts.get("prepare", 0.0),
                "packing": parts.get("pack_items", 0.0),
                "prepared_bytes_per_second": clock.bytes / total,
            }
        )
    return {name: round(statistics.median(one[name] for one in found), 3) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            write(Path(), given.records, given.side)
            manager = PluginManager.discover(["patches=patches.py"])
            codes: list[str] = []
            encoder = ["plugins.patches={}"]
            figures: dict[str, Any] = {}
            for overrides in (codes, encoder):
                tokenize(["items.yaml"], overrides, manager, console=Console(quiet=True))
            cases = {"codes": (codes, True), "files": (encoder, False), "shards": (encoder, True)}
            for case, (overrides, tokenised) in cases.items():
                data = opened(manager, overrides, tokenised)
                figures[case] = speed(data, given.records, given.rounds)
                print(f"{case}: {json.dumps(figures[case])}", flush=True)
            shards = figures["shards"]
            own = 1 - shards["reading"] - shards["preparing"]
            print(
                json.dumps(
                    {
                        "encoded_over_codes": round(shards["us_per_document"] / figures["codes"]["us_per_document"], 2),
                        "own_share": round(own, 3),
                        **figures,
                    }
                )
            )
        finally:
            os.chdir(here)


if __name__ == "__main__":
    main()
