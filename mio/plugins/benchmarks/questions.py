"""Questions about pictures and videos that are answered in a word or a few: VQA v2, OK-VQA, VizWiz, MSVD-QA and
MSRVTT-QA."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mio import Answer, Record, RoundTrip, Task, Template
from mio.plugins.benchmarks import decoding
from mio.plugins.benchmarks.folders import Entry, Folder, sample
from mio.plugins.benchmarks.options import BenchmarkOptions

_TOKENS = 32
"""Of an answer; LMMs-Eval has 16 for VQA v2 and no bound of its own for the others."""

_UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'.\n"
_BRIEFLY = "Answer the question using a single word or phrase."

_VIDEO_FOLDERS = {
    "msvd_qa": ("YouTubeClips", "videos", "video"),
    "msrvtt_qa": ("TestVideo", "TrainValVideo", "videos", "video"),
}
_VIDEO_ENDINGS = (".avi", ".mp4", ".webm", ".mkv", ".gif")


def tasks(options: BenchmarkOptions) -> list[Task]:
    every = {
        "vqav2": (_picture_prompt(""), _asked_about_coco, _by_people, _best_answer),
        "ok_vqa": (_picture_prompt(_UNANSWERABLE), _asked_about_coco, _by_people, _best_answer),
        "vizwiz": (_picture_prompt(_UNANSWERABLE), _asked_by_the_blind, _by_people, _best_answer),
        "msvd_qa": (_VIDEO_PROMPT, _asked_about_videos, _exactly, None),
        "msrvtt_qa": (_VIDEO_PROMPT, _asked_about_videos, _exactly, None),
    }
    return [
        Task(
            name=data_set,
            template=Template(direction="answer", prompt=prompt, response="{answer?}"),
            records=partial(records, options, data_set),
            output="text",
            judge=judge,
            ceiling=ceiling,
            decoding=decoding.text(_TOKENS),
            needs=(options.image if "{image}" in prompt else options.video,),
            missing=options.missing(data_set),
        )
        for data_set, (prompt, records, judge, ceiling) in every.items()
    ]


def _picture_prompt(unanswerable: str) -> str:
    """The prompts of LMMs-Eval (`lmms_eval/tasks/{vqav2,ok_vqa,vizwiz_vqa}`), which puts the picture first."""
    return f"{{image}}\n{{question}}\n{unanswerable}{_BRIEFLY}"


_VIDEO_PROMPT = (
    # arXiv 2409.17692 v4, table 12
    "The goal is to use the visual information available in the image to provide an accurate answer to the question. "
    "This requires careful observation, attention to detail, and sometimes a bit of creative thinking."
    "{video} Question: {question} Answer:"
)


# ---- records


def _asked_about_coco(options: BenchmarkOptions, data_set: str, count: int) -> list[Record]:
    folder = Folder.of(options, data_set)
    split, version = f"{options.split(data_set)}2014", "v2_" if data_set == "vqav2" else ""
    asked, answered = f"{version}OpenEnded_mscoco_{split}_questions.json", f"{version}mscoco_{split}_annotations.json"
    questions = folder.json(asked, f"Questions/{asked}")["questions"]
    annotations = folder.json(answered, f"Annotations/{answered}")["annotations"]
    answers = {entry["question_id"].name: entry for entry in annotations}
    records: list[Record] = []
    for entry in sample(questions, count, lambda entry: entry["question_id"].name):
        number = entry["question_id"].name
        if number not in answers:
            raise folder.problem(f"{entry}: {annotations.path} has no answers to question {number}")
        name = f"COCO_{split}_{entry['image_id'].name:0>12}.jpg"
        path = folder.place(*(f"{part}{split}/{name}" for part in ("", "Images/mscoco/", "images/")))
        records.append({
            "image": folder.media(options.image, path, str(entry)),
            "question": entry["question"].text,
            **_answers(folder, answers[number]),
        })  # fmt: skip
    return records


def _asked_by_the_blind(options: BenchmarkOptions, data_set: str, count: int) -> list[Record]:
    folder = Folder.of(options, data_set)
    split = options.split(data_set)
    questions = folder.json(f"{split}.json", f"Annotations/{split}.json")
    return [
        {
            "image": folder.media(options.image, folder.place(f"{split}/{entry['image'].file_name}"), str(entry)),
            "question": entry["question"].text.capitalize(),  # as LMMs-Eval asks it
            **_answers(folder, entry),
        }
        for entry in sample(questions, count, lambda entry: entry["image"].text)
    ]


def _answers(folder: Folder, entry: Entry) -> Record:
    """What people answered, and the answer that most of them gave."""
    answers = [given["answer"].string for given in entry["answers"]]
    if not answers:
        raise folder.problem(f"{entry['answers']}: holds no answers")
    return {"answers": answers, "answer": max(answers, key=answers.count)}


def _asked_about_videos(options: BenchmarkOptions, data_set: str, count: int) -> list[Record]:
    folder = Folder.of(options, data_set)
    questions = folder.json(f"{options.split(data_set)}_qa.json")
    names = _video_names(folder) if data_set == "msvd_qa" else {}
    return [
        {
            "video": folder.media(options.video, _video(folder, names, entry), str(entry)),
            "question": entry["question"].text,
            "answer": entry["answer"].text,
        }
        for entry in sample(questions, count, lambda entry: entry["id"].name)
    ]


def _video_names(folder: Folder) -> dict[str, str]:
    """File names, without ending, by the data set's own names of videos: lines `-4wsuPCjDBc_5_15 vid1`."""
    path = folder.place("youtube_mapping.txt")
    names = {}
    for number, line in enumerate(folder.lines(path), start=1):
        words = line.split()
        if words:
            if len(words) != 2 or "/" in words[0]:
                raise folder.problem(f"{path}, line {number}: {line[:60]!r} is not the name of a video and its number")
            names[words[1]] = words[0]
    return names


def _video(folder: Folder, names: dict[str, str], entry: Entry) -> Path:
    number = entry["video_id"].file_name
    stem = names.get(f"vid{number}") if names else f"video{number}"
    if stem is None:
        raise folder.problem(f"{entry}: youtube_mapping.txt has no video vid{number}")
    stems = (f"{part}/{stem}" for part in _VIDEO_FOLDERS[folder.option])
    return folder.place(*(f"{one}{ending}" for one in stems for ending in _VIDEO_ENDINGS))


# ---- judges


def _by_people(answers: Sequence[Answer], records: Sequence[Record]) -> Sequence[float]:
    from mio.plugins.benchmarks.metrics.vqa import accuracy

    return [accuracy(answer.text, record["answers"]) for answer, record in zip(answers, records, strict=True)]


def _best_answer(records: Sequence[Record], roundtrip: RoundTrip) -> float:  # noqa: ARG001
    """What the best answers would have: people do not agree."""
    from mio.plugins.benchmarks.metrics.vqa import best

    return sum(best(record["answers"]) for record in records) / len(records)


def _exactly(answers: Sequence[Answer], records: Sequence[Record]) -> Sequence[float]:
    """Whether the answer is the right one, both normalised as those about pictures."""
    from mio.plugins.benchmarks.metrics.vqa import normalised

    return [
        normalised(answer.text.strip()) == normalised(record["answer"])
        for answer, record in zip(answers, records, strict=True)
    ]
