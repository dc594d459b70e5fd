"""What it costs to know that sources have not changed: hashing them beside tokenising them.

    python benchmarks/hashing.py [--gigabytes 2] [--picture-kilobytes 100] [--folder DIR]

Pictures (JPEG-sized files of noise beside a JSON Lines file that names them) and articles (JSON Lines of English words)
are written, half of the bytes each, and their fingerprints taken as `mio tokenize` and `mio fit` do: once with nothing
remembered and the files dropped from the page cache where the system allows it, once with everything remembered.
`hashing_share` is of CPU seconds, the reading of records that finds the pictures included.
Tokenising is measured on samples, as far as codes go, with nothing of reading or writing counted: pictures of that size
by the shipped trainable image tokenizer at 224 pixels, texts by the byte-level BPE that ships. Tokenisers with large
weights take longer, so the share is an upper bound. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from mio.core.contract.plugins import PluginManager
from mio.core.contract.values import Media
from mio.core.data.contents import SourceContent
from mio.core.data.hashing import FileHashes
from mio.core.data.readers import open_reader
from mio.core.data.sources import known_kinds
from mio.core.recipe.compose import compose
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.tokenizer_training import train_tokenizers

RECIPE = """
name: hashing
plugins:
  text: {tokenizer: bpe, size: 16384}
  image: {tokenizer: patch_vq, size: 224, patch: 16, codebook_size: 1024}
model: {width: 64, layers: 1, heads: 1}
data: {groups: {none: {sources: {none: {dataset: jsonl, options: {path: none.jsonl}, templates: image_text}}}}}
mixture: {ratios: {none: 1}}
"""
SAMPLE = 64
"""Pictures and articles that are tokenised."""


def words() -> list[str]:
    from pydoc_data.topics import topics

    return " ".join(topics.values()).split(" ")


def write_pictures(folder: Path, size: int, each: int, draw: random.Random) -> int:
    """Writes about `size` bytes of pictures of `each` bytes, named by `pictures.jsonl`; returns how many."""
    count = max(1, size // each)
    noise = draw.randbytes(each)
    with (folder / "pictures.jsonl").open("w") as table:
        for index in range(count):
            at = Path("pictures", f"{index // 1000:03}", f"{index:06}.jpg")
            (folder / at).parent.mkdir(parents=True, exist_ok=True)
            (folder / at).write_bytes(index.to_bytes(8, "little") + noise[8:])
            table.write(json.dumps({"image": str(at), "caption": f"picture {index}"}) + "\n")
    return count


def write_articles(path: Path, size: int, draw: random.Random) -> int:
    """Writes about `size` bytes of articles; returns how many."""
    known, written, count = words(), 0, 0
    with path.open("w") as file:
        while written < size:
            start = draw.randrange(len(known) - 1500)
            written += file.write(json.dumps({"text": " ".join(known[start : start + draw.randint(300, 1500)])}) + "\n")
            count += 1
    return count


def forget(folder: Path) -> None:
    """Asks the system to drop the files from its page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fingerprint(folder: Path, kinds: Any, memory: Path) -> tuple[float, float, int]:
    """(CPU seconds, seconds, bytes read) of what a command does before it trusts the sources, once they are open."""
    hashes = FileHashes(memory)
    sources = [
        open_reader("jsonl", "train", {"path": str(folder / name)}, kinds)
        for name in ("pictures.jsonl", "articles.jsonl")
    ]
    start, cpu = time.perf_counter(), time.process_time()
    for source in sources:
        assert SourceContent(source, hashes).fingerprint
    return time.process_time() - cpu, time.perf_counter() - start, hashes.hashed


def tokenising(folder: Path, codecs: Codecs, each: int) -> tuple[float, float]:
    """Seconds per picture and per byte of text, decoding of files included."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    side = 64
    pictures = []
    while True:  # a picture whose file is as long as the pictures that are hashed
        Image.fromarray(draw.integers(0, 256, (side, side, 3), np.uint8)).save(folder / "sample.jpg", quality=90)
        if (folder / "sample.jpg").stat().st_size >= each:
            break
        side = side * 5 // 4
    for index in range(SAMPLE):
        shutil.copyfile(folder / "sample.jpg", folder / f"sample{index}.jpg")
        pictures.append(Media("image", folder / f"sample{index}.jpg", key=f"{index}"))
    with (folder / "articles.jsonl").open() as file:
        texts = [json.loads(line)["text"] for _, line in zip(range(SAMPLE), file, strict=False)]
    train_tokenizers(codecs, ["text", "image"], {"text": texts, "image": pictures[:16]}, folder / "tokenizers", 0)
    start = time.process_time()
    codecs.tokenizer("image").encode(codecs.originals(pictures))
    picture = (time.process_time() - start) / SAMPLE
    start = time.process_time()
    for text in texts:
        codecs.text.encode(text)
    return picture, (time.process_time() - start) / sum(map(len, texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--picture-kilobytes", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where files are written; default: a temporary folder")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        (folder / "recipe.yaml").write_text(RECIPE)
        manager = PluginManager.discover()
        recipe = compose([str(folder / "recipe.yaml")], [], manager)
        plugins = manager.enable(recipe.plugins)
        kinds = known_kinds(plugins)
        draw = random.Random(0)
        each = given.picture_kilobytes * 1000
        half = int(given.gigabytes * 5e8)
        pictures = write_pictures(folder, half, each, draw)
        articles = write_articles(folder / "articles.jsonl", half, draw)
        time.sleep(0.2)  # hashes of files that are as young as their reading are not remembered
        forget(folder)
        cpu, seconds, hashed = fingerprint(folder, kinds, folder / "hashes.sqlite")
        again_cpu, again, hashed_again = fingerprint(folder, kinds, folder / "hashes.sqlite")
        picture, byte = tokenising(folder, Codecs(plugins), each)
        text_bytes = (folder / "articles.jsonl").stat().st_size
    finally:
        shutil.rmtree(folder)
    all_tokenising = picture * pictures + byte * text_bytes
    figures = {
        "gigabytes": round(hashed / 1e9, 2),
        "pictures": pictures,
        "articles": articles,
        "hashing_seconds": round(seconds, 2),
        "hashing_mb_per_second": round(hashed / 1e6 / seconds),
        "tokenising_cpu_seconds": round(all_tokenising, 1),
        "hashing_cpu_seconds": round(cpu, 2),
        "hashing_share": round(cpu / all_tokenising, 4),
        "second_call_cpu_seconds": round(again_cpu, 3),
        "second_call_seconds": round(again, 3),
        "second_call_bytes": hashed_again,
        "milliseconds_per_picture": round(picture * 1e3, 2),
        "text_mb_per_cpu_second": round(1e-6 / byte, 2),
        "python": platform.python_version(),
    }
    for name, value in figures.items():
        print(f"{name:26} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
