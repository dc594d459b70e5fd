"""Random access to tokenised documents: shards beside `datasets` over Arrow files of the same content.

    python benchmarks/shard_access.py [--documents 200000] [--large 10000000] [--folder DIR]

Documents are made: a caption of some forty characters, a span of 32 codes, and for every third document a second span
of 2 x 200 codes. Both sides give the same documents as Python strings and numpy arrays, in the same random order, with
files in the page cache; each is timed by process CPU seconds over `--reads` documents, best of three rounds. The other
side is read in three ways, and `ratio_vs_datasets` is to the fastest: plain rows, the numpy format, and tables of
one row whose cells are taken as numpy arrays by hand. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from mio.core.contract.values import Codes, Modality
from mio.core.data.shards.format import shard_name
from mio.core.data.shards.reader import TokenIndex, TokenisedSource
from mio.core.data.shards.store import open_tokens, write_index
from mio.core.data.shards.writer import ShardWriter

MODALITIES = {
    "picture": Modality(name="picture", codebooks=(8192,)),
    "sound": Modality(name="sound", codebooks=(1024, 1024)),
}
SHARD_RECORDS = 4096
ROUNDS = 3


def document(index: int) -> dict[str, Any]:
    draw = np.random.default_rng(index)
    record: dict[str, Any] = {
        "caption": f"document {index} of a corpus that was made for this benchmark",
        "picture": draw.integers(0, 8192, (1, 32), dtype=np.uint16),
    }
    if index % 3 == 0:
        record["sound"] = draw.integers(0, 1024, (2, 200), dtype=np.uint16)
    return record


def index_of(records: int, checksums: list[str]) -> TokenIndex:
    return TokenIndex(records, SHARD_RECORDS, "", {}, 0, {}, checksums)


def write_tokens(folder: Path, documents: int) -> TokenisedSource:
    folder.mkdir()
    checksums = []
    for number, first in enumerate(range(0, documents, SHARD_RECORDS)):
        writer = ShardWriter(MODALITIES, {"picture": "p", "sound": "s"}, first)
        for index in range(first, min(first + SHARD_RECORDS, documents)):
            made = document(index)
            writer.add({name: value if isinstance(value, str) else Codes(name, value) for name, value in made.items()})
        checksums.append(writer.write(folder / shard_name(number), {})["checksum"])
    write_index(folder, index_of(documents, checksums))
    opened = open_tokens(folder)
    assert opened is not None
    return opened[0]


def write_arrow(folder: Path, documents: int) -> datasets.Dataset:
    codes = {
        "picture": datasets.Array2D((1, 32), "uint16"),
        "sound": datasets.List(datasets.List(datasets.Value("uint16"))),
    }
    features = datasets.Features({"caption": datasets.Value("string"), **codes})

    def rows() -> Any:
        for index in range(documents):
            yield {"sound": None, **document(index)}

    made = datasets.Dataset.from_generator(rows, features=features, cache_dir=str(folder / "cache"))
    made.save_to_disk(folder / "arrow")
    return datasets.load_from_disk(folder / "arrow")


def same(shards: Any, arrow: Any) -> bool:
    """Whether one document is the same on both sides."""
    if shards["caption"] != arrow["caption"] or not np.array_equal(shards["picture"].codes, np.array(arrow["picture"])):
        return False
    if "sound" not in shards:
        return arrow["sound"] is None
    return np.array_equal(shards["sound"].codes, np.array([list(row) for row in arrow["sound"]]))


def by_hand(arrow: datasets.Dataset) -> Callable[[int], dict[str, Any]]:
    """Reads a document as a table of one row, the codes without a copy."""
    tables = arrow.with_format("arrow")

    def read(index: int) -> dict[str, Any]:
        row = tables[index]
        sound = row.column("sound").chunk(0)
        codes = sound.flatten().flatten().to_numpy().reshape(2, -1) if sound.is_valid()[0].as_py() else None
        picture = row.column("picture").chunk(0).storage.flatten().flatten().to_numpy().reshape(1, 32)
        return {"caption": row.column("caption")[0].as_py(), "picture": picture, "sound": codes}

    return read


def per_cpu_second(read: Callable[[int], Any], order: list[int]) -> float:
    """Documents per CPU second, best of the rounds."""
    best = 0.0
    for _ in range(ROUNDS):
        start = time.process_time()
        for index in order:
            read(index)
        best = max(best, len(order) / (time.process_time() - start))
    return best


def large_index(folder: Path, records: int) -> tuple[float, float]:
    """Seconds to open a source of `records` documents and read its first and last, and to read one of every shard."""
    folder.mkdir()
    first = folder / shard_name(0)
    writer = ShardWriter({}, {})
    for index in range(SHARD_RECORDS):
        writer.add({"caption": f"document {index}"})
    header = writer.write(first, {})
    checksums = [header["checksum"]]
    whole = first.read_bytes()
    for number in range(1, -(-records // SHARD_RECORDS)):
        (folder / shard_name(number)).write_bytes(whole)  # opening looks at every shard's place, not at its content
        checksums.append(header["checksum"])
    write_index(folder, index_of(records, checksums))
    start = time.perf_counter()
    opened = open_tokens(folder)
    assert opened is not None
    source = opened[0]
    assert len(source) == records
    assert source[0]
    assert source[records - 1]
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    assert all(source[index] for index in range(0, records, SHARD_RECORDS))
    return seconds, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--reads", type=int, default=20_000)
    parser.add_argument("--large", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where files are written; default: a temporary folder")
    given = parser.parse_args()
    datasets.disable_progress_bars()
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        shards, arrow = write_tokens(folder / "tokens", given.documents), write_arrow(folder, given.documents)
        order = np.random.default_rng(0).integers(0, given.documents, given.reads).tolist()
        ways = {"rows": arrow.__getitem__, "numpy": arrow.with_format("numpy").__getitem__, "by_hand": by_hand(arrow)}
        assert all(same(shards[index], read(index)) for read in ways.values() for index in order[:300])
        others = {name: per_cpu_second(read, order) for name, read in ways.items()}
        ours = per_cpu_second(shards.__getitem__, order)
        opened, touched = large_index(folder / "large", given.large)
    finally:
        shutil.rmtree(folder)
    figures = {
        "documents": given.documents,
        "shards_per_cpu_second": round(ours),
        "datasets_per_cpu_second": {name: round(value) for name, value in others.items()},
        "ratio_vs_datasets": round(ours / max(others.values()), 1),
        "large_documents": given.large,
        "open_10m_seconds": round(opened, 4),
        "read_every_shard_seconds": round(touched, 3),
        "python": platform.python_version(),
        "datasets": datasets.__version__,
    }
    for name, value in figures.items():
        print(f"{name:26} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
