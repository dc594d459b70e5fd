"""What is measured: every direction on held-out tunes and patterns, right if all of the answer is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mio
from mio_music.records import SOURCES, Records
from mio_music.tunes import continues

TEMPLATES = {
    "score_read": mio.Template(direction="score_read", prompt="Read these notes. {score}", response="{notes}"),
    "score_write": mio.Template(direction="score_write", prompt="Write these notes: {notes}", response="{score}"),
    "score_describe": mio.Template(
        direction="score_describe", prompt="Describe this tune. {score}", response="{facts}"
    ),
    "score_transpose": mio.Template(
        direction="score_transpose", prompt="Move this tune {interval}. {score}", response="{moved}"
    ),
    "score_continue": mio.Template(
        direction="score_continue", prompt="Continue this tune for two bars. {score}", response="{rest}"
    ),
    "score_play": mio.Template(direction="score_play", prompt="Play {pattern}.", response="{score}"),
    "score_hum": mio.Template(
        direction="score_hum", prompt="Write down what is hummed, in {metre}. {hum}", response="{score}"
    ),
}
"""By task. The sets of the same names, of one template each, are what recipes train them with."""
FACTS = ("metre", "bars", "ends")


def same(field: str) -> Callable:
    """A judge: the answer's tune is that of a field of the record."""

    def judge(answers, records):
        return [
            answer.media("score")[:1] == [record[field].data] for answer, record in zip(answers, records, strict=True)
        ]

    return judge


def same_text(answers, records):
    return [answer.text.strip() == record["notes"] for answer, record in zip(answers, records, strict=True)]


def facts(answers, records):
    """Right is every fact; and each by itself."""
    said = []
    for answer, record in zip(answers, records, strict=True):
        given, true = answer.text.strip().split(", "), record["facts"].split(", ")
        right = dict(zip(FACTS, (a == b for a, b in zip(given, true, strict=False)), strict=False))
        said.append({"accuracy": given == true, **{name: right.get(name, False) for name in FACTS}})
    return said


def continuations(answers, records):
    """Right is what `continues`. Few are the very bars that follow in the tune (`same`)."""
    said = []
    for answer, record in zip(answers, records, strict=True):
        [rest] = answer.media("score")[:1] or [None]
        right = rest is not None and continues(record["score"].data, rest)
        said.append({"accuracy": right, "same": rest == record["rest"].data})
    return said


def _task(name: str, source: str, output: str, judge: Callable, **more) -> mio.Task:
    def records(count: int) -> Sequence:
        held_out = Records(SOURCES[source], "test")
        return [held_out[index] for index in range(min(count, len(held_out)))]

    return mio.Task(
        name=name,
        template=TEMPLATES[name],
        records=records,
        output=output,
        judge=judge,
        decoding=mio.Decoding(**{"media_temperature": 0.0, "max_tokens": 96, "most": 1} | more.pop("decoding", {})),
        **more,
    )


def tasks() -> list[mio.Task]:
    every = tuple(mio.Measure(name=name) for name in ("accuracy", *FACTS))
    return [
        _task("score_read", "score/written", "text", same_text, needs=("score",)),
        _task("score_write", "score/written", "score", same("score")),
        _task("score_describe", "score/described", "text", facts, measures=every, needs=("score",)),
        _task("score_transpose", "score/transposed", "score", same("moved")),
        _task(
            "score_continue",
            "score/continued",
            "score",
            continuations,
            measures=(mio.Measure(), mio.Measure(name="same")),
        ),
        _task("score_play", "score/played", "score", same("score")),
        _task("score_hum", "score/hummed", "score", same("score"), needs=("hum",)),
    ]
