"""Reads damaged media files the way training does: tokenized, each that cannot be read counted with its reason.

    python benchmarks/damaged_media.py [--files 2000] [--folder FOLDER] [--limit 120]

Pictures, recordings and videos of eight formats are truncated, emptied, filled with zeros, renamed to another format,
given flipped bits, absurd headers, or made to unpack to far more than they hold: always the same files. They are read
in a process of their own, which is started again behind a file that it crashed on or took more than `--limit` seconds
for. The last line is one JSON object; exit code 1 says that a file crashed or hung.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import resource
import selectors
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {
    "png": "image", "jpg": "image", "wav": "speech", "flac": "speech",
    "ogg": "speech", "mp4": "video", "gif": "video", "avi": "video",
}  # fmt: skip
DAMAGES = ("truncated", "flipped", "zeros", "header", "renamed", "bomb", "flipped", "header", "noise", "empty")
MODALITIES = ("image", "speech", "video")
RATE = 16_000
WHOLE = 16
"""Undamaged files of each kind, for the tokenizers."""
RECIPE = """
name: damaged
plugins:
  text: {{tokenizer: bytes}}
  image: {{tokenizer: patch_vq, channels: 3}}
  speech: {{tokenizer: mel_rvq}}
  video: {{}}
model: {{width: 64, layers: 1, heads: 2}}
data:
  max_skipped: 1.0
  packing: {{context: 4096}}
  templates:
{templates}
  groups:
    media:
      sources:
{sources}
mixture: {{ratios: {{media: 1}}}}
"""


# --- files


def picture(random: np.random.Generator) -> Any:
    """Smooth colours `[48, 64, 3]`: what every lossy format keeps."""
    corners = random.integers(0, 256, (2, 2, 3)).astype(float)
    y, x = np.linspace(0, 1, 48)[:, None, None], np.linspace(0, 1, 64)[None, :, None]
    top, bottom = corners[0, :1] * (1 - x) + corners[0, 1:] * x, corners[1, :1] * (1 - x) + corners[1, 1:] * x
    return (top * (1 - y) + bottom * y).astype(np.uint8)


def whole(kind: str, random: np.random.Generator) -> bytes:
    """A small file without damage."""
    import av
    import soundfile
    from PIL import Image

    file = io.BytesIO()
    if kind in ("png", "jpg"):
        Image.fromarray(picture(random)).save(file, {"png": "PNG", "jpg": "JPEG"}[kind])
    elif kind == "gif":
        frames = [Image.fromarray(picture(random)) for _ in range(6)]
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=200)
    elif KINDS[kind] == "speech":
        moments = np.arange(RATE) / RATE
        pitches = random.uniform(100, 3000, 3)
        samples = sum(0.2 * np.sin(2 * np.pi * pitch * moments) for pitch in pitches) * random.uniform(0.2, 1)
        soundfile.write(file, samples, RATE, format=kind.upper())
    else:
        with av.open(file, "w", format=kind) as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for _ in range(20):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(random), format="rgb24")))
            container.mux(stream.encode())
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A white picture of one bit per pixel: 8 million pixels take a kilobyte."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * -(-width // 8)
    content = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def bomb(kind: str, content: bytes, number: int) -> bytes:
    """A file that unpacks, or says that it does, to far more than it holds. `number` makes some worse than others."""
    import av
    import soundfile
    from PIL import Image

    file = io.BytesIO()
    if kind == "png":
        return png_of(*[(7_900, 7_900), (30_000, 30_000), (16_000, 4_000), (200_000, 20_000)][number % 4])
    if kind == "jpg":
        place = content.index(b"\xff\xc0") + 5
        side = [65_500, 8_000, 30_000][number % 3].to_bytes(2, "big")
        return content[:place] + side * 2 + content[place + 4 :]
    if kind == "wav":
        # channels, samples per second, bytes of samples, all three of them
        for place in ([(22, 24)], [(24, 28)], [(40, 44)], [(22, 24), (24, 28), (40, 44)])[number % 4]:
            content = content[: place[0]] + b"\xff" * (place[1] - place[0]) + content[place[1] :]
        return content
    if KINDS[kind] == "speech":
        # silence hardly takes room: minutes of it, or a few seconds at a rate that nobody needs
        seconds, rate = [(600, 16_000), (14, 192_000), (3600, 8_000)][number % 3]
        channels = 1 + number % 2
        with soundfile.SoundFile(file, "w", rate, channels, format=kind.upper()) as written:
            for _ in range(seconds):
                written.write(np.zeros((rate, channels), np.int16))
        return file.getvalue()
    if kind == "gif":
        side, count = [(2_000, 20), (5_900, 3), (12_000, 1)][number % 3]
        frames = [Image.new("P", (side, side), index) for index in range(count)]
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=200)
        return file.getvalue()
    side = [(2_048, 60), (4_096, 8), (6_000, 2)][number % 3]
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = side[0], side[0], "yuv420p"
        frame = av.VideoFrame(side[0], side[0], "yuv420p")
        for index in range(side[1]):
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def damaged(number: int, content: bytes, kind: str, random: np.random.Generator) -> tuple[str, bytes]:
    """File name ending and content of a file with one kind of damage."""
    array = np.frombuffer(content, np.uint8).copy()
    size = len(array)
    match DAMAGES[number % len(DAMAGES)]:
        case "truncated":
            return kind, content[: int(random.integers(1, size))]
        case "empty":
            return kind, b""
        case "zeros":
            start = int(random.integers(0, size))
            array[start : start + int(random.integers(1, size))] = 0
        case "renamed":
            return str(random.choice([other for other in KINDS if other != kind])), content
        case "flipped":
            for place in random.integers(0, 8 * size, int(random.integers(1, 200))):
                array[place // 8] ^= 1 << (place % 8)
        case "header":
            start = int(random.integers(0, 64))
            array[start : start + int(random.integers(1, 12))] = random.choice([0, 0x7F, 0x80, 0xFF])
        case "noise":
            return kind, random.bytes(int(random.integers(1, 4096)))
        case "bomb":
            return kind, bomb(kind, content, number // len(DAMAGES))
    return kind, array.tobytes()


def make(folder: Path, count: int) -> None:
    """Writes the files, the lists of them and the recipe."""
    lists: dict[str, list[str]] = {modality: [] for modality in MODALITIES}
    names = list(KINDS)
    for kind in names:
        for number in range(WHOLE):
            path = folder / f"whole-{number}.{kind}"
            path.write_bytes(whole(kind, np.random.default_rng([names.index(kind), number])))
        lists[KINDS[kind]].append(f"whole-0.{kind}")
    for number in range(count):
        random = np.random.default_rng([7, number])
        kind, turn = names[number % len(names)], number // len(names)
        content = (folder / f"whole-{turn % WHOLE}.{kind}").read_bytes()
        ending, content = damaged(turn, content, kind, random)
        name = f"{number:05d}-{DAMAGES[turn % len(DAMAGES)]}.{ending}"
        (folder / name).write_bytes(content)
        lists[KINDS[ending]].append(name)
    templates, sources = [], []
    for modality, files in lists.items():
        path = folder / f"{modality}.jsonl"
        path.write_text("".join(json.dumps({modality: file, "text": file}) + "\n" for file in files))
        templates.append(f'    read_{modality}: [{{direction: read, prompt: "{{{modality}}}", response: " {{text}}"}}]')
        sources.append(f"        {modality}: {{dataset: jsonl, options: {{path: {path}}}, templates: read_{modality}}}")
    text = RECIPE.format(templates="\n".join(templates), sources="\n".join(sources))
    (folder / "damaged.yaml").write_text(text)


# --- reading


def opened(folder: Path) -> tuple[Any, ...]:
    """The streams of the recipe, and their sources.

    The first call trains tokenizers on the whole files.
    """
    from mio.core.contract.plugins import PluginManager
    from mio.core.contract.values import Media
    from mio.core.data.sources import build_streams
    from mio.core.recipe.compose import compose
    from mio.core.tokens.codecs import Codecs
    from mio.core.tokens.rendering import Renderer
    from mio.core.tokens.tokenizer_training import train_tokenizers
    from mio.core.tokens.vocabulary import Vocabulary

    manager = PluginManager.discover()
    recipe = compose([str(folder / "damaged.yaml")], [], manager)
    plugins = manager.enable(recipe.plugins)
    codecs = Codecs(plugins)
    if (folder / "tokenizers").is_dir():
        codecs.load(folder / "tokenizers")
    else:
        media: dict[str, list[Any]] = {"image": [], "speech": []}
        for kind, modality in KINDS.items():
            if modality in media:
                paths = [folder / f"whole-{number}.{kind}" for number in range(WHOLE)]
                media[modality] += [Media(modality, path, key=path.name) for path in paths]
        train_tokenizers(codecs, codecs.trainable(), media, folder / "tokenizers", seed=0)
    vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), plugins.control_tokens())
    streams, sources = build_streams(recipe, plugins, Renderer(vocabulary, codecs, recipe.train.loss))
    return recipe, streams, sources


def read(folder: Path, start: int) -> None:
    """Prints one JSON object before and after each record from `start` on, and the checks' own counts at the end."""
    from mio.core.data.preflight import preflight
    from mio.core.data.streams import BROKEN

    recipe, streams, sources = opened(folder)
    records = [(stream, index) for stream in streams for index in range(len(stream))]
    for number in range(start, len(records)):
        stream, index = records[number]
        print(json.dumps({"reading": number}), flush=True)
        clock = time.perf_counter()
        reason = stream.reason_of(index)
        seconds = time.perf_counter() - clock
        if reason == BROKEN:
            reason = stream.describe_record(index)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        name = Path(stream.source[index][stream.name.split("/")[1]].data).name
        print(json.dumps({"file": name, "seconds": seconds, "reason": reason, "peak_mib": peak}), flush=True)
    if start == 0:
        report = preflight(sources, streams, recipe.data.max_skipped)
        print(json.dumps({"broken": sum(one["broken"] for one in report.values())}), flush=True)


