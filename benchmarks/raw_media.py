"""A stage on many raw pictures: how long until its first step, and how often pictures are encoded.

    python benchmarks/raw_media.py                      # 100,000 PNG files of 32 x 32 pixels, named by a table
    python benchmarks/raw_media.py --form parquet       # the same inside a table; --form tar: inside an archive

The pictures are made in a temporary folder. A run with two data workers trains its tokenizer and some steps, is
stopped, and goes on with a second command. Printed are, for both: seconds from the start of the process to the end of
its first step, of the clock and of all its processes' CPU time, and of these of the clock those for imports, the
sources (opening, hashing), the tokenizer and the checks of records; the pictures that were trained on, and how often
pictures were encoded by the checks and after them, and how many of these for a second time. Data workers prepare some
batches ahead: of the run that is stopped they have encoded more than it trained on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

START = time.time()
SIDE = 32
STEPS, STOPPED = 8, 4
RECIPE = """
name: raw
plugins:
  text: {tokenizer: bytes}
  image: {tokenizer: patch_vq, size: 16, patch: 4, channels: 3, codebook_size: 256}
model: {width: 64, layers: 2, heads: 2, qk_norm: true, tied_embeddings: true}
data:
  packing: {context: 256}
  groups:
    pictures: {sources: {pictures: {dataset: DATASET, options: {path: PATH}, templates: image_text}}}
