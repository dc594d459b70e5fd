"""Pictures of captions: MS-COCO and Flickr30k, by how like the captioned picture they are (CLIP-I, SSIM), how like the
caption (CLIP-T), and how like all pictures together (FID)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mio import Answer, Measure, Record, RoundTrip, Task, Template
from mio.plugins.benchmarks import decoding
from mio.plugins.benchmarks.folders import batches
from mio.plugins.benchmarks.karpathy import pictures
from mio.plugins.benchmarks.options import BenchmarkOptions

if TYPE_CHECKING:
    import numpy as np

TEMPLATE = Template(
    # arXiv 2409.17692 v4, table 12
    direction="draw",
    prompt="Please generate an image according to the given description. {caption}",
    response="{image}",
)


def tasks(options: BenchmarkOptions) -> list[Task]:
    """The first measure is CLIP-I where its network is named, as MIO reports it, otherwise SSIM, which needs none."""
    return [
        Task(
            name=f"{data_set}_generation",
            template=TEMPLATE,
            records=partial(pictures, options, data_set),
            output=options.image,
            judge=partial(_judge, options),
            measures=_measures(options),
            ceiling=partial(_ceiling, options),
            decoding=decoding.picture(options.image),
            needs=(options.image,),
            missing=options.missing(data_set, *(name for name in ("clip", "inception") if getattr(options, name))),
        )
        for data_set in ("coco", "flickr30k")
    ]


def _measures(options: BenchmarkOptions) -> tuple[Measure, ...]:
    clip = tuple(Measure(name=name, most=100) for name in ("clip_i", "clip_t"))
    distance = Measure(name="fid", better="lower", most=math.inf, overall=_distance)
    return (
        *(clip if options.clip else ()),
        Measure(name="ssim", least=-1, worst=_undrawn),
        *((distance,) if options.inception else ()),
    )


def _undrawn(record: Record) -> float:  # noqa: ARG001
    """What a picture counts as that is not there."""
    return 0.0


def _judge(
    options: BenchmarkOptions, answers: Sequence[Answer], records: Sequence[Record]
) -> list[Mapping[str, Any]] | list[Any]:
    return _compared(options, [answer.first(options.image) for answer in answers], records)


def _compared(options: BenchmarkOptions, drawn: Sequence[np.ndarray], records: Sequence[Record]) -> list[Any]:
    """What the measures say of pictures that were drawn for records."""
    from mio.plugins.benchmarks.metrics import pictures as metrics

    wanted = [metrics.read(record["image"].data) for record in records]
    said: dict[str, Sequence[Any]] = {
        "ssim": [metrics.ssim(*pair) for pair in zip(drawn, wanted, strict=True)],
    }
    if options.clip:
        clip = metrics.Clip.of(options.clip)
        said["clip_i"] = clip.likeness(drawn, wanted)
        said["clip_t"] = clip.likeness(drawn, [record["caption"] for record in records])
    if options.inception:
        inception = metrics.Inception.of(options.inception)
        said["fid"] = inception.features(drawn, wanted)
    if len(said) == 1:
        return list(said["ssim"])
    return [{name: values[item] for name, values in said.items()} for item in range(len(drawn))]


def _distance(said: Sequence[np.ndarray], records: Sequence[Record]) -> float:  # noqa: ARG001
    from mio.plugins.benchmarks.metrics.pictures import frechet_distance

    return frechet_distance(said)


def _ceiling(options: BenchmarkOptions, records: Sequence[Record], roundtrip: RoundTrip) -> dict[str, float]:
    """Of the captioned pictures themselves after the codec."""
    said: list[Any] = []
    for some in batches(records):
        said += _compared(options, roundtrip([record["image"] for record in some]), some)
    figures = {}
    for measure in _measures(options):
        values = [one[measure.name] if isinstance(one, Mapping) else one for one in said]
        figures[measure.name] = _distance(values, records) if measure.overall else sum(values) / len(values)
    return figures
