"""Evaluation tasks of the conversations: does the model answer what is asked, and is it silent where nothing is?

Pictures and voices are held out. Each template is one that `recipes/vita/digits` trains. An answer begins with its
state: `<1>` answers what was spoken, `<2>` says that nothing of it was addressed to the model, `<3>` answers what was
written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from mio import Answer, Record, Task, Template
from mio.plugins.digits.judges import last_clause, shows
from mio.plugins.digits.tasks import DECODING, held_out

SPOKEN, SILENT, WRITTEN = "<1>", "<2>", "<3>"

Judge = Callable[[Sequence[Answer], Sequence[Record]], list[bool]]


def state(answer: Answer) -> tuple[str, str]:
    """The state token that an answer begins with, empty where it has none, and its text."""
    text = answer.text.strip()
    return (text[:3], text[3:].strip()) if text[:3] in (SPOKEN, SILENT, WRITTEN) else ("", text)


def _right(expected: str) -> Judge:
    """The answer is the record's, in the expected state."""
    return lambda answers, records: [
        state(answer) == (expected, record["answer"]) for answer, record in zip(answers, records, strict=True)
    ]


def _silent(answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:  # noqa: ARG001  a `Judge`
    return [state(answer)[0] == SILENT for answer in answers]


def _answered(answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:  # noqa: ARG001
    """There is an answer to something spoken, right or wrong."""
    return [state(answer)[0] == SPOKEN and bool(state(answer)[1]) for answer in answers]


def _heard(answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:
    return [
        last_clause(answer.text) == record["transcription"] for answer, record in zip(answers, records, strict=True)
    ]


def _aloud(answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:
    return shows(answers, [record["answer"] for record in records], "speech")


def _spoken(count: int) -> list[Record]:
    """Questions to the model about pictures, videos, beeps and sums alike, what they are about in `seen`."""
    kinds = (
        ("picture_questions", "image"),
        ("video_questions", "video"),
        ("sum_questions", ""),
        ("sound_questions", "sound"),
    )
    some = [
        [
            {"seen": [record[name]] if name else [], "question": record["question"]}
            for record in held_out(corpus, count // 4 + 1)
        ]
        for corpus, name in kinds
    ]
    return list(chain.from_iterable(zip(*some, strict=False)))[:count]


def _task(name: str, corpus: str, prompt: str, response: str, judge: Judge, output: str = "text") -> Task:
    return Task(
        name=name,
        template=Template(direction=name, prompt=prompt, response=response),
        records=lambda count: held_out(corpus, count) if corpus else _spoken(count),
        output=output,
        judge=judge,
        decoding=DECODING,
    )


def talk_tasks() -> list[Task]:
    """Nothing is read before a task's records are called."""
    return [
        _task("picture_asked", "picture_questions", "{image}{asked}", "<3>{answer}", _right(WRITTEN)),
        _task("picture_asked_aloud", "picture_questions", "{image}{question}", "<1>{answer}", _right(SPOKEN)),
        _task("video_asked", "video_questions", "{video}{asked}", "<3>{answer}", _right(WRITTEN)),
        _task("video_asked_aloud", "video_questions", "{video}{question}", "<1>{answer}", _right(SPOKEN)),
        _task("sound_asked", "sound_questions", "{sound}{asked}", "<1>{answer}", _right(SPOKEN)),
        _task("sound_asked_aloud", "sound_questions", "{sound}{question}", "<1>{answer}", _right(SPOKEN)),
        _task("sum_asked_aloud", "sum_questions", "{question}", "<1>{answer}", _right(SPOKEN)),
        _task("hear", "utterances", "Transcribe this.{speech}", "{transcription}", _heard),
        _task("addressed", "", "{seen?}{question}", "<1>", _answered),
        _task("remark", "remarks", "{seen?}{speech}", "<2>{heard}", _silent),
        _task("crowd", "crowds", "{seen?}{speech}", "<2>{heard}", _silent),
        _task("noise", "noises", "{seen?}{speech}", "<2>{heard}", _silent),
        _task("reply_aloud", "replies", "Answer aloud.{image}{question}", "<1>{answer}: {reply}", _aloud, "speech"),
    ]