mixture: {ratios: {pictures: 1}}
train: {steps: 8, rows: 8}
runtime: {accelerator: cpu, threads: 1, log_every: 1, checkpoint_every: 100}
"""
PATHS = {"files": ("jsonl", "table.jsonl"), "tar": ("webdataset", "all.tar"), "parquet": ("parquet", "all.parquet")}


def pictures(count: int) -> Iterator[tuple[str, bytes, str]]:
    """(name, PNG file, caption) of pictures, each another: a gradient and some noise."""
    import numpy as np

    draw = np.random.default_rng(0)
    ramp = np.linspace(0, 160, SIDE)
    for index in range(count):
        colour = draw.integers(0, 90, 3)
        plain = ramp[:, None, None] * (index % 7 / 7) + ramp[None, :, None] * (index % 11 / 11) / 2 + colour
        rows = plain.astype(np.uint8)
        rows[:2] = draw.integers(0, 255, (2, SIDE, 3))
        raw = np.concatenate([np.zeros((SIDE, 1), np.uint8), rows.reshape(SIDE, -1)], axis=1).tobytes()
        chunks = (
            (b"IHDR", struct.pack(">2I5B", SIDE, SIDE, 8, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(raw, 1)),
            (b"IEND", b""),
        )
        content = b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
        yield f"{index:06}", b"\x89PNG\r\n\x1a\n" + content, f"picture number {index}"


def write(folder: Path, form: str, count: int) -> None:
    """The pictures in one of the forms."""
    made = pictures(count)
    if form == "files":
        with (folder / "table.jsonl").open("w") as table:
            for name, content, caption in made:
                if int(name) % 1000 == 0:
                    (folder / name[:3]).mkdir()
                (folder / name[:3] / f"{name}.png").write_bytes(content)
                table.write(json.dumps({"image": f"{name[:3]}/{name}.png", "caption": caption}) + "\n")
    elif form == "tar":
        with tarfile.open(folder / "all.tar", "w") as archive:
            for name, content, caption in made:
                for ending, data in (("png", content), ("caption", caption.encode())):
                    member = tarfile.TarInfo(f"{name}.{ending}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = list(made)
        images = [{"bytes": content, "path": f"{name}.png"} for name, content, _ in rows]
        pq.write_table(pa.table({"image": images, "caption": [row[2] for row in rows]}), folder / "all.parquet")


def cpu_seconds() -> float:
    """CPU time of this process and of its data workers."""
    processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    fields = [Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split() for process in processes]
    return sum(int(own[11]) + int(own[12]) for own in fields) / os.sysconf("SC_CLK_TCK")


class Observed:
    """A run of the recipe in this process, looked at from outside."""

    def __init__(self, folder: Path, stop: bool) -> None:
        self.log = folder / "encoded.log"
        self.stop = stop
        self.seconds: dict[str, float] = {}
        self.trained: list[tuple[int, int]] = []
        self.checked = 0

    def timed(self, owner: Any, name: str, what: str, before: Callable[[], Any] = lambda: None) -> None:
        """Adds up the seconds of a function, `before` which another is called."""
        function: Callable[..., Any] = getattr(owner, name)

        def call(*arguments: Any, **others: Any) -> Any:
            before()
            start = time.perf_counter()
            try:
                return function(*arguments, **others)
            finally:
                if what:
                    self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - start

        setattr(owner, name, call)

    def run(self, recipe: Path, workers: int) -> dict[str, Any]:
        """Trains, and returns what was seen."""
        from rich.console import Console

        import mio.core.stages.fit as stage
        from mio.core.contract.plugins import PluginManager
        from mio.core.data.loader import MioDataModule
        from mio.core.errors import Interrupted
        from mio.plugins.image.patch_vq import PatchTokenizer

        self.seconds["imports"] = time.time() - START
        encode, commit = PatchTokenizer.encode, MioDataModule.commit

        def counted(tokenizer: Any, media: Any) -> Any:
            names = "".join(f"{zlib.crc32(item.tobytes()):08x}\n" for item in media)
            with self.log.open("a") as log:  # one write: workers write here too
                log.write(names)
            return encode(tokenizer, media)

        def committed(module: Any, batch: Any) -> None:
            self.seconds.setdefault("first step", time.time() - START)
            self.seconds.setdefault("first step, CPU", cpu_seconds())
            self.trained += [(stream, module.streams[stream].order(n)) for row in batch.documents for stream, n in row]
            commit(module, batch)
            if self.stop and batch.step + 1 == STOPPED:
                os.kill(os.getpid(), signal.SIGTERM)

        PatchTokenizer.encode, MioDataModule.commit = counted, committed  # type: ignore[method-assign,assignment]
        self.timed(stage, "check_sources", "sources")
        self.timed(stage, "prepare_tokenizers", "tokenizer")
        self.timed(MioDataModule, "preflight", "checks")
        self.timed(
            MioDataModule, "train_dataloader", "", lambda: setattr(self, "checked", len(self.log.read_text().split()))
        )
        with contextlib.suppress(Interrupted):
            stage.fit_chain(
                [str(recipe)], [f"runtime.workers={workers}"], PluginManager.discover(), Console(quiet=True)
            )
        encoded = Counter(self.log.read_text().split())
        return {
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "pictures_trained_on": len({record for _, record in self.trained}),
            "documents_trained_on": len(self.trained),
            "encoded_by_checks": self.checked,
            "encoded_after": encoded.total() - self.checked,
            "encoded_again": encoded.total() - len(encoded),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--form", choices=PATHS, default="files")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # a run in this process, in this folder
    parser.add_argument("--stop", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        os.chdir(chosen.one)
        print(json.dumps(Observed(chosen.one, chosen.stop).run(chosen.one / "raw.yaml", chosen.workers)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder, start = Path(name), time.time()
        write(folder, chosen.form, chosen.pictures)
        dataset, path = PATHS[chosen.form]
        (folder / "raw.yaml").write_text(RECIPE.replace("DATASET", dataset).replace("PATH", path))
        print(f"{chosen.pictures:,} pictures ({chosen.form}), made in {time.time() - start:.0f} s", flush=True)
        command = [sys.executable, __file__, "--one", name, "--workers", str(chosen.workers)]
        environment = {**os.environ, "HF_HOME": str(folder / "datasets")}
        figures: dict[str, Any] = {"pictures": chosen.pictures, "form": chosen.form}
        for what, more in (("new", ["--stop"]), ("resumed", [])):
            (folder / "encoded.log").write_text("")
            done = subprocess.run([*command, *more], stdout=subprocess.PIPE, text=True, check=True, env=environment)
            figures[what] = json.loads(done.stdout.splitlines()[-1])
            print(f"{what}: {json.dumps(figures[what]['seconds'])}", flush=True)
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
