"""Evaluation tasks of the digits world: held-out scans and unheard voices, judged by what answers show and say.

Each template is one that the SFT data of `recipes/data/digits.yaml` trains. Where MIO has an evaluation prompt
(arXiv 2409.17692 v4, table 12), it is that prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mio import Answer, Decoding, Media, Record, Task, Template, media
from mio.plugins.digits import drawn, talk
from mio.plugins.digits.cloning import MEASURES, cloned, cloning_ceiling
from mio.plugins.digits.corpora import BUILDERS, Corpus
from mio.plugins.digits.judges import ceiling, frames_of, last_clause, shows

READ = 20_000
"""Records of a held-out corpus that are searched for different items."""

PICTURES = ("caption", "draw", "sum_pictures", "edit", "count_on")
"""Tasks of pictures and words alone."""

DECODING = Decoding(temperature=0.0, media_temperature=0.5)


def held_out(corpus: str, count: int) -> list[Record]:
    """The first `count` records of a held-out corpus that differ in their media; fewer if there are no more."""
    build = next(build for build in (*BUILDERS, *talk.BUILDERS, *drawn.BUILDERS) if build.__name__ == corpus)
    source = Corpus(corpus, build, "test", {"length": READ})
    seen: set[tuple[str, ...]] = set()
    records: list[Record] = []
    for index in range(len(source)):
        if len(records) == count:
            break
        record = source[index]
        keys = tuple(item.key for item in _media(record))
        if keys not in seen:
            seen.add(keys)
            records.append(record)
    return records


def _media(value: Any) -> Iterator[Media]:
    return (item for item in media.contents(value) if isinstance(item, Media))


def _task(
    name: str,
    corpus: str,
    *,
    prompt: str,
    response: str,
    output: str,
    judge: Callable[[Sequence[Answer], Sequence[Record]], Sequence[bool]],
    right: Callable[[Record], Sequence[Media]],
    copies: bool = False,
) -> Task:
    return Task(
        name=name,
        template=Template(direction=name, prompt=prompt, response=response),
        records=lambda count: held_out(corpus, count),
        output=output,
        judge=judge,
        ceiling=ceiling(right),
        decoding=DECODING,
        copies=copies,
    )


def _written(field: str) -> Callable[[Sequence[Answer], Sequence[Record]], list[bool]]:
    """The answer's text ends in the record's field."""
    return lambda answers, records: [
        last_clause(answer.text) == record[field] for answer, record in zip(answers, records, strict=True)
    ]


def _shown(field: str, modality: str = "image") -> Callable[[Sequence[Answer], Sequence[Record]], list[bool]]:
    """The answer's pictures, or what it says, are the digits that the record's field names."""
    return lambda answers, records: shows(answers, [record[field] for record in records], modality)


def _of(*names: str) -> Callable[[Record], list[Media]]:
    """Media in some fields of a record, the frames of videos one by one."""
    return lambda record: [
        part
        for item in _media([record[name] for name in names])
        for part in (frames_of(item) if item.modality == "video" else [item])
    ]


def _sum_right(answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:
    """The result is right in words and drawn, and so is the intermediate sum where there is one."""
    drawn = shows(answers, [record["drawn"] for record in records])
    named = [answer.text.split()[-1:] == [record["total"]] for answer, record in zip(answers, records, strict=True)]
    return [picture and word for picture, word in zip(drawn, named, strict=True)]


def _count_right(answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:
    """The next word is right and so is the next picture; how far the answer counts on is its own affair."""
    named = [answer.text.split()[:1] == [record["next"]] for answer, record in zip(answers, records, strict=True)]
    firsts = [Answer(tuple(("image", image) for image in answer.media("image")[:1])) for answer in answers]
    drawn = shows(firsts, [record["next"] for record in records])
    return [word and picture for word, picture in zip(named, drawn, strict=True)]


def tasks() -> list[Task]:
    """The thirteen tasks. Nothing is read or trained before a task's records or judge are called."""
    return [
        _task(
            "caption",
            "captions",
            prompt="Provide a one-sentence caption for the provided image. {image}",
            response="{caption}",
            output="text",
            judge=_written("caption"),
            right=_of("image"),
        ),
        _task(
            "draw",
            "captions",
            prompt="Please generate an image according to the given description. {caption}",
            response="{image}",
            output="image",
            judge=_shown("caption"),
            right=_of("image"),
            copies=True,
        ),
        _task(
            "transcribe",
            "speech",
            prompt="Please transcribe this speech.{speech}",
            response="{transcription}",
            output="text",
            judge=_written("transcription"),
            right=_of("speech"),
        ),
        _task(
            "speak",
            "speech",
            prompt="Please generate a speech according to the given transcription. Start with <spch>. {transcription}",
            response="{speech}",
            output="speech",
            judge=_shown("transcription", "speech"),
            right=_of("speech"),
        ),
        _task(
            "picture_to_speech",
            "pictures_aloud",
            prompt="Say what the image shows. {image}",
            response="{name}: {speech}",
            output="speech",
            judge=_shown("name", "speech"),
            right=_of("image", "speech"),
        ),
        _task(
            "speech_to_picture",
            "pictures_aloud",
            prompt="Draw what you hear. {speech}",
            response="{name}: {image}",
            output="image",
            judge=_shown("name"),
            right=_of("image", "speech"),
            copies=True,
        ),
        _task(
            "sum_pictures",
            "sums",
            prompt="Add up step by step and draw each result. {operands}",
            response="{working}",
            output="image",
            judge=_sum_right,
            right=_of("operands", "working"),
        ),
        _task(
            "edit",
            "edits",
            prompt="Edit the image: {change}. {image}",
            response="{reading}: {edited}",
            output="image",
            judge=_shown("name"),
            right=_of("image", "edited"),
            copies=True,
        ),
        _task(
            "video_caption",
            "videos",
            prompt="Please describe the following video. {video}",
            response="{names}: {description}",
            output="text",
            judge=_written("description"),
            right=_of("video"),
        ),
        _task(
            "video_draw",
            "videos",
            prompt="Please generate a video according to the given description. {description}",
            response="{names}: {video}",
            output="video",
            judge=_shown("names"),
            right=_of("video"),
            copies=True,
        ),
        _task(
            "count_on",
            "counting",
            prompt="Count on. {shown}",
            response="{rest}",
            output="image",
            judge=_count_right,
            right=lambda record: list(_media(record["rest"]))[:1],
        ),
        _task(
            "answer_aloud",
            "questions",
            prompt="Answer this question. {question}",
            response="{reading}: {answer}",
            output="speech",
            judge=_shown("result", "speech"),
            right=_of("operands", "answer"),
        ),
        Task(
            name="clone",
            template=Template(
                direction="clone", prompt="Say {text} in this voice. {voice:generate}", response="{speech}"
            ),
            records=lambda count: held_out("cloning", count),
            output="speech",
            judge=cloned,
            measures=MEASURES,
            ceiling=cloning_ceiling,
            decoding=DECODING,
        ),
    ]
