"""The digits world: corpora and tasks that are small enough for a laptop and need no download.

Handwritten digits, spoken digits, videos of counting, sums and text, in the directions that MIO has. The plugin
declares no modality: its records hold media of `image`, `speech` and `video` from any plugin. It has no options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mio import Synthesiser, Task, UserError, hookimpl

if TYPE_CHECKING:
    from mio import SourceFactory


def _no_options(options: Mapping[str, Any]) -> None:
    if options:
        raise UserError(f"plugins.digits: unknown option `{min(options)}`; it has none")


@hookimpl
def mio_sources(options: Mapping[str, Any]) -> Mapping[str, SourceFactory]:
    _no_options(options)
    from mio.plugins.digits.corpora import SOURCES

    return SOURCES


@hookimpl
def mio_tasks(options: Mapping[str, Any]) -> Sequence[Task]:
    _no_options(options)
    from mio.plugins.digits.drawing_tasks import drawing_tasks
    from mio.plugins.digits.talk_tasks import talk_tasks
    from mio.plugins.digits.tasks import tasks

    return [*tasks(), *talk_tasks(), *drawing_tasks()]


@hookimpl
def mio_synthesiser(modality: str, options: Mapping[str, Any]) -> Synthesiser | None:
    _no_options(options)
    if modality != "speech":
        return None
    from mio.plugins.digits.synthesis import ClipSynthesiser

    return ClipSynthesiser()
