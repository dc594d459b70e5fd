"""Captions of pictures: MS-COCO and Flickr30k, by CIDEr, BLEU-4 and ROUGE-L."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mio import Answer, Measure, Record, Task, Template
from mio.plugins.benchmarks import decoding
from mio.plugins.benchmarks.karpathy import pictures
from mio.plugins.benchmarks.options import BenchmarkOptions

_TOKENS = 64

TEMPLATE = Template(
    # arXiv 2409.17692 v4, table 12
    direction="caption",
    prompt="Provide a one-sentence caption for the provided image. {image}",
    response="{caption}",
)


def tasks(options: BenchmarkOptions) -> list[Task]:
    return [_task(options, data_set) for data_set in ("coco", "flickr30k")]


def _task(options: BenchmarkOptions, data_set: str) -> Task:
    return Task(
        name=f"{data_set}_captions",
        template=TEMPLATE,
        records=partial(pictures, options, data_set),
        output="text",
        judge=_judge,
        measures=(
            Measure(name="cider", most=math.inf, worst=_unsaid, overall=_cider),
            Measure(name="bleu_4", worst=_unsaid, overall=_bleu),
            Measure(name="rouge_l"),
        ),
        decoding=decoding.text(_TOKENS),
        needs=(options.image,),
        missing=options.missing(data_set),
    )


def _unsaid(record: Record) -> str:  # noqa: ARG001
    """What a caption counts as that is not there."""
    return ""


def _judge(answers: Sequence[Answer], records: Sequence[Record]) -> list[Mapping[str, Any]]:
    from mio.plugins.benchmarks.metrics.captions import rouge
    from mio.plugins.benchmarks.metrics.penn_treebank import words

    return [
        {
            "cider": answer.text,
            "bleu_4": answer.text,
            "rouge_l": rouge(words(answer.text), [words(caption) for caption in record["captions"]]),
        }
        for answer, record in zip(answers, records, strict=True)
    ]


def _cider(said: Sequence[str], records: Sequence[Record]) -> list[float]:
    from mio.plugins.benchmarks.metrics.captions import cider

    return cider(*_words(said, records))


def _bleu(said: Sequence[str], records: Sequence[Record]) -> float:
    from mio.plugins.benchmarks.metrics.captions import bleu

    return bleu(*_words(said, records))


def _words(said: Sequence[str], records: Sequence[Record]) -> tuple[list[Sequence[str]], list[list[Sequence[str]]]]:
    from mio.plugins.benchmarks.metrics.penn_treebank import words

    return [words(text) for text in said], [[words(caption) for caption in record["captions"]] for record in records]
