"""The digits world: corpora and tasks that are small enough for a laptop and need no download.

Handwritten digits, spoken digits, videos of counting, sums and text, in the directions that MIO has; conversations as
VITA has them; drawings that come in stories, as MM-Interleaved tells them. The plugin declares no modality: its records
hold media of `image`, `speech` and `video` from any plugin.

    digits: {tasks: pictures}     # a world of text and images alone
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mio import Synthesiser, Task, hookimpl, one_of, read_options

if TYPE_CHECKING:
    from mio import SourceFactory


@dataclass(frozen=True)
class DigitsOptions:
    """Options of the plugin."""

    tasks: str = one_of("all", "all", "pictures")
    """Evaluation tasks: `all`, for which a recipe has text, images, speech and video, or those of `pictures` and words
    alone."""


def _read(options: Mapping[str, Any]) -> DigitsOptions:
    return read_options(DigitsOptions, options, "plugins.digits")


@hookimpl
def mio_sources(options: Mapping[str, Any]) -> Mapping[str, SourceFactory]:
    _read(options)
    from mio.plugins.digits.corpora import SOURCES

    return SOURCES


@hookimpl
def mio_tasks(options: Mapping[str, Any]) -> Sequence[Task]:
    from mio.plugins.digits.drawing_tasks import drawing_tasks
    from mio.plugins.digits.talk_tasks import talk_tasks
    from mio.plugins.digits.tasks import PICTURES, tasks

    every = [*tasks(), *talk_tasks(), *drawing_tasks()]
    if _read(options).tasks == "all":
        return every
    pictures = {*PICTURES, *(task.name for task in drawing_tasks())}
    return [task for task in every if task.name in pictures]


@hookimpl
def mio_synthesiser(modality: str, options: Mapping[str, Any]) -> Synthesiser | None:
    _read(options)
    if modality != "speech":
        return None
    from mio.plugins.digits.synthesis import ClipSynthesiser

    return ClipSynthesiser()