def answers(folder: Path, start: int, limit: float) -> Iterator[dict[str, Any]]:
    """What a process that reads from `start` on says, until it ends or says nothing for `limit` seconds."""
    command = [sys.executable, __file__, "--folder", str(folder), "--read", str(start)]
    with (
        (folder / "errors.txt").open("ab") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
        selectors.DefaultSelector() as selector,
    ):
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        pending = b""
        while selector.select(limit):
            chunk = process.stdout.read1()
            if not chunk:
                yield {"ended": process.wait()}
                return
            *lines, pending = (pending + chunk).split(b"\n")
            yield from (json.loads(line) for line in lines)
        process.kill()
        yield {"hung": True}


def reason_of(message: str) -> str:
    """A message without its file and figures, so that like ones are counted together."""
    message = re.sub(r"\S*/\S+?(?=[:,\s]|$)", "FILE", message)
    message = re.sub(r"^(FILE(:\d+)?: )+", "", message)
    return re.sub(r"\d[\d,.]*", "N", message)[:80]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="where the files are made and left; otherwise they are removed")
    parser.add_argument("--limit", type=float, default=120, help="seconds after which a file counts as hung")
    parser.add_argument("--read", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read is not None:
        read(options.folder, options.read)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, options.files)
        return measure(folder, options.limit)


