"""Small data sets in the layouts in which the public benchmarks are published, with media that are made."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image

ITEMS = 4
"""Of each data set."""


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def picture(path: Path, seed: int, side: int = 24) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = np.kron(rng.integers(0, 256, (3, 4, 3)), np.ones((side // 3, side // 3, 1)))
    Image.fromarray(pixels.astype(np.uint8)).save(path, format="JPEG")


def sound(path: Path, seed: int, rate: int = 16_000, seconds: float = 0.4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(int(rate * seconds)) / rate
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * (200 + 60 * seed) * times), rate)


def video(path: Path, seed: int, codec: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(6):
            pixels = np.full((32, 32, 3), rng.integers(0, 256, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def captions(number: int) -> list[str]:
    return [f"A picture of {number} squares.", f"{number} squares, isn't it?", f"There are {number} coloured squares"]


def coco(folder: Path) -> None:
    images = []
    for number in range(ITEMS + 1):
        name = f"COCO_val2014_{number:012d}.jpg"
        picture(folder / "val2014" / name, number)
        sentences = [{"raw": text, "tokens": text.split(), "imgid": number} for text in captions(number)]
        split = "test" if number < ITEMS else "restval"
        images.append(
            {"filepath": "val2014", "filename": name, "imgid": number, "split": split, "sentences": sentences}
        )
    write_json(folder / "dataset_coco.json", {"dataset": "coco", "images": images})


def flickr30k(folder: Path) -> None:
    images = []
    for number in range(ITEMS):
        picture(folder / "flickr30k-images" / f"{1000 + number}.jpg", number)
        sentences = [{"raw": f" {text} "} for text in captions(number)]
        images.append({"filename": f"{1000 + number}.jpg", "imgid": number, "split": "test", "sentences": sentences})
    write_json(folder / "dataset_flickr30k.json", {"dataset": "flickr30k", "images": images})


def _about_coco(folder: Path, version: str) -> None:
    questions, annotations = [], []
    for number in range(ITEMS):
        picture(folder / f"val2014/COCO_val2014_{number:012d}.jpg", number)
        name = number * 1000
        questions.append(
            {"image_id": number, "question": f"How many squares are in row {number}?", "question_id": name}
        )
        given = ["4"] * 6 + ["four", "4.", "many", str(number)]
        answers = [{"answer": text, "answer_confidence": "yes", "answer_id": place} for place, text in enumerate(given)]
        annotations.append({"question_id": name, "image_id": number, "answers": answers, "answer_type": "number"})
    write_json(folder / f"{version}OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    write_json(folder / f"{version}mscoco_val2014_annotations.json", {"annotations": annotations})


def vqav2(folder: Path) -> None:
    _about_coco(folder, "v2_")


def ok_vqa(folder: Path) -> None:
    _about_coco(folder, "")


def vizwiz(folder: Path) -> None:
    entries = []
    for number in range(ITEMS):
        name = f"VizWiz_val_{number:08d}.jpg"
        picture(folder / "val" / name, number)
        given = ["unanswerable"] * 4 + ["squares"] * 6
        answers = [{"answer": text, "answer_confidence": "maybe"} for text in given]
        entries.append({"image": name, "question": "what IS this?", "answers": answers, "answerable": 1})
    write_json(folder / "Annotations/val.json", entries)


def seed_bench(folder: Path) -> None:
    questions = []
    for number in range(ITEMS + 1):
        kind = "image" if number < ITEMS else "video"
        if kind == "image":
            picture(folder / f"SEED-Bench-image/{number}_22", number)
        questions.append({
            "answer": "ABCD"[number % 4],
            **{f"choice_{letter}": f"{place + number}" for place, letter in enumerate("abcd")},
            "data_id": f"{number}_22", "data_type": kind, "question": f"How many towels are in picture {number}?",
            "question_id": str(number), "question_type_id": 5 if kind == "image" else 10,
        })  # fmt: skip
    write_json(folder / "SEED-Bench.json", {"questions": questions, "question_type": {"Instance Counting": 5}})


def librispeech(folder: Path) -> None:
    lines = []
    for number in range(ITEMS):
        name = f"61-70968-{number:04d}"
        sound(folder / f"test-clean/61/70968/{name}.flac", number)
        lines.append(f"{name} HE BEGAN {number} CONFUSED COMPLAINTS")
    (folder / "test-clean/61/70968/61-70968.trans.txt").write_text("\n".join(lines) + "\n")


def vctk(folder: Path) -> None:
    for number in range(ITEMS + 1):
        name = f"p225_{number + 1:03d}"
        (folder / "txt/p225").mkdir(parents=True, exist_ok=True)
        (folder / f"txt/p225/{name}.txt").write_text("Please call Stella.\n")
        if number < ITEMS:  # some sentences have no recording
            sound(folder / f"wav48_silence_trimmed/p225/{name}_mic1.flac", number, rate=48_000)


def _about_videos(folder: Path, path: Callable[[int], str], codec: str) -> None:
    entries: list[dict[str, Any]] = []
    for number in range(ITEMS):
        video(folder / path(number), number, codec)
        entries.append({"answer": "square", "id": number, "question": "what is shown?", "video_id": number + 1})
    write_json(folder / "test_qa.json", entries)


def msvd_qa(folder: Path) -> None:
    _about_videos(folder, lambda number: f"YouTubeClips/-4wsuPCjDBc_{number}_15.avi", "mpeg4")
    lines = [f"-4wsuPCjDBc_{number}_15 vid{number + 1}" for number in range(ITEMS)]
    (folder / "youtube_mapping.txt").write_text("\n".join(lines) + "\n")


def msrvtt_qa(folder: Path) -> None:
    _about_videos(folder, lambda number: f"TestVideo/video{number + 1}.mp4", "mpeg4")


def mmlu(folder: Path) -> None:
    (folder / "data/test").mkdir(parents=True)
    for subject in ("abstract_algebra", "us_foreign_policy"):
        with (folder / f"data/test/{subject}_test.csv").open("w", newline="") as file:
            for number in range(ITEMS // 2):
                question = f'Which is "number {number}",\nof these?'
                csv.writer(file).writerow([question, "0", "1", "2", "3", "ABCD"[number]])


DATA_SETS: Sequence[Callable[[Path], None]] = (
    coco, flickr30k, vqav2, ok_vqa, vizwiz, seed_bench, librispeech, vctk, msvd_qa, msrvtt_qa, mmlu,
)  # fmt: skip


def make(folder: Path) -> dict[str, str]:
    """All data sets below a folder. Returns the options that name them."""
    for data_set in DATA_SETS:
        data_set(folder / data_set.__name__)
    return {data_set.__name__: str(folder / data_set.__name__) for data_set in DATA_SETS}
