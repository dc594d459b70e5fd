"""Speed of the data path, from cached shards and text to batches, and the time that a resumed run waits for its first.

    python benchmarks/data_path.py [--stages 1 2 3] [--rounds 5] [--rows 640] [--folder DIR]

Made corpora in mio's own formats: shards of captioned images, speech with transcriptions and interleaved documents, and
JSON Lines of text, mixed in the ratios of MIO's stages I to III at context 2,800 and window 4,096. What is measured is
what `mio fit` runs, `MioDataModule.train_dataloader()` with one worker process: CPU seconds of the worker and of the
process that receives its batches and commits them, over the tokens of documents in these batches. Texts are passages
of the documentation that comes with Python, in a byte-level BPE trained on it.

Resuming starts with a new data module, which has not seen a record; its state is one of that run, moved on to a later
step: counters by whole epochs, the documents that wait taken from there.

The last line is one JSON object: `tokens_per_cpu_second` is the median over the rounds of the slowest stage,
`resume_seconds` the longest over stages and steps.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mio.core.contract.plugins import PluginManager
from mio.core.contract.values import Codes, TextTokenizer
from mio.core.data.loader import MioDataModule
from mio.core.data.shards.format import shard_name
from mio.core.data.shards.reader import TokenIndex
from mio.core.data.shards.store import TokenStore, source_folder, write_index
from mio.core.data.shards.texts import write_text_tokens
from mio.core.data.shards.writer import ShardWriter
from mio.core.recipe.compose import compose
from mio.core.recipe.schema import Recipe
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

RECIPE = """
name: data_path
plugins:
  text: {tokenizer: bpe, size: 16384}
  image: {tokenizer: seed}
  speech: {tokenizer: speechtokenizer}
model: {width: 64, layers: 1, heads: 1}
data:
  groups:
    image_text:
      sources:
        captions: {dataset: jsonl, options: {path: captions.jsonl}, templates: image_text}
        pictures:
          dataset: jsonl
          options: {path: pictures.jsonl}
          templates: image_text
          directions: {text_to_image: 1}
    text: {sources: {articles: {dataset: jsonl, options: {path: articles.jsonl}, templates: text}}}
    interleaved: {sources: {pages: {dataset: jsonl, options: {path: pages.jsonl}}}}
    speech_text: {sources: {readings: {dataset: jsonl, options: {path: readings.jsonl}, templates: speech_text}}}
  packing: {context: 2800, window: 4096}
