"""Evaluation tasks of the conversations: does the model answer what is asked, and is it silent where nothing is?

Pictures and voices are held out. Each template is one that `recipes/vita/digits` trains. An answer begins with one of
the state tokens of the plugin `vita`: it answers what was spoken, or what was written, or says that nothing of it was
addressed to the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from mio import Answer, Record, Task, Template
from mio.plugins.digits import talk
from mio.plugins.digits.corpus import Builder
from mio.plugins.digits.judges import last_clause, shows
from mio.plugins.digits.measuring import DECODING, held_out

SPOKEN, WRITTEN, UNADDRESSED = "spoken", "written", "unaddressed"
"""Names of the plugin `vita`'s state tokens: of answers, and of what is not meant for the model."""

Judge = Callable[[Sequence[Answer], Sequence[Record]], list[bool]]


def _right(state: str) -> Judge:
    """The answer is the record's, in this state."""
    return lambda answers, records: [
        answer.controls == (state,) and answer.text.strip() == record["answer"]
        for answer, record in zip(answers, records, strict=True)
    ]


def _silent(answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:  # noqa: ARG001  a `Judge`
    return [answer.silent for answer in answers]


def _answered(answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:  # noqa: ARG001
    """There is an answer to something spoken, right or wrong."""
    return [answer.controls == (SPOKEN,) and bool(answer.text.strip()) for answer in answers]


def _heard(answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:
    return [
        last_clause(answer.text) == record["transcription"] for answer, record in zip(answers, records, strict=True)
    ]


def _aloud(answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:
    return shows(answers, [record["answer"] for record in records], "speech")


def _spoken(count: int) -> list[Record]:
    """Questions to the model about pictures, videos, beeps and sums alike, what they are about in `seen`."""
    kinds = (
        (talk.picture_questions, "image"),
        (talk.video_questions, "video"),
        (talk.sum_questions, ""),
        (talk.sound_questions, "sound"),
    )
    some = [
        [
            {"seen": [record[name]] if name else [], "question": record["question"]}
            for record in held_out(build, count // 4 + 1)
        ]
        for build, name in kinds
    ]
    return list(chain.from_iterable(zip(*some, strict=False)))[:count]


def _task(
    name: str, build: Builder | None, prompt: str, response: str, judge: Judge, *controls: str, output: str = "text"
) -> Task:
    return Task(
        name=name,
        template=Template(direction=name, prompt=prompt, response=response),
        records=lambda count: held_out(build, count) if build else _spoken(count),
        output=output,
        judge=judge,
        decoding=DECODING,
        controls=controls,
    )


def talk_tasks() -> list[Task]:
    """Nothing is read before a task's records are called."""
    return [
        _task("picture_asked", talk.picture_questions, "{image}{asked}", "{answer}", _right(WRITTEN), WRITTEN),
        _task("picture_asked_aloud", talk.picture_questions, "{image}{question}", "{answer}", _right(SPOKEN), SPOKEN),
        _task("video_asked", talk.video_questions, "{video}{asked}", "{answer}", _right(WRITTEN), WRITTEN),
        _task("video_asked_aloud", talk.video_questions, "{video}{question}", "{answer}", _right(SPOKEN), SPOKEN),
        _task("sound_asked", talk.sound_questions, "{sound}{asked}", "{answer}", _right(SPOKEN), SPOKEN),
        _task("sound_asked_aloud", talk.sound_questions, "{sound}{question}", "{answer}", _right(SPOKEN), SPOKEN),
        _task("sum_asked_aloud", talk.sum_questions, "{question}", "{answer}", _right(SPOKEN), SPOKEN),
        _task("hear", talk.utterances, "Transcribe this.{speech}", "{transcription}", _heard),
        _task("addressed", None, "{seen?}{question}", "any", _answered, SPOKEN),
        _task("remark", talk.remarks, "{seen?}{speech}", "{heard}", _silent, UNADDRESSED),
        _task("crowd", talk.crowds, "{seen?}{speech}", "{heard}", _silent, UNADDRESSED),
        _task("noise", talk.noises, "{seen?}{speech}", "{heard}", _silent, UNADDRESSED),
        _task(
            "reply_aloud", talk.replies, "Answer aloud.{image}{question}", "{answer}: {reply}", _aloud, output="speech"
        ),
    ]
