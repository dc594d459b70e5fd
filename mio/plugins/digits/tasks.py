"""Evaluation tasks of the digits world: held-out scans and unheard voices, judged by what answers show and say.

Each template is one that the SFT data of `recipes/data/digits.yaml` trains. Where MIO has an evaluation prompt
(arXiv 2409.17692 v4, table 12), it is that prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

from mio import Answer, Record, Task
from mio.plugins.digits.charts import chart_tasks
from mio.plugins.digits.cloning import cloning_tasks
from mio.plugins.digits.corpora import captions, counting, edits, pictures_aloud, questions, speech, sums, videos
from mio.plugins.digits.judges import ceiling, shows
from mio.plugins.digits.looking import looking_tasks
from mio.plugins.digits.measuring import media_of, of, shown, task, written
from mio.plugins.digits.quizzes import quiz_tasks
from mio.plugins.digits.storytelling import storytelling_tasks

PICTURES = (
    *("caption", "draw", "sum_pictures", "edit", "count_on"),
    *("quiz", "image_quiz", "reason", "in_context", "chart_quiz", "storytelling"),
)
"""Tasks of pictures and words alone."""


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
    """Nothing is read or trained before a task's records or judge are called."""
    return [
        task(
            "caption",
            captions,
            prompt="Provide a one-sentence caption for the provided image. {image}",
            response="{caption}",
            output="text",
            judge=written("caption"),
            ceiling=ceiling(of("image")),
        ),
        task(
            "draw",
            captions,
            prompt="Please generate an image according to the given description. {caption}",
            response="{image}",
            output="image",
            judge=shown("caption"),
            ceiling=ceiling(of("image")),
            copies=True,
        ),
        task(
            "transcribe",
            speech,
            prompt="Please transcribe this speech.{speech}",
            response="{transcription}",
            output="text",
            judge=written("transcription"),
            ceiling=ceiling(of("speech")),
        ),
        task(
            "speak",
            speech,
            prompt="Please generate a speech according to the given transcription. Start with <spch>. {transcription}",
            response="{speech}",
            output="speech",
            judge=shown("transcription", "speech"),
            ceiling=ceiling(of("speech")),
        ),
        task(
            "picture_to_speech",
            pictures_aloud,
            prompt="Say what the image shows. {image}",
            response="{name}: {speech}",
            output="speech",
            judge=shown("name", "speech"),
            ceiling=ceiling(of("image", "speech")),
        ),
        task(
            "speech_to_picture",
            pictures_aloud,
            prompt="Draw what you hear. {speech}",
            response="{name}: {image}",
            output="image",
            judge=shown("name"),
            ceiling=ceiling(of("image", "speech")),
            copies=True,
        ),
        task(
            "sum_pictures",
            sums,
            prompt="Add up step by step and draw each result. {operands}",
            response="{working}",
            output="image",
            judge=_sum_right,
            ceiling=ceiling(of("operands", "working")),
        ),
        task(
            "edit",
            edits,
            prompt="Edit the image: {change}. {image}",
            response="{reading}: {edited}",
            output="image",
            judge=shown("name"),
            ceiling=ceiling(of("image", "edited")),
            copies=True,
        ),
        task(
            "video_caption",
            videos,
            prompt="Please describe the following video. {video}",
            response="{names}: {description}",
            output="text",
            judge=written("description"),
            ceiling=ceiling(of("video")),
        ),
        task(
            "video_draw",
            videos,
            prompt="Please generate a video according to the given description. {description}",
            response="{names}: {video}",
            output="video",
            judge=shown("names"),
            ceiling=ceiling(of("video")),
            copies=True,
        ),
        task(
            "count_on",
            counting,
            prompt="Count on. {shown}",
            response="{rest}",
            output="image",
            judge=_count_right,
            ceiling=ceiling(lambda record: list(media_of(record["rest"]))[:1]),
        ),
        task(
            "answer_aloud",
            questions,
            prompt="Answer this question. {question}",
            response="{reading}: {answer}",
            output="speech",
            judge=shown("result", "speech"),
            ceiling=ceiling(of("operands", "answer")),
        ),
        *quiz_tasks(),
        *looking_tasks(),
        *chart_tasks(),
        *storytelling_tasks(),
        *cloning_tasks(),
    ]