def measure(folder: Path, limit: float) -> int:
    """Reads everything in `folder`, prints what came of it, and returns the exit code."""
    opened(folder)  # trains the tokenizers, whose memory is not that of reading
    clock = time.perf_counter()
    crashed, hung, results = [], [], []
    start, total = 0, sum(len((folder / f"{one}.jsonl").read_text().splitlines()) for one in MODALITIES)
    broken = None
    while start < total:
        current = start - 1
        for answer in answers(folder, start, limit):
            if "reading" in answer:
                current = answer["reading"]
            elif "file" in answer:
                results.append(answer)
            elif "broken" in answer:
                broken = answer["broken"]
            elif "hung" in answer:
                hung.append(current)
            elif answer["ended"]:
                if current < start:
                    raise SystemExit((folder / "errors.txt").read_text()[-2000:])
                crashed.append(current)
        start = current + 1
    slowest = max(results, key=lambda one: one["seconds"])
    reasons = Counter(reason_of(one["reason"]) for one in results if one["reason"])
    for reason, count in reasons.most_common():
        print(f"{count:6d}  {reason}")
    unreadable = sum(reasons.values())
    if broken is not None and broken != unreadable:
        raise SystemExit(f"{unreadable} files have a reason, but the checks before training count {broken}")
    print(f"slowest: {slowest['file']}")
    figures = {
        "files": total - len(KINDS),
        "crashed": len(crashed),
        "hung": len(hung),
        "peak_mib": round(max(one["peak_mib"] for one in results)),
        "slowest_seconds": round(slowest["seconds"], 2),
        "wall_seconds": round(time.perf_counter() - clock, 1),
        "readable": len(results) - unreadable - len(KINDS),
        "reasons": dict(reasons.most_common()),
    }
    print(json.dumps(figures))
    return 1 if crashed or hung else 0


if __name__ == "__main__":
    sys.exit(main())