mixture: {unit: rows, ratios: {image_text: 12, text: 2, interleaved: 0, speech_text: 2}}
train: {steps: 2000000, rows: 16, micro_rows: 4}
runtime: {workers: 1, accelerator: cpu}
"""
STAGES = {1: (12, 2, 0, 2), 2: (2, 2, 6, 6), 3: (2, 1, 1, 12)}
"""Rows per 16 of image_text, text, interleaved and speech_text (MIO, arXiv 2409.17692 v4, table 9)."""
GROUPS = ("image_text", "text", "interleaved", "speech_text")
SHARD_RECORDS = 4096
FINGERPRINTS = {"image": "made", "speech": "made"}
STEPS = (1_000, 100_000, 1_000_000)
"""Where runs are resumed."""
RECORDS = {"captions": 24_000, "pictures": 12_000, "readings": 16_000, "pages": 10_000, "articles": 8_000}


class Corpus:
    """Made records. Lengths in tokens: captioned images 100 to 300, speech 200 to 1,500, pages 300 to 2,400, articles
    500 to 2,800."""

    def __init__(self) -> None:
        from pydoc_data.topics import topics

        self.paragraphs = [part for text in topics.values() for part in text.split("\n\n") if part.strip()]
        self._words = " ".join(self.paragraphs).split(" ")

    def passage(self, draw: random.Random, least: int, most: int) -> str:
        """About so many tokens: a word has 1.6."""
        count = int(draw.randint(least, most) / 1.6)
        start = draw.randrange(len(self._words) - count)
        return " ".join(self._words[start : start + count])

    def picture(self, draw: random.Random) -> Codes:
        return Codes("image", np.random.default_rng(draw.getrandbits(32)).integers(0, 8192, (1, 32), dtype=np.uint16))

    def speech(self, draw: random.Random) -> Codes:
        frames = draw.randint(130, 350)
        codes = np.random.default_rng(draw.getrandbits(32)).integers(0, 1024, (4, frames), dtype=np.uint16)
        return Codes("speech", codes)

    def record(self, name: str, index: int) -> dict[str, Any]:
        draw = random.Random(f"{name} {index}")
        if name in ("captions", "pictures"):
            return {"image": self.picture(draw), "caption": self.passage(draw, 50, 240)}
        if name == "readings":
            return {"speech": self.speech(draw), "transcription": self.passage(draw, 30, 90)}
        if name == "pages":
            parts: list[Any] = []
            for _ in range(draw.randint(2, 8)):
                parts += [self.passage(draw, 80, 260), self.picture(draw)]
            return {"parts": parts}
        return {"text": self.passage(draw, 500, 2700)}


def write(
    folder: Path, recipe: Recipe, modalities: dict[str, Any], tokenizer: TextTokenizer, sizes: dict[str, int]
) -> None:
    """Shards of everything but the articles, which are JSON Lines; `sizes` are their numbers of records."""
    corpus = Corpus()
    for group in recipe.data.groups.values():
        for name, source in group.sources.items():
            size = sizes[name]
            records = (corpus.record(name, index) for index in range(size))
            if name == "articles":
                Path(source.options["path"]).write_text("\n".join(map(json.dumps, records)))
                continue
            place = source_folder(folder / "tokens", source)
            place.mkdir(parents=True)
            checksums = []
            for number, first in enumerate(range(0, size, SHARD_RECORDS)):
                writer = ShardWriter(modalities, FINGERPRINTS, first)
                for _, record in zip(range(min(SHARD_RECORDS, size - first)), records, strict=False):
                    writer.add(record)
                checksums.append(writer.write(place / shard_name(number), {})["checksum"])
                write_text_tokens(place / shard_name(number), tokenizer)
            write_index(place, TokenIndex(size, SHARD_RECORDS, "", FINGERPRINTS, 0, {}, checksums))


class World:
    """The corpora in a folder, and what a run needs beside them."""

    def __init__(self, folder: Path, sizes: dict[str, int] | None = None) -> None:
        (folder / "recipe.yaml").write_text(RECIPE.replace("path: ", f"path: {folder}/"))
        self.folder = folder
        manager = PluginManager.discover()
        self.recipe = compose([str(folder / "recipe.yaml")], [], manager)
        self.plugins = manager.enable(self.recipe.plugins)
        self.codecs = Codecs(self.plugins)
        self.codecs.text.fit(Corpus().paragraphs, 0)  # type: ignore[attr-defined]
        self.vocabulary = Vocabulary.build(self.codecs.text, self.plugins.modalities(), self.plugins.control_tokens())
        write(folder, self.recipe, self.codecs.modalities, self.codecs.text, sizes or RECORDS)

    def open(self, stage: int) -> MioDataModule:
        """The data of a stage, as `mio fit` opens them."""
        self.recipe.mixture.ratios = dict(zip(GROUPS, map(float, STAGES[stage]), strict=True))
        renderer = Renderer(self.vocabulary, self.codecs, self.recipe.train.loss)
        store = TokenStore(self.folder / "tokens", FINGERPRINTS, self.codecs.text.fingerprint)
        return MioDataModule(self.recipe, self.plugins, renderer, self.vocabulary.specials.pad, store)


def cpu_seconds() -> float:
    """Of this process and the data workers that it has."""
    ticks = 0
    for worker in multiprocessing.active_children():
        after_name = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])  # user and system time, see proc(5)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def speed(module: MioDataModule, rounds: int, rows: int) -> tuple[list[float], float, float]:
    """Tokens of documents per CPU second in each round of `rows` rows; seconds to the first batch; mean length."""
    start = time.perf_counter()
    batches = iter(module.train_dataloader())
    module.commit(next(batches))
    first = time.perf_counter() - start
    found = []
    tokens = documents = 0
    for _ in range(rounds):
        counted, done, start = 0, 0, cpu_seconds()
        while done < rows:
            batch = next(batches)
            module.commit(batch)
            counted += sum(map(sum, batch.lengths))
            documents += sum(map(len, batch.lengths))
            done += len(batch.lengths)
        found.append(counted / (cpu_seconds() - start))
        tokens += counted
    return found, first, tokens / documents


def later(module: MioDataModule, state: dict[str, Any], step: int) -> dict[str, Any]:
    """A state of the run at `step`: that of a few steps, moved on by whole epochs."""
    plan, streams = state["plan"], module.streams
    factor = max(1, step // state["step"])
    leaves, moves = {}, []
    for stream, (name, counts) in zip(streams, plan["leaves"].items(), strict=True):
        moves.append(counts["next"] * (factor - 1) // len(stream) * len(stream))
        grown = {key: counts[key] * factor for key in ("drawn", "documents", "positions", "truncated", "rows")}
        leaves[name] = {**counts, **grown, "next": counts["next"] + moves[-1]}
    context = module._recipe.data.packing.context
    pools = []
    for pool in plan["pools"]:
        waiting = [(leaf, n + moves[leaf], streams[leaf].length(n + moves[leaf]) or 0) for leaf, n, _, _ in pool]
        pools.append([[leaf, n, min(length, context), length > context] for leaf, n, length in waiting])
    moved = {"rows": plan["rows"] * factor, "group_rows": [rows * factor for rows in plan["group_rows"]]}
    return {"step": state["step"] * factor, "plan": {**plan, **moved, "leaves": leaves, "pools": pools}}


def planning(module: MioDataModule, rows: int) -> float:
    """Tokens per CPU second of following the plan alone, as every worker does for the rows of all others."""
    plan = module._plan()
    plan.restore(module.state_dict()["plan"])
    start = time.process_time()
    tokens = sum(entry.length for _ in range(rows) for entry in plan.next_row())
    return tokens / (time.process_time() - start)


def resume(world: World, stage: int, states: list[dict[str, Any]]) -> Iterator[tuple[int, float, int]]:
    """(step, seconds to the first batch, bytes of state) of runs that go on from each state: medians of three."""
    for state in states:
        text = json.dumps(state)
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            module = world.open(stage)
            module.load_state_dict(json.loads(text))
            batch = next(iter(module.train_dataloader()))
            seconds.append(time.perf_counter() - start)
            assert batch.step == state["step"]
        yield state["step"], statistics.median(seconds), len(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=640, help="rows of a round")
    parser.add_argument("--folder", type=Path, help="where files are written; default: a temporary folder")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    figures: dict[str, Any] = {"stages": {}}
    try:
        world = World(folder)
        for stage in given.stages:
            module = world.open(stage)
            speeds, first, length = speed(module, given.rounds, given.rows)
            state = module.state_dict()
            resumed = list(resume(world, stage, [later(module, state, step) for step in (state["step"], *STEPS)]))
            figures["stages"][stage] = {
                "tokens_per_cpu_second": round(statistics.median(speeds)),
                "slowest_round": round(min(speeds)),
                "planned_tokens_per_cpu_second": round(planning(module, given.rows)),
                "first_batch_of_a_new_run_seconds": round(first, 2),
                "resume_seconds": {step: round(seconds, 3) for step, seconds, _ in resumed},
                "state_bytes": resumed[-1][2],
                "mean_document": round(length),
            }
            print(f"stage {stage}: {figures['stages'][stage]}", flush=True)
    finally:
        shutil.rmtree(folder)
    stages = figures["stages"].values()
    figures = {
        "tokens_per_cpu_second": min(stage["tokens_per_cpu_second"] for stage in stages),
        "resume_seconds": max(max(stage["resume_seconds"].values()) for stage in stages),
        **figures,
        "python": platform.python_version(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
